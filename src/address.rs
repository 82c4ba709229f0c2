//! Whom a notification is for. Names are hostile text until parsed here, once, at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A name is 1 to this many Unicode scalar values.
pub const MAX_NAME: usize = 128;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name, as it was given: never trimmed, case-sensitive.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $type {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<$type, InvalidName> {
                check_name(text).map(|()| $type(text.into()))
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name! {
    /// A tenant. Nothing crosses from one app to another.
    App
}
name! {
    /// A person inside an app.
    User
}
name! {
    /// A named group inside an app.
    Topic
}

/// Why a text is not the name of an app, a user or a topic.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(&'static str);

fn check_name(text: &str) -> Result<(), InvalidName> {
    if text == "." || text == ".." {
        return Err(InvalidName(
            "is a path of dots, which clients resolve away: give another name",
        ));
    }
    check_text(text)
}

/// What holds for every name, also for those that stand in no path.
pub(crate) fn check_text(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName("is empty: give a name of 1 to 128 characters"));
    }
    if text.chars().nth(MAX_NAME).is_some() {
        return Err(InvalidName("is longer than 128 characters: give a shorter name"));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidName("has a control character: remove it"));
    }
    if text.chars().all(char::is_whitespace) {
        return Err(InvalidName("is only white space: give a name"));
    }
    Ok(())
}

/// Whom inside its app a notification is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// One user.
    User(User),
    /// Whoever subscribes to the topic.
    Topic(Topic),
    /// All users of the app.
    Everyone,
}

impl Audience {
    /// The form in the column `audience`: `user:<user>`, `topic:<topic>` or `everyone`.
    pub fn to_sql(&self) -> String {
        match self {
            Audience::User(user) => format!("user:{}", user.as_str()),
            Audience::Topic(topic) => format!("topic:{}", topic.as_str()),
            Audience::Everyone => "everyone".to_owned(),
        }
    }

    /// Reads the column `audience`, whose form a CHECK guards; `None` if a row came past it.
    pub fn from_sql(text: &str) -> Option<Audience> {
        // Not `try_from`: an administrator may have stored a name that the edge would refuse.
        match text.split_once(':') {
            Some(("user", name)) => Some(Audience::User(User(name.into()))),
            Some(("topic", name)) => Some(Audience::Topic(Topic(name.into()))),
            _ => (text == "everyone").then_some(Audience::Everyone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are() {
        for name in
            ["ada", " ada ", "Ada", "ä/ö?#", "…", "a".repeat(128).as_str(), &"😀".repeat(128)]
        {
            assert_eq!(User::try_from(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in
            ["", " ", "\u{2003}\u{a0}", ".", "..", "a\nb", "a\u{85}", "\0", &"a".repeat(129)]
        {
            assert!(User::try_from(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_audience_survives_the_way_through_its_column() {
        let user = Audience::User(User::try_from("topic:everyone").unwrap());
        for audience in [user, Audience::Topic(Topic::try_from("a:b").unwrap()), Audience::Everyone]
        {
            assert_eq!(Audience::from_sql(&audience.to_sql()), Some(audience));
        }
    }
}
