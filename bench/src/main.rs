//! Black-box benchmarks of a running Tidings server.
fn main() {}
