//! The only place that reads the wall clock. Order never depends on it: ids are given out by the
//! database under the lane, and a wrong clock here can only make them less readable.

use chrono::{DateTime, SecondsFormat, Utc};

/// Where an instance takes its time from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    offset: chrono::TimeDelta,
}

impl Clock {
    /// A clock that is wrong by `offset`: what an instance on a badly kept machine has.
    pub fn wrong_by(offset: chrono::TimeDelta) -> Clock {
        Clock { offset }
    }

    /// The time by this instance's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.offset
    }

    /// The time as RFC 3339 with milliseconds, in UTC.
    pub fn now_rfc3339(&self) -> String {
        rfc3339(self.now())
    }
}

/// RFC 3339 with milliseconds, in UTC: the form of every time that Tidings prints.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
