//! What is sent and what is stored. A value of these types has been checked: its data is one line of
//! compact JSON and its event name cannot break out of an SSE field.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::address::{App, Audience, InvalidName};
use crate::event_id::EventId;

/// Arrays and objects inside each other, at most.
pub const MAX_NESTING: usize = 128;

/// A notification that is ready to be appended.
#[derive(Clone, Debug)]
pub struct NewNotification {
    /// The tenant.
    pub app: App,
    /// Whom it is for.
    pub audience: Audience,
    /// The SSE event name, if the sender gave one.
    pub event: Option<EventName>,
    /// What it says.
    pub data: Data,
    /// Seconds after its delivery, from which on it is deliverable no more.
    pub expires_in: Option<u32>,
    /// Takes the place of the one before it with the same key in the same audience.
    pub replaces: Option<ReplaceKey>,
}

impl NewNotification {
    /// About what it holds in memory while it waits, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<NewNotification>() + 2 * crate::address::MAX_NAME + self.data.as_str().len()
    }
}

/// What one request sends: all of it is stored, with ids that follow each other, or nothing.
#[derive(Clone, Debug)]
pub struct NewSend {
    /// One or more, all of one app.
    pub notifications: Vec<NewNotification>,
    /// Makes repeating the request safe.
    pub key: Option<IdempotencyKey>,
}

impl NewSend {
    /// The tenant.
    pub fn app(&self) -> &App {
        &self.notifications[0].app
    }

    /// About what it holds in memory while it waits, in bytes.
    pub fn bytes(&self) -> usize {
        self.notifications.iter().map(NewNotification::bytes).sum()
    }
}

/// An `Idempotency-Key` and the request that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// 1 to 255 visible ASCII characters; its scope is the app.
    pub key: String,
    /// SHA-256 of method, path, type and body: the same key with another request is a mistake.
    pub fingerprint: [u8; 32],
}

/// What a notification that replaces another has in common with it: 1 to 128 characters, no control
/// characters, not only white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaceKey(String);

impl ReplaceKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ReplaceKey {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<ReplaceKey, InvalidName> {
        crate::address::check_text(&text).map(|()| ReplaceKey(text))
    }
}

/// A notification as it is stored. The texts came through the checks above or those of the table.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Its id, also of its SSE event.
    pub id: EventId,
    /// The tenant.
    pub app: String,
    /// Whom it is for, in the form of the column.
    pub audience: String,
    /// The SSE event name, if it has one.
    pub event: Option<String>,
    /// One line of JSON, byte for byte as it was stored.
    pub data: String,
    /// When it was committed, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// From when on it is not delivered any more, by the same clock.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The event name of a state entry: a row of the feed that tells what became of others. No sender can
/// give it.
pub const STATE_ENTRY: &str = "tidings.state";

/// An SSE event name: `[A-Za-z0-9_.:-]{1,64}` and none that the browser or Tidings uses itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(String);

impl EventName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an event name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEventName {
    /// Wrong length or a character that is not allowed.
    #[error("has to be 1 to 64 characters of A-Z a-z 0-9 _ . : -")]
    Form,
    /// A name that means something else already.
    #[error(
        "is reserved: tidings.* are control events; open, error and message are the browser's own"
    )]
    Reserved,
}

impl TryFrom<String> for EventName {
    type Error = InvalidEventName;

    fn try_from(text: String) -> Result<EventName, InvalidEventName> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.:-".contains(&c);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(InvalidEventName::Form);
        }
        if text.starts_with("tidings.") || ["open", "error", "message"].contains(&text.as_str()) {
            return Err(InvalidEventName::Reserved);
        }
        Ok(EventName(text))
    }
}

/// JSON on one line without white space between its tokens; otherwise every byte as it was sent:
/// number text, key order, duplicate keys and escapes. Shared, since a send to a thousand users holds it
/// a thousand times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data(Arc<str>);

/// Why a JSON value cannot be a notification's data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// Postgres cannot keep it as text.
    #[error("has the escape \\u0000, which no text can hold: remove it")]
    Nul,
    /// Strict JSON parsers refuse it.
    #[error("has an unpaired surrogate escape ({0}): send the whole pair or the character itself")]
    Surrogate(String),
    /// Deeper than common parsers go.
    #[error("is nested deeper than 128: flatten it")]
    Nesting,
}

impl Data {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text as a JSON string.
    pub fn from_text(text: &str) -> Result<Data, InvalidData> {
        if text.contains('\0') {
            return Err(InvalidData::Nul);
        }
        Ok(Data(serde_json::Value::from(text).to_string().into()))
    }

    /// Takes the white space between tokens out of `json`, which is well-formed.
    pub fn compact(json: &RawValue) -> Result<Data, InvalidData> {
        let json = json.get();
        let mut compact = String::with_capacity(json.len());
        let mut nesting = 0_usize;
        let mut rest = json;
        // Everything of interest is ASCII, so every cut below is on a character's boundary.
        while let Some(at) = rest.find([' ', '\t', '\n', '\r', '"', '[', '{', ']', '}']) {
            compact.push_str(&rest[..at]);
            rest = &rest[at..];
            let length = match rest.as_bytes()[0] {
                b'"' => string_length(rest)?,
                _ => 1,
            };
            match rest.as_bytes()[0] {
                b' ' | b'\t' | b'\n' | b'\r' => {}
                b'[' | b'{' if nesting == MAX_NESTING => return Err(InvalidData::Nesting),
                first => {
                    match first {
                        b'[' | b'{' => nesting += 1,
                        b']' | b'}' => nesting -= 1,
                        _ => {}
                    }
                    compact.push_str(&rest[..length]);
                }
            }
            rest = &rest[length..];
        }
        compact.push_str(rest);
        Ok(Data(compact.into()))
    }
}

/// The length of the JSON string that `json` begins with, quotes included, its escapes checked
/// (RFC 8259, section 7, lets `\u0000` and single surrogates pass).
fn string_length(json: &str) -> Result<usize, InvalidData> {
    let escape = |at: usize| -> Option<u16> {
        let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok()
    };
    let mut at = 1;
    loop {
        let step =
            json[at..].find(['"', '\\']).expect("the JSON was parsed before, so its strings end");
        at += step;
        if json.as_bytes()[at] == b'"' {
            return Ok(at + 1);
        }
        at += match escape(at) {
            None => 2,
            Some(0) => return Err(InvalidData::Nul),
            Some(0xd800..=0xdbff) if matches!(escape(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                return Err(InvalidData::Surrogate(json[at..at + 6].to_owned()));
            }
            Some(_) => 6,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(json: &str) -> Result<String, InvalidData> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        Data::compact(&raw).map(|data| data.as_str().to_owned())
    }

    #[test]
    fn only_white_space_between_tokens_is_removed() {
        for (sent, kept) in [
            ("1.0", "1.0"),
            ("18446744073709551616", "18446744073709551616"),
            ("{ \"b\" : 1 ,\r\n\t\"a\":2, \"b\": 3 }", r#"{"b":1,"a":2,"b":3}"#),
            (r#"[ " a \" b ", "\\", "\/\u0041" ]"#, r#"[" a \" b ","\\","\/\u0041"]"#),
            (r#"{"ä":"ö €", "😀" : [ ] }"#, r#"{"ä":"ö €","😀":[]}"#),
            (r#""\ud83d\ude00 \\ud800 \\u0000""#, r#""\ud83d\ude00 \\ud800 \\u0000""#),
            ("-1.5E+10", "-1.5E+10"),
        ] {
            assert_eq!(compact(sent).unwrap(), kept);
        }
    }

    #[test]
    fn what_a_strict_parser_would_refuse_is_refused() {
        assert_eq!(compact(r#"["a\u0000"]"#), Err(InvalidData::Nul));
        for json in [
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#""\ud800\\udc00""#,
            r#""\uD83Dx\uDE00""#,
            r#""\ud800\u0041""#,
        ] {
            assert!(matches!(compact(json), Err(InvalidData::Surrogate(_))), "{json}");
        }
    }

    #[test]
    fn nesting_is_allowed_to_128() {
        let nested = |n| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(compact(&nested(128)).is_ok());
        assert_eq!(compact(&nested(129)), Err(InvalidData::Nesting));
    }

    #[test]
    fn a_text_becomes_a_json_string_on_one_line() {
        assert_eq!(
            Data::from_text("a\r\n\"b\"\u{2028}").unwrap().as_str(),
            "\"a\\r\\n\\\"b\\\"\u{2028}\""
        );
        assert_eq!(Data::from_text("").unwrap().as_str(), "\"\"");
        assert_eq!(Data::from_text("a\0"), Err(InvalidData::Nul));
    }

    #[test]
    fn copies_of_data_share_it() {
        let data = Data::from_text("once").unwrap();
        assert_eq!(data.clone().as_str().as_ptr(), data.as_str().as_ptr());
    }

    #[test]
    fn event_names_cannot_be_mistaken_for_anything_else() {
        for name in ["order.shipped", "a", "A:b_c-9", "tidings", "Open"] {
            assert!(EventName::try_from(name.to_owned()).is_ok(), "{name}");
        }
        for name in
            ["", "a b", "a\n", "ä", "open", "error", "message", "tidings.x", &"a".repeat(65)]
        {
            assert!(EventName::try_from(name.to_owned()).is_err(), "{name:?}");
        }
    }
}
