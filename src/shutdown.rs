//! Going away in steps: not ready, no new connections, streams and sends ended one by one, the rest
//! cut off. A second signal cuts off at once.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The part of the drain time over which streams end, so that their clients do not come back as one
/// and the last of them still has time to go.
const SPREAD: f64 = 0.6;

/// Asked to stop: by a signal, or by a test.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Stop in good order.
    pub graceful: CancellationToken,
    /// Stop now.
    pub now: CancellationToken,
}

impl Shutdown {
    /// SIGTERM or SIGINT once: in good order; twice: now.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        use tokio::signal::unix::{SignalKind, signal};
        let shutdown = Shutdown::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tokens = shutdown.clone();
        tokio::spawn(async move {
            for token in [tokens.graceful, tokens.now] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(shutdown)
    }
}

/// What streams look at.
#[derive(Debug)]
pub struct Drain {
    begun: CancellationToken,
    begun_at: OnceLock<Instant>,
    within: Duration,
}

impl Drain {
    /// A drain that tells `begun` when it begins, and is over `within` that time.
    pub fn new(begun: CancellationToken, within: Duration) -> Drain {
        Drain { begun, begun_at: OnceLock::new(), within }
    }

    /// Begins it.
    pub fn begin(&self) {
        self.begun_at.get_or_init(Instant::now);
        self.begun.cancel();
    }

    /// Waits for the drain to begin.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Streams are ending and no new ones are opened.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// When a stream that sees that the drain has begun should end: also one that could not look before,
    /// because its client took nothing for a while.
    pub fn moment_to_end(&self) -> Instant {
        let begun_at = *self.begun_at.get_or_init(Instant::now);
        begun_at + self.within.mul_f64(SPREAD * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_sees_the_drain_late_ends_within_its_time_all_the_same() {
        let within = Duration::from_secs(20);
        let begun_at = OnceLock::from(Instant::now() - within);
        let drain = Drain { begun: CancellationToken::new(), begun_at, within };
        assert!((0..100).all(|_| drain.moment_to_end() < Instant::now()));
    }
}
