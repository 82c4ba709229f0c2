//! How long `tail` waits before it connects again.

use std::time::Duration;

/// The jitter's range after the first failure; it doubles with every further one.
const FIRST: Duration = Duration::from_secs(1);

/// The jitter's range stops growing here.
const LONGEST: Duration = Duration::from_secs(30);

/// The server asks for up to a minute; what asks for much more is not our server.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Exponential with full jitter, on top of what the server asked for. With the jitter alone a
/// server that asked for 60 s could see everyone again at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    asked: Option<Duration>,
    failures: u32,
}

impl Backoff {
    /// The server's `retry:`. It spreads its clients itself, and it stays until the next one.
    pub(super) fn ask(&mut self, wait: Duration) {
        self.asked = Some(wait.min(LONGEST_ASKED));
    }

    /// The stream was opened in full: the next break is a first one again.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn next(&mut self) -> Duration {
        let range = self.range().as_secs_f64();
        self.failures = self.failures.saturating_add(1);
        self.asked.unwrap_or_default() + Duration::from_secs_f64(fastrand::f64() * range)
    }

    fn range(&self) -> Duration {
        match (self.failures, self.asked) {
            (0, Some(_)) => Duration::ZERO,
            (failures, _) => FIRST.saturating_mul(1 << failures.min(10)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_doubles_and_stops_growing() {
        let mut backoff = Backoff::default();
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(backoff.range().as_secs(), expected);
            assert!(backoff.next() <= Duration::from_secs(expected));
        }
        backoff.succeeded();
        assert_eq!(backoff.range(), FIRST);
    }

    #[test]
    fn the_servers_wish_is_kept_to_and_then_the_least() {
        let mut backoff = Backoff::default();
        backoff.ask(Duration::from_millis(700));
        assert_eq!(backoff.next(), Duration::from_millis(700));
        for _ in 0..50 {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(700));
            assert!(wait <= LONGEST + Duration::from_millis(700));
        }
        backoff.ask(Duration::from_secs(1 << 40));
        assert!(backoff.next() <= LONGEST_ASKED + LONGEST);
    }
}
