//! What a send's request says: from hostile bytes to checked notifications. A member that does not
//! exist is refused: a mistyped `expires_in` must not mean "for ever".

use chrono::{DateTime, FixedOffset};
use serde_json::value::RawValue;

use super::json::{Object, shown, text, texts, typed};
use super::params::{parse_topic, parse_user};
use crate::address::{Audience, User};
use crate::error::{Kind, Problem};
use crate::notification::{Data, EventName, InvalidData, ReplaceKey};

const LONGEST_LIFETIME: u32 = 31_536_000;

/// Where an object stands, and so which members it may have beside those of every notification.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The path says whom it is for.
    OfUser,
    OfApp,
    /// Of a batch, which is never scheduled.
    Entry,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::OfUser | Place::OfApp => "The body",
            Place::Entry => "The entry",
        }
    }

    fn members(self) -> &'static str {
        match self {
            Place::OfUser => "data, event, expires_in, replaces, deliver_at",
            Place::OfApp => "to, data, event, expires_in, replaces, deliver_at",
            Place::Entry => "to, data, event, expires_in, replaces",
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
        place: Place,
        max_data: usize,
    ) -> Result<Content, Problem> {
        let mut object = Object::read(json, place.name())?;
        let to = object.take("to")?;
        let data = object.take("data")?;
        let event = object.take("event")?;
        let expires_in = object.take("expires_in")?;
        let replaces = object.take("replaces")?;
        let deliver_at = object.take("deliver_at")?;
        if to.is_some() && place == Place::OfUser {
            return Err(Kind::UnknownField.because(
                "There is no member to here, since the path names the user: leave it out, or send to the app alone.",
            ));
        }
        if deliver_at.is_some() && place == Place::Entry {
            return Err(Kind::InvalidField.because(
                "The member deliver_at is not allowed in a batch: schedule each by itself.",
            ));
        }
        object.end("a notification", place.members())?;

        let data = data.ok_or_else(|| {
            Kind::MissingData.because("The member data is missing: give any JSON, null for none.")
        })?;
        let (to, many) = match to {
            Some(to) => read_to(&to)?,
            None if place != Place::OfUser => {
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

fn check_data(data: Result<Data, InvalidData>, max_data: usize) -> Result<Data, Problem> {
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
    let name = text(event)
        .map_err(|why| Kind::InvalidEvent.because(format!("The event {why}, or leave it out.")))?;
    let told = shown(&name);
    EventName::try_from(name)
        .map_err(|why| Kind::InvalidEvent.because(format!("The event {told} {why}.")))
}

fn read_expires_in(seconds: &RawValue) -> Result<u32, Problem> {
    typed(seconds).filter(|seconds| (1..=LONGEST_LIFETIME).contains(seconds)).ok_or_else(|| {
        Kind::InvalidField.because(
            "The member expires_in is not a whole number of seconds from 1 to 31536000: give one, or leave it out.",
        )
    })
}

fn read_replaces(key: &RawValue) -> Result<ReplaceKey, Problem> {
    let bad = |why: String| Kind::InvalidField.because(format!("The member replaces {why}."));
    let key = text(key).map_err(|why| bad(format!("{why}, or leave it out")))?;
    ReplaceKey::try_from(key).map_err(|why| bad(why.to_string()))
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
            let user = read_name("user", &user)?;
            Ok((vec![Audience::User(parse_user(&user)?)], false))
        }
        (None, Some(topic), None) => {
            Ok((vec![Audience::Topic(parse_topic(&read_name("topic", &topic)?)?)], false))
        }
        (None, None, Some(users)) => {
            Ok((distinct_users(&users)?.into_iter().map(Audience::User).collect(), true))
        }
        _ => Err(unreadable()),
    }
}

fn read_name(member: &str, name: &RawValue) -> Result<String, Problem> {
    text(name).map_err(|why| Kind::InvalidField.because(format!("In to, {member} {why}.")))
}

fn distinct_users(users: &RawValue) -> Result<Vec<User>, Problem> {
    let names = texts(users, "users", 1)?;
    let mut seen = std::collections::HashSet::with_capacity(names.len());
    let user = |(at, name): (usize, &String)| {
        User::try_from(name.as_str())
            .map_err(|why| Kind::InvalidUser.because(format!("The user users[{at}] {why}.")))
    };
    names.iter().enumerate().filter(|(_, name)| seen.insert(name.as_str())).map(user).collect()
}
