//! The bytes of the event stream (WHATWG HTML, 9.2.6). Every frame is made here, and a frame with an
//! id always carries data: some clients forget an id that comes alone.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

use crate::event_id::EventId;

/// Why a stream may have lost rows after a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The retention edge is above the cursor.
    Expired,
    /// The cursor is above everything that was ever issued here.
    Ahead,
    /// The `Last-Event-ID` header was not a ULID.
    BadCursor,
}

impl GapReason {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Expired => "expired",
            GapReason::Ahead => "ahead",
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

/// A notification: the same bytes live, replayed, and on every instance.
pub fn notification(into: &mut String, id: EventId, event: Option<&str>, data: &str) {
    into.reserve(26 + event.map_or(0, |event| event.len() + 8) + data.len() + 16);
    let _ = writeln!(into, "id: {id}");
    if let Some(event) = event {
        let _ = writeln!(into, "event: {event}");
    }
    into.push_str("data: ");
    into.push_str(data);
    into.push_str("\n\n");
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
