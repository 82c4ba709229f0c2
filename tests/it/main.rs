//! The integration tests: one binary, one cluster, a database per test, no sleeps, no retries.

mod cuts;
mod durability;
mod eventsource;
mod guard;
mod harness;
mod order;
mod private_postgres;
mod replay;
mod shutdown;
mod slow;
mod start;
