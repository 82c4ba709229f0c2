//! The integration tests: one binary, one cluster, a database per test, no sleeps, no retries.

mod harness;
mod private_postgres;
mod replay;
