//! Reading paths and queries. A parameter that does not exist is refused: a typo must not silently
//! mean something else.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::Uri;
use axum::http::request::Parts;

use super::json::shown;
use crate::address::{App, Audience, Topic, User};
use crate::error::{Kind, Problem};
use crate::event_id::EventId;

/// Topics of one stream, history or count.
const MOST_TOPICS: usize = 100;

/// `{app}/{user}` at the end of a path.
pub(super) struct Addressee {
    pub(super) app: App,
    pub(super) user: User,
}

impl Addressee {
    /// What a user's stream, history and counts cover: the user, everyone, and the topics named.
    pub(super) fn audiences(&self, topics: Vec<Topic>) -> Vec<Audience> {
        let own = [Audience::User(self.user.clone()), Audience::Everyone];
        own.into_iter().chain(topics.into_iter().map(Audience::Topic)).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Addressee {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Addressee, Problem> {
        let path: Result<Path<(String, String)>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Ok(Path((app, user))) = path else {
            return Err(match last_name_is_unreadable(&parts.uri) {
                true => Kind::InvalidUser.because("The user is not UTF-8 after percent-decoding."),
                false => Kind::InvalidApp.because("The app is not UTF-8 after percent-decoding."),
            });
        };
        Ok(Addressee { app: parse_app(&app)?, user: parse_user(&user)? })
    }
}

/// `{app}` at the end of a path.
pub(super) struct AppName(pub(super) App);

impl<S: Send + Sync> FromRequestParts<S> for AppName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<AppName, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(app)) => parse_app(&app).map(AppName),
            Err(_) => Err(Kind::InvalidApp.because("The app is not UTF-8 after percent-decoding.")),
        }
    }
}

/// Not being UTF-8 is the one thing that a path can fail by; this tells which name it is in.
pub(super) fn last_name_is_unreadable(uri: &Uri) -> bool {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    percent_encoding::percent_decode_str(last).decode_utf8().is_err()
}

pub(super) fn parse_app(text: &str) -> Result<App, Problem> {
    App::try_from(text).map_err(|why| Kind::InvalidApp.because(format!("The app {why}.")))
}

pub(super) fn parse_user(text: &str) -> Result<User, Problem> {
    User::try_from(text).map_err(|why| Kind::InvalidUser.because(format!("The user {why}.")))
}

/// A topic: like a user, and no comma.
pub(super) fn parse_topic(text: &str) -> Result<Topic, Problem> {
    let why = match Topic::try_from(text) {
        Ok(_) if text.contains(',') => "has a comma, which separates topics: remove it".to_owned(),
        Ok(topic) => return Ok(topic),
        Err(why) => why.to_string(),
    };
    Err(Kind::InvalidTopic.because(format!("The topic {} {why}.", shown(text))))
}

/// The query's parameters, each decoded and given once.
pub(super) struct Params {
    given: BTreeMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params, Problem> {
        let Ok(RawQuery(query)) = RawQuery::from_request_parts(parts, state).await;
        Params::parse(query.as_deref().unwrap_or_default())
    }
}

impl Params {
    fn parse(query: &str) -> Result<Params, Problem> {
        let mut given = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Kind::InvalidParameter
                    .because("The query is not UTF-8 after percent-decoding."));
            };
            match given.entry(name) {
                Entry::Vacant(free) => free.insert(value),
                Entry::Occupied(taken) => {
                    return Err(Kind::InvalidParameter.because(format!(
                        "The parameter {} is given twice: give it once.",
                        shown(taken.key())
                    )));
                }
            };
        }
        Ok(Params { given })
    }

    /// Takes one parameter out.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    /// Takes one that is an event id.
    pub(super) fn take_id(&mut self, name: &str) -> Result<Option<EventId>, Problem> {
        let instead = "give the id of a notification";
        self.take(name).map(|text| parse_cursor(name, &text, instead)).transpose()
    }

    /// Takes the list of topics: names with commas between them, repeated ones once.
    pub(super) fn take_topics(&mut self) -> Result<Vec<Topic>, Problem> {
        let Some(text) = self.take("topics").filter(|text| !text.is_empty()) else {
            return Ok(Vec::new());
        };
        distinct_topics(text.split(',').map(parse_topic))
    }

    /// Refuses what nobody took. `_` is what pages add against caches.
    pub(super) fn end(self, known: &str) -> Result<(), Problem> {
        match self.given.keys().find(|name| *name != "_") {
            None => Ok(()),
            Some(name) => Err(Kind::UnknownParameter.because(format!(
                "There is no parameter {}: this route has {known}.",
                shown(name)
            ))),
        }
    }
}

/// Repeated ones once, and not too many.
pub(super) fn distinct_topics(
    topics: impl Iterator<Item = Result<Topic, Problem>>,
) -> Result<Vec<Topic>, Problem> {
    let mut topics: Vec<Topic> = topics.collect::<Result<_, _>>()?;
    topics.sort_unstable();
    topics.dedup();
    if topics.len() > MOST_TOPICS {
        return Err(Kind::InvalidTopic
            .because(format!("There are {} topics: name up to {MOST_TOPICS}.", topics.len())));
    }
    Ok(topics)
}

fn decode(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}

pub(super) fn parse_cursor(name: &str, text: &str, instead: &str) -> Result<EventId, Problem> {
    text.parse().map_err(|why| {
        Kind::InvalidCursor.because(format!("{name} is {why}: {}; {instead}.", shown(text)))
    })
}
