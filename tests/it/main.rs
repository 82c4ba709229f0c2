//! The integration tests: one binary, one cluster, a database per test, no sleeps, no retries.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails where its expectation ends; and nothing is outside of this crate"
)]

mod batches;
mod cuts;
mod durability;
mod eventsource;
mod guard;
mod harness;
mod history;
mod idempotency;
mod operations;
mod order;
mod plans;
mod private_postgres;
mod problems;
mod replay;
mod routes;
mod schema;
mod send;
mod shutdown;
mod slow;
mod start;
mod streams;
mod subscribe;
mod torture;
mod unavailable;
mod writer;
