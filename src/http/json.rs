//! Reading hostile JSON member by member, so that each mistake is said with the name of its place.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Kind, Problem};

/// Users of one `to`, notifications of one batch, and ids of one change.
pub(super) const MOST_AT_ONCE: usize = 1000;
/// What is shown of a name that somebody made up.
const SHOWN: usize = 64;

/// The value, if it is of that type.
pub(super) fn typed<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// The string, or why it is none.
pub(super) fn text(value: &RawValue) -> Result<String, &'static str> {
    // It was parsed before, so of what begins like a string only the escapes can be wrong.
    typed(value).ok_or(match value.get().starts_with('"') {
        true => "has an unpaired surrogate escape: send the whole pair or the character itself",
        false => "is not a string: give one",
    })
}

/// The strings of the list `name`.
pub(super) fn texts(value: &RawValue, name: &str) -> Result<Vec<String>, Problem> {
    let values: Vec<Box<RawValue>> = typed(value).ok_or_else(|| {
        Kind::InvalidField.because(format!("The member {name} is not a list: give one."))
    })?;
    let values = values.iter().enumerate().map(|(at, value)| {
        text(value).map_err(|why| Kind::InvalidField.because(format!("{name}[{at}] {why}.")))
    });
    values.collect()
}

/// As many as a request may have of anything.
pub(super) fn check_count(name: &str, count: usize) -> Result<(), Problem> {
    match count {
        1..=MOST_AT_ONCE => Ok(()),
        _ => Err(Kind::InvalidField
            .because(format!("The list {name} has {count} entries: give 1 to {MOST_AT_ONCE}."))),
    }
}

/// A text of the client's as it is told back: not longer than it helps, and on one line.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The members of an object in their order, repeated ones too, each value with its bytes.
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    pub(super) fn read(json: &[u8], what: &str) -> Result<Object, Problem> {
        serde_json::from_slice(json).map_err(|why| {
            Kind::InvalidJson.because(match json.is_empty() {
                true => format!("{what} is empty: give a JSON object."),
                // What it is instead; where it begins is no help.
                false if why.is_data() => {
                    format!("{what} is JSON, but not an object: give one, in braces.")
                }
                false => format!("{what} is not a JSON object: {why}."),
            })
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
                .because(format!("There is no member {}: {whose} has {known}.", shown(name)))),
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
