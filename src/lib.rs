//! Tidings, a persistent notification service: send once, over HTTP or from SQL; each client gets it
//! once, in order, however often it drops.
//!
//! Two journeys, in reading order; each hop is one file, and calls only go down:
//!
//! - **send**: [`http`] → [`sender`] (queue) → [`writer`] (group commit) → [`store`] (append, commit, NOTIFY) →
//!   [`feed`] (on every instance) → [`hub`] → [`subscription`] → client.
//! - **subscribe**: [`http`] (cursor) → [`subscription`] → [`replayer`] pages → the [`hub`]'s ring
//!   (handover) → live.
//!
//! `store` knows no HTTP and `hub` knows no SQL. ARCHITECTURE.md has the invariants.

// First: the others use its macro.
#[macro_use]
mod mutant;

pub mod address;
pub mod backlog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coverage;
pub mod database;
pub mod drainer;
pub mod error;
pub mod event_id;
pub mod feed;
pub mod frame;
pub mod http;
pub mod hub;
pub mod instance;
pub mod maintenance;
pub mod metrics;
pub mod notification;
pub mod postgres;
pub mod prune;
mod queue;
pub mod release;
pub mod replayer;
pub mod retention;
pub mod sender;
pub mod serve;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod subscription;
pub mod telemetry;
pub mod writer;

pub use instance::{RunError, run};
pub use prune::prune;
pub use serve::{migrate, migrate_after_restore, serve};
