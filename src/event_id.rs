//! Event ids. One is a ULID that the database made under the lane:
//! `48 bits ms | 15 bits counter | 0 | 16 bits epoch | 48 bits tail`. The first 63 bits are the
//! position in the feed, so the order of ids is the order of commits.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use ulid::Ulid;
use uuid::Uuid;

/// The id of a notification, of its SSE event, and a cursor into the feed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Ulid);

impl EventId {
    /// Before everything: the cursor of a client that wants the whole feed, and the head of an
    /// empty one.
    pub const ZERO: EventId = EventId(Ulid::nil());

    /// The id of the row at `position`, of a group made in `epoch` with `tail` (48 bits).
    pub fn at(position: i64, epoch: u16, tail: u64) -> EventId {
        debug_assert!(position >= 0 && tail >> 48 == 0);
        EventId(Ulid::from((position as u128) << 65 | u128::from(epoch) << 48 | u128::from(tail)))
    }

    /// The id of the row that follows this one at a distance of `places` in the same group.
    pub fn followed_by(self, places: usize) -> EventId {
        EventId(Ulid::from(u128::from(self.0) + ((places as u128) << 65)))
    }

    /// What all rows of one group share, and no other: 48 bits.
    pub fn tail(self) -> u64 {
        (u128::from(self.0) & ((1 << 48) - 1)) as u64
    }

    /// The largest id at `position` of a row made in the same epoch as this one.
    pub fn moved_to(self, position: i64) -> EventId {
        EventId::at(position, (u128::from(self.0) >> 48) as u16, (1 << 48) - 1)
    }

    /// The largest id that is older than `ms` (Unix time): a cursor from which everything of that
    /// millisecond and later follows.
    pub fn just_before_ms(ms: u64) -> EventId {
        EventId(Ulid::from((u128::from(ms) << 80).saturating_sub(1)))
    }

    /// The place in the feed: the one number that the sequence in the database counts.
    pub fn position(self) -> i64 {
        (u128::from(self.0) >> 65) as i64
    }

    /// The time in the id, in Unix milliseconds. It can differ from `created_at` while clocks
    /// disagree.
    pub fn ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl From<Uuid> for EventId {
    fn from(stored: Uuid) -> EventId {
        EventId(Ulid::from(stored))
    }
}

impl From<EventId> for Uuid {
    fn from(id: EventId) -> Uuid {
        id.0.into()
    }
}

/// Not a ULID of 26 characters in Crockford's base 32, in either case.
#[derive(Debug, thiserror::Error)]
#[error("not a ULID")]
pub struct NotAnEventId;

impl FromStr for EventId {
    type Err = NotAnEventId;

    fn from_str(text: &str) -> Result<EventId, NotAnEventId> {
        // 26 characters hold 130 bits; the crate drops the two that do not fit instead of refusing.
        if !matches!(text.as_bytes().first(), Some(b'0'..=b'7')) {
            return Err(NotAnEventId);
        }
        Ulid::from_string(text).map(EventId).map_err(|_| NotAnEventId)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_position_and_prints_in_upper_case() {
        let id = EventId::at(58_834_068_176_338_945, 3, 0xffff_ffff_ffff);
        assert_eq!(id.position(), 58_834_068_176_338_945);
        let text = id.to_string();
        assert_eq!(text, text.to_uppercase());
        assert_eq!(text.to_lowercase().parse::<EventId>().unwrap(), id);
    }

    #[test]
    fn what_is_not_a_ulid_is_refused() {
        for text in [
            "",
            "17",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "01ARZ3NDEKTSV4RRFFQ69G5FAVX",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }

    #[test]
    fn just_before_a_millisecond_is_below_its_first_id_and_above_the_one_before() {
        let first = EventId::at(1000 << 15, 0, 0);
        assert!(EventId::just_before_ms(1000) < first);
        assert!(EventId::just_before_ms(1000) > EventId::at((1000 << 15) - 1, 65535, 1 << 47));
    }
}
