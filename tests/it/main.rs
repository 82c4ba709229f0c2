//! The integration tests: one binary, one cluster, a database per test, no sleeps, no retries.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails where its expectation ends; and nothing is outside of this crate"
)]

mod abuse;
mod audiences;
mod balancers;
mod batches;
mod connections;
mod cuts;
mod deliverable;
mod durability;
mod edges;
mod envelope;
mod epochs;
mod eventsource;
mod guard;
mod harness;
mod history;
mod idempotency;
mod inbox;
mod openapi;
mod operations;
mod order;
mod outbox;
mod plans;
mod pooler;
mod private_postgres;
mod problems;
mod replay;
mod retention;
mod routes;
mod scheduled;
mod schema;
mod send;
mod shutdown;
mod slow;
mod sql;
mod sql_sends;
mod start;
mod streams;
mod subscribe;
mod torture;
mod unavailable;
mod writer;
