//! The black-box side of the contract, for `bench` and `torture`: HTTP/1.1, Server-Sent Events and
//! streams on raw sockets. It shares nothing with the server, so that a mistake in one is seen by the
//! other.

use std::time::Duration;

pub mod http;
pub mod sse;
pub mod stream;

/// Whatever went wrong, as a sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The usual result.
pub type Outcome<T> = Result<T, Failure>;

/// Nothing on one machine takes this long: a server that does not answer must not hang its tester.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bounds `work`, which is named in the failure.
pub async fn timely<T>(what: &str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let late = |_| Failure::from(format!("{what} took longer than {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, work).await.map_err(late)?
}
