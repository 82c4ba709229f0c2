//! Tidings, a persistent notification service. (Crate docs follow.)
