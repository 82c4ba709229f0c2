//! The bytes of the event stream (WHATWG HTML, 9.2.6). Every frame is made here, and a frame with an
//! id always carries data: some clients forget an id that comes alone.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::address::Audience;
use crate::clock;
use crate::coverage::Format;
use crate::event_id::EventId;
use crate::notification::STATE_ENTRY;

/// What `id:`, `event:` and `data:` take beside the data, with the longest event name.
const MOST_AROUND_DATA: usize = 111;
/// What an envelope takes beside data and audience, with the longest event name.
const MOST_OF_ENVELOPE: usize = 170;

/// Why a stream may have lost rows after a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The retention edge is above the cursor.
    Expired,
    /// The cursor is above everything that was ever issued here.
    Ahead,
    /// The cursor is of rows that a restore or a failover has lost.
    Restored,
    /// The `Last-Event-ID` header was not a ULID.
    BadCursor,
}

impl GapReason {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Expired => "expired",
            GapReason::Ahead => "ahead",
            GapReason::Restored => "restored",
            GapReason::BadCursor => "bad-cursor",
        }
    }
}

/// Why the server ends a stream on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goodbye {
    /// This instance is going away; others, or its successor, take over.
    Shutdown,
    /// This instance has as many streams as it may.
    Overloaded,
    /// The client took nothing for a minute.
    Slow,
}

/// What the event of a row is made of.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its id.
    pub id: EventId,
    /// Its event name.
    pub event: Option<&'a str>,
    /// Whom it is for.
    pub audience: &'a Audience,
    /// When it was committed.
    pub created_at: DateTime<Utc>,
    /// One line of JSON.
    pub data: &'a str,
}

/// A notification or a state entry: the same bytes live, replayed, and on every instance. State
/// entries are in no envelope: they are read like control events.
pub fn row(into: &mut String, format: Format, row: &Row<'_>) {
    let Row { id, event, data, .. } = row;
    into.reserve(MOST_AROUND_DATA + data.len());
    let _ = writeln!(into, "id: {id}");
    if let Some(event) = event {
        let _ = writeln!(into, "event: {event}");
    }
    into.push_str("data: ");
    match format {
        Format::Envelope if *event != Some(STATE_ENTRY) => envelope(into, row),
        _ => into.push_str(data),
    }
    into.push_str("\n\n");
}

/// The data goes in byte for byte; an event name has no character that JSON would escape.
fn envelope(into: &mut String, row: &Row<'_>) {
    let event = row.event.map_or_else(|| "null".to_owned(), |event| format!("\"{event}\""));
    let (id, audience) = (row.id, json_of(row.audience));
    let (created_at, data) = (clock::rfc3339(row.created_at), row.data);
    into.reserve(MOST_OF_ENVELOPE + audience.len() + data.len());
    let _ = write!(
        into,
        "{{\"id\":\"{id}\",\"event\":{event},\"audience\":{audience},\
         \"created_at\":\"{created_at}\",\"data\":{data}}}"
    );
}

fn json_of(audience: &Audience) -> String {
    serde_json::to_string(audience).expect("a name becomes JSON")
}

/// What the frame of a row for `audience` takes beside its data, at most.
pub fn most_beside_data(format: Format, audience: &Audience) -> usize {
    match format {
        Format::Data => MOST_AROUND_DATA,
        Format::Envelope => MOST_AROUND_DATA + MOST_OF_ENVELOPE + json_of(audience).len(),
    }
}

/// Where the stream starts, how often it pings, and how long to wait before coming back.
pub fn ready(cursor: EventId, heartbeat: Duration) -> Bytes {
    let retry = short_retry_ms();
    let heartbeat = heartbeat.as_secs_f64();
    format!(
        "retry: {retry}\nid: {cursor}\nevent: tidings.ready\n\
         data: {{\"cursor\":\"{cursor}\",\"heartbeat_seconds\":{heartbeat}}}\n\n"
    )
    .into()
}

/// The replay is done; what follows is live.
pub fn live(replayed: u64) -> Bytes {
    format!("event: tidings.live\ndata: {{\"replayed\":{replayed}}}\n\n").into()
}

/// A heartbeat that JavaScript can see. `complete_to` is where this stream stands, never the hub.
pub fn ping(complete_to: Option<EventId>, time: &str, database_up: bool) -> Bytes {
    let id = complete_to.map_or_else(String::new, |id| format!("id: {id}\n"));
    let database = if database_up { "up" } else { "unreachable" };
    format!(
        "{id}event: tidings.ping\ndata: {{\"time\":\"{time}\",\"database\":\"{database}\"}}\n\n"
    )
    .into()
}

/// Rows between the two may be missing. `after` is absent when the cursor could not be read.
pub fn gap(after: Option<EventId>, resumes_after: EventId, reason: GapReason) -> Bytes {
    let after = after.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    let reason = reason.as_str();
    format!(
        "id: {resumes_after}\nevent: tidings.gap\n\
         data: {{\"after\":{after},\"resumes_after\":\"{resumes_after}\",\"reason\":\"{reason}\"}}\n\n"
    )
    .into()
}

/// The last frame of a stream that the server ends; `retry` is when to come back.
pub fn goodbye(reason: Goodbye, retry: Duration) -> Bytes {
    let reason = match reason {
        Goodbye::Shutdown => "shutdown",
        Goodbye::Overloaded => "overloaded",
        Goodbye::Slow => "slow",
    };
    let retry = retry.as_millis();
    format!("retry: {retry}\nevent: tidings.goodbye\ndata: {{\"reason\":\"{reason}\"}}\n\n").into()
}

/// 500 to 1,500 ms, another one for each stream, so that clients do not come back as one.
pub fn short_retry() -> Duration {
    Duration::from_millis(short_retry_ms())
}

fn short_retry_ms() -> u64 {
    fastrand::u64(500..=1500)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Topic, User};

    fn framed(format: Format, event: Option<&str>, audience: &Audience) -> String {
        let created_at = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        let mut frame = String::new();
        let id = EventId::at(1, 0, 7);
        row(&mut frame, format, &Row { id, event, audience, created_at, data: "{\"a\":1.0}" });
        frame
    }

    #[test]
    fn an_envelope_has_the_data_untouched_and_says_what_is_not_there() {
        let topic = Audience::Topic(Topic::try_from("a \"b\"").unwrap());
        let id = EventId::at(1, 0, 7);
        assert_eq!(
            framed(Format::Envelope, Some("order.shipped"), &topic),
            format!(
                "id: {id}\nevent: order.shipped\ndata: {{\"id\":\"{id}\",\"event\":\"order.shipped\",\
                 \"audience\":{{\"topic\":\"a \\\"b\\\"\"}},\
                 \"created_at\":\"2023-11-14T22:13:20.123Z\",\"data\":{{\"a\":1.0}}}}\n\n"
            )
        );
        let for_all = framed(Format::Envelope, None, &Audience::Everyone);
        assert!(for_all.contains("\ndata: {\"id\":"), "{for_all}");
        assert!(for_all.contains("\"event\":null,\"audience\":\"everyone\","), "{for_all}");
    }

    #[test]
    fn a_state_entry_is_the_same_in_both_formats() {
        let entry = |format| framed(format, Some(STATE_ENTRY), &Audience::Everyone);
        assert_eq!(entry(Format::Envelope), entry(Format::Data));
    }

    #[test]
    fn no_frame_takes_more_beside_its_data_than_is_reckoned_with() {
        let event = "x".repeat(64);
        for name in ["\"".repeat(128), "😀".repeat(128)] {
            let audience = Audience::User(User::try_from(name.as_str()).unwrap());
            for format in [Format::Data, Format::Envelope] {
                let beside = framed(format, Some(&event), &audience).len() - "{\"a\":1.0}".len();
                assert_eq!(beside, most_beside_data(format, &audience));
            }
        }
    }
}
