//! The promises of Tidings, each as a test against the real thing.

mod private_postgres;
