//! What the tests stand on: a database each, a server in this process on a port of its own, or the
//! real program, raw clients with deadlines, and a proxy that cuts and holds.

mod app;
mod cluster;
mod database_proxy;
mod faked_clock;
mod pooler;
mod process;
mod program;
mod proxy;
mod raw;
mod sse;

pub use app::{API, Sent, TestApp};
pub use cluster::{Lane, TestDatabase};
pub use database_proxy::{DatabaseProxy, Fault};
pub use faked_clock::FakedClock;
pub use pooler::Pooler;
pub use process::ServerProcess;
pub use program::{Program, find, free_address};
pub use proxy::Proxy;
pub use raw::{Answer, Request};
pub use sse::{DEADLINE, Frame, SseClient};

use std::io::Write;
use std::time::Duration;

/// Says that this test cannot be run here, and why: past libtest, which keeps what passing tests say.
pub fn skipped(reason: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped {}: {reason}", test.name().unwrap_or("a test"));
}

/// The same for what the checks of a change install: there it must not be missing.
pub fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    skipped(what);
}

/// A client for plain HTTP. reqwest wants to be told whose cryptography to use, even for none.
pub fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(DEADLINE).build().expect("a client")
}

/// Waits until `condition` holds, looking again every few milliseconds; fails at the deadline.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    met.await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"));
}
