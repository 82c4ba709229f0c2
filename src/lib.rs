//! Tidings, a persistent notification service. (Crate docs follow.)

#[cfg(unix)]
pub mod postgres;
