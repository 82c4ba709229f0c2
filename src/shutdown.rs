//! Going away in steps: not ready, no new connections, streams and sends ended one by one, the rest
//! cut off. A second signal cuts off at once.

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
#[derive(Clone, Debug)]
pub struct Drain {
    begun: CancellationToken,
    within: Duration,
}

impl Drain {
    /// A drain that begins with `begun` and is over `within` that time.
    pub fn new(begun: CancellationToken, within: Duration) -> Drain {
        Drain { begun, within }
    }

    /// Waits for the drain to begin.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Streams are ending and no new ones are opened.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// When a stream that has just seen the drain begin should end.
    pub fn moment_to_end(&self) -> Instant {
        Instant::now() + self.within.mul_f64(SPREAD * fastrand::f64())
    }
}
