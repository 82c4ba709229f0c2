//! A seeded fault tester of Tidings. It starts Postgres with production settings, several servers and
//! a balancer; drives concurrent senders and subscribers; makes one fault after the other; and writes
//! down everything that was sent and received. What it wrote is then judged by a checker that knows
//! the contract alone: nothing here is shared with the server but the id type.
//!
//! In reading order: `plan` (what a seed decides), `cluster` (what runs), `compose`, `senders`,
//! `sql_senders`, `clients` and `table` (who acts and notes), `faults`, [`history`] (what was noted), [`checker`]
//! (a pure function over it), [`report`], [`mutants`] (that it can fail).

pub mod checker;
mod clients;
mod cluster;
mod compose;
mod faults;
pub mod history;
pub mod mutants;
mod plan;
pub mod report;
mod run;
mod senders;
mod sql_senders;
mod table;

pub use faults::{BESIDE_LOSSES, FAULTS, Fault, LOSSES};
pub use run::{Options, default_folder, run};
