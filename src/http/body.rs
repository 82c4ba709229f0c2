//! What a send's request says: from hostile bytes to checked notifications. A member that does not
//! exist is refused: a mistyped `expires_in` must not mean "for ever".

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use chrono::{DateTime, FixedOffset};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::params::parse_user;
use crate::address::{Audience, Topic, User};
use crate::error::{Kind, Problem};
use crate::notification::{Data, EventName, IdempotencyKey, ReplaceKey};

/// Users of one `to`, and notifications of one batch.
pub(super) const MOST_AT_ONCE: usize = 1000;
const LONGEST_LIFETIME: u32 = 31_536_000;
const LONGEST_KEY: usize = 255;

/// A request that has arrived whole.
pub(super) struct Received {
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
    pub(super) key: Option<IdempotencyKey>,
    /// What the body takes of the memory for all of them, until the request is answered.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    Text,
}

impl Received {
    pub(super) async fn read(server: &Server, request: Request) -> Result<Received, Problem> {
        let (parts, body) = request.into_parts();
        let media_type = media_type(&parts.headers)?;
        let key = idempotency_key(&parts.headers)?;
        let (body, room) = server.inner.intake.read(body, server.inner.config.max_body).await?;
        let key = key.map(|key| {
            let mut hash = Sha256::new();
            // Lengths before texts, so that nothing can move from one to the next.
            for part in [parts.method.as_str().as_bytes(), parts.uri.path().as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([media_type as u8]);
            hash.update(&body);
            IdempotencyKey { key, fingerprint: hash.finalize().into() }
        });
        Ok(Received { media_type, body, key, _room: room })
    }

    /// Reads a body that can only be JSON.
    pub(super) fn json_only(&self, why: &str) -> Result<(), Problem> {
        match self.media_type {
            MediaType::Json => Ok(()),
            MediaType::Text => Err(Kind::UnsupportedMediaType.because(format!(
                "The body is text/plain, {why}: add -H 'content-type: application/json'."
            ))),
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let visible = |key: &[u8]| !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if visible(key.as_bytes()) && key.len() <= LONGEST_KEY && given.next().is_none() => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Kind::InvalidIdempotencyKey.because(
            "The header Idempotency-Key is not 1 to 255 visible ASCII characters, given once: make a new one for each request, like a UUID.",
        )),
    }
}

fn media_type(headers: &HeaderMap) -> Result<MediaType, Problem> {
    let text =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    if charset.is_some_and(|charset| !["utf-8", "utf8", "us-ascii"].contains(&charset.as_str())) {
        return Err(
            Kind::UnsupportedMediaType.because(format!("The body is {text}: send it as UTF-8."))
        );
    }
    match essence.as_str() {
        "application/json" => Ok(MediaType::Json),
        "text/plain" => Ok(MediaType::Text),
        other => {
            let other = if other.is_empty() { "of no type" } else { other };
            Err(Kind::UnsupportedMediaType.because(format!(
                "The body is {other}: add -H 'content-type: text/plain' for a text, \
                 or -H 'content-type: application/json' for {{\"data\": …}}."
            )))
        }
    }
}

/// Which members an object may have beside those of every notification.
#[derive(Clone, Copy)]
pub(super) struct Members {
    /// Whom it is for, when the path does not say it.
    pub(super) to: bool,
    /// When it is to be sent.
    pub(super) deliver_at: bool,
}

impl Members {
    fn names(self) -> &'static str {
        match (self.to, self.deliver_at) {
            (false, _) => "data, event, expires_in, replaces, deliver_at",
            (true, true) => "to, data, event, expires_in, replaces, deliver_at",
            (true, false) => "to, data, event, expires_in, replaces",
        }
    }
}

/// What one object says.
pub(super) struct Content {
    pub(super) to: Vec<Audience>,
    /// `to` was a list, so the answer is one.
    pub(super) many: bool,
    pub(super) data: Data,
    pub(super) event: Option<EventName>,
    pub(super) expires_in: Option<u32>,
    pub(super) replaces: Option<ReplaceKey>,
    pub(super) deliver_at: Option<DateTime<FixedOffset>>,
}

impl Content {
    /// A body of plain text.
    pub(super) fn from_text(body: &[u8], max_data: usize) -> Result<Content, Problem> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Kind::InvalidData.because("The text is not UTF-8: send it as UTF-8."))?;
        let data = Data::from_text(text.strip_prefix('\u{feff}').unwrap_or(text));
        let data = check_data(data, max_data)?;
        let (event, expires_in, replaces, deliver_at) = (None, None, None, None);
        let (to, many) = (Vec::new(), false);
        Ok(Content { to, many, data, event, expires_in, replaces, deliver_at })
    }

    /// A JSON object.
    pub(super) fn from_json(
        json: &[u8],
        members: Members,
        max_data: usize,
    ) -> Result<Content, Problem> {
        let mut object = Object::read(json, "The body")?;
        let to = object.take("to")?;
        let data = object.take("data")?;
        let event = object.take("event")?;
        let expires_in = object.take("expires_in")?;
        let replaces = object.take("replaces")?;
        let deliver_at = object.take("deliver_at")?;
        if to.is_some() && !members.to {
            return Err(Kind::UnknownField.because(
                "There is no member to here, since the path names the user: leave it out, or send to the app alone.",
            ));
        }
        if deliver_at.is_some() && !members.deliver_at {
            return Err(Kind::InvalidField.because(
                "The member deliver_at is not allowed in a batch: schedule each by itself.",
            ));
        }
        object.end("a notification", members.names())?;

        let data = data.ok_or_else(|| {
            Kind::MissingData.because("The member data is missing: give any JSON, null for none.")
        })?;
        let (to, many) = match to {
            Some(to) => read_to(&to)?,
            None if members.to => {
                return Err(Kind::InvalidField.because(
                    "The member to is missing: give \"everyone\", {\"user\":…}, {\"topic\":…} or {\"users\":[…]}.",
                ));
            }
            None => (Vec::new(), false),
        };
        Ok(Content {
            to,
            many,
            data: check_data(Data::compact(&data), max_data)?,
            event: event.map(|event| read_event(&event)).transpose()?,
            expires_in: expires_in.map(|seconds| read_expires_in(&seconds)).transpose()?,
            replaces: replaces.map(|key| read_replaces(&key)).transpose()?,
            deliver_at: deliver_at.map(|time| read_deliver_at(&time)).transpose()?,
        })
    }
}

fn check_data(
    data: Result<Data, crate::notification::InvalidData>,
    max_data: usize,
) -> Result<Data, Problem> {
    let data = data.map_err(|why| Kind::InvalidData.because(format!("The data {why}.")))?;
    let length = data.as_str().len();
    if length > max_data {
        return Err(Kind::TooLarge.because(format!(
            "The data has {length} bytes as compact JSON, over the limit of {max_data} (TIDINGS_MAX_DATA): send less, or a link to it.",
        )));
    }
    Ok(data)
}

fn read_event(event: &RawValue) -> Result<EventName, Problem> {
    let name: String = serde_json::from_str(event.get()).map_err(|_| {
        Kind::InvalidEvent.because("The event is not a string: give a name, or leave it out.")
    })?;
    let shown = name.clone();
    EventName::try_from(name)
        .map_err(|why| Kind::InvalidEvent.because(format!("The event {shown:?} {why}.")))
}

fn read_expires_in(seconds: &RawValue) -> Result<u32, Problem> {
    typed(seconds).filter(|seconds| (1..=LONGEST_LIFETIME).contains(seconds)).ok_or_else(|| {
        Kind::InvalidField.because(
            "The member expires_in is not a whole number of seconds from 1 to 31536000: give one, or leave it out.",
        )
    })
}

fn read_replaces(key: &RawValue) -> Result<ReplaceKey, Problem> {
    let Some(key) = typed::<String>(key) else {
        return Err(Kind::InvalidField
            .because("The member replaces is not a string: give a key, or leave it out."));
    };
    ReplaceKey::try_from(key)
        .map_err(|why| Kind::InvalidField.because(format!("The member replaces {why}.")))
}

fn read_deliver_at(time: &RawValue) -> Result<DateTime<FixedOffset>, Problem> {
    typed::<String>(time).and_then(|text| DateTime::parse_from_rfc3339(&text).ok()).ok_or_else(
        || {
            Kind::InvalidField.because(
                "The member deliver_at is not RFC 3339 with an offset: write it like 2026-11-22T12:00:00Z.",
            )
        },
    )
}

fn read_to(to: &RawValue) -> Result<(Vec<Audience>, bool), Problem> {
    let unreadable = || {
        Kind::InvalidField.because(
            "The member to is none of \"everyone\", {\"user\":…}, {\"topic\":…} and {\"users\":[…]}: give one of them.",
        )
    };
    if typed::<String>(to).is_some_and(|text| text == "everyone") {
        return Ok((vec![Audience::Everyone], false));
    }
    let mut object = Object::read(to.get().as_bytes(), "to").map_err(|_| unreadable())?;
    let (user, topic, users) = (object.take("user")?, object.take("topic")?, object.take("users")?);
    object.end("to", "one of user, topic, users")?;
    match (user, topic, users) {
        (Some(user), None, None) => {
            let user: String = typed(&user).ok_or_else(unreadable)?;
            Ok((vec![Audience::User(parse_user(&user)?)], false))
        }
        (None, Some(topic), None) => {
            let topic: String = typed(&topic).ok_or_else(unreadable)?;
            Ok((vec![Audience::Topic(parse_topic(&topic)?)], false))
        }
        (None, None, Some(users)) => {
            let names: Vec<String> = typed(&users).ok_or_else(unreadable)?;
            Ok((distinct_users(&names)?.into_iter().map(Audience::User).collect(), true))
        }
        _ => Err(unreadable()),
    }
}

fn distinct_users(names: &[String]) -> Result<Vec<User>, Problem> {
    if names.is_empty() || names.len() > MOST_AT_ONCE {
        return Err(Kind::InvalidField.because(format!(
            "The list users has {} names: give 1 to {MOST_AT_ONCE}.",
            names.len()
        )));
    }
    let mut seen = std::collections::HashSet::with_capacity(names.len());
    names.iter().filter(|name| seen.insert(name.as_str())).map(|name| parse_user(name)).collect()
}

/// A topic: like a user, and no comma.
pub(super) fn parse_topic(text: &str) -> Result<Topic, Problem> {
    let why = match Topic::try_from(text) {
        Ok(_) if text.contains(',') => "has a comma, which separates topics: remove it".to_owned(),
        Ok(topic) => return Ok(topic),
        Err(why) => why.to_string(),
    };
    Err(Kind::InvalidTopic.because(format!("The topic {text:?} {why}.")))
}

/// The value, if it is of that type.
pub(super) fn typed<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// The members of an object in their order, repeated ones too, each value with its bytes.
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    pub(super) fn read(json: &[u8], what: &str) -> Result<Object, Problem> {
        serde_json::from_slice(json).map_err(|why| {
            Kind::InvalidJson.because(format!("{what} is not a JSON object: {why}."))
        })
    }

    /// Takes one member out.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Box<RawValue>>, Problem> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else { return Ok(None) };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(given, _)| given == name) {
            return Err(Kind::InvalidField
                .because(format!("The member {name} is given twice: give it once.")));
        }
        Ok(Some(value))
    }

    /// Refuses what nobody took.
    pub(super) fn end(self, whose: &str, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Kind::UnknownField
                .because(format!("There is no member {name}: {whose} has {known}."))),
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
