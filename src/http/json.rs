//! Reading hostile JSON member by member, so that each mistake is said with the name of its place.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Kind, Problem};

/// Users of one `to`, notifications of one batch, and ids of one change.
pub(super) const MOST_AT_ONCE: usize = 1000;
/// Members of an object that are kept. None may have as many, so if there are more, one of these is
/// unknown or given twice already.
const MOST_MEMBERS: usize = 64;
/// What is shown of a text that somebody made up, in characters: as many as a name may have.
const SHOWN: usize = 128;

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

/// The entries of the list `name`, which are `least` to as many as a request may have of anything.
pub(super) fn entries(
    value: &RawValue,
    name: &str,
    least: usize,
) -> Result<Vec<Box<RawValue>>, Problem> {
    let List { entries, count } = typed(value).ok_or_else(|| {
        Kind::InvalidField.because(format!("The member {name} is not a list: give one."))
    })?;
    match (least..=MOST_AT_ONCE).contains(&count) {
        true => Ok(entries),
        false => Err(Kind::InvalidField.because(format!(
            "The list {name} has {count} entries: give {least} to {MOST_AT_ONCE}."
        ))),
    }
}

/// The same of a list of strings.
pub(super) fn texts(value: &RawValue, name: &str, least: usize) -> Result<Vec<String>, Problem> {
    let entries = entries(value, name, least)?;
    let texts = entries.iter().enumerate().map(|(at, entry)| {
        text(entry).map_err(|why| Kind::InvalidField.because(format!("{name}[{at}] {why}.")))
    });
    texts.collect()
}

/// A text of the client's as it is told back: not longer than it helps, and on one line.
pub(super) fn shown(text: &str) -> String {
    let (beginning, rest) = beginning(text);
    format!("{beginning:?}{rest}")
}

/// The same of a text that is on one line anyway, such as a path or a header.
pub(super) fn shortened(text: &str) -> String {
    let (beginning, rest) = beginning(text);
    format!("{beginning}{rest}")
}

/// As much of a text as is shown, and what stands for the rest.
fn beginning(text: &str) -> (&str, &'static str) {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => (&text[..end], "…"),
        None => (text, ""),
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
                    if members.len() < MOST_MEMBERS {
                        members.push(member);
                    }
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A list as long as any may be; what follows is only counted.
#[derive(Default)]
struct List {
    entries: Vec<Box<RawValue>>,
    count: usize,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = List;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut list = List::default();
                while let Some(entry) = seq.next_element()? {
                    list.count += 1;
                    if list.count <= MOST_AT_ONCE {
                        list.entries.push(entry);
                    }
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of millions would take twenty times its bytes.
    #[test]
    fn of_more_members_and_entries_than_there_may_be_few_are_kept() {
        let many = |one: &str| vec![one; 100_000].join(",");
        let object = format!("{{{}}}", many("\"a\":1"));
        let Ok(mut object) = Object::read(object.as_bytes(), "The body") else { panic!("JSON") };
        assert_eq!(object.0.len(), MOST_MEMBERS);
        assert!(object.take("a").is_err(), "it is given twice");

        let list: List = serde_json::from_str(&format!("[{}]", many("1"))).unwrap();
        assert_eq!((list.entries.len(), list.count), (MOST_AT_ONCE, 100_000));
    }
}
