//! `POST state/{app}/{user}`, `GET counts/{app}/{user}` and `POST withdraw/{app}/{id}`: what a user did
//! with notifications, and what becomes of one for all. Everything here may be repeated without harm.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Server;
use super::history::{no_such, one_of_app};
use super::json::{Object, shown, texts, typed};
use super::openapi::addresses::{OfApp, OfNotification, OfUser, Topics};
use super::openapi::bodies::ChangeSchema;
use super::openapi::problems::{OfApi, OfBodies};
use super::openapi::values::Id;
use super::params::{Addressee, Params, distinct_topics, parse_topic};
use super::received::{Received, Takes, no_body};
use crate::address::Topic;
use crate::error::{Kind, Problem, ProblemBody};
use crate::event_id::EventId;
use crate::metrics::Outcome;
use crate::store::{ChangeError, Counts, State as InboxState, StateChange, Subject};

/// What became of a change, and the counts after it.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    /// Notifications whose state is another now.
    #[schema(minimum = 0)]
    changed: i64,
    #[serde(flatten)]
    #[schema(inline)]
    counts: CountsBody,
}

/// How much waits for the user.
#[derive(Serialize, ToSchema)]
#[schema(as = Counts)]
pub(super) struct CountsBody {
    /// Neither read nor archived.
    #[schema(minimum = 0)]
    unread: i64,
    /// Neither seen nor archived.
    #[schema(minimum = 0)]
    unseen: i64,
    /// A stream from here brings everything that is not counted.
    #[schema(value_type = Id)]
    cursor: EventId,
}

impl From<Counts> for CountsBody {
    fn from(counts: Counts) -> CountsBody {
        CountsBody { unread: counts.unread, unseen: counts.unseen, cursor: counts.head }
    }
}

/// Marks a user's notifications as seen, read, unread, archived or unarchived.
///
/// The user's other devices get it as `tidings.state`. Repeating it changes nothing more.
#[utoipa::path(
    post, path = "/api/notifications/state/{app}/{user}", tag = "state",
    params(OfUser),
    request_body = ChangeSchema,
    responses(
        OfBodies,
        (status = 200, description = "Done, durably", body = Changed),
    )
)]
pub(super) async fn change(
    State(server): State<Server>,
    addressee: Addressee,
    params: Params,
    request: Request,
) -> Result<Json<Changed>, Problem> {
    params.end("none")?;
    let takes = Takes::Json(r#"{"up_to": …, "state": …}"#);
    let received = Received::read(&server, request, takes).await?;
    let Wish { subject, topics, state } = Wish::read(&received.body)?;
    let audiences = addressee.audiences(topics);
    let Addressee { app, user } = &addressee;
    let change = StateChange { app, user, audiences: &audiences, subject, state };
    let store = server.inner.streams.database.store();
    let changed = server.counted(store.change_state(&change, server.now_ms())).await?;
    Ok(Json(Changed { changed: changed.changed, counts: changed.counts.into() }))
}

/// Counts what is unread and unseen.
#[utoipa::path(
    get, path = "/api/notifications/counts/{app}/{user}", tag = "state",
    params(OfUser, Topics),
    responses(
        OfApi,
        (status = 200, description = "The counts, and where to subscribe from to keep them", body = CountsBody),
    )
)]
pub(super) async fn counts(
    State(server): State<Server>,
    addressee: Addressee,
    mut params: Params,
) -> Result<Json<CountsBody>, Problem> {
    let topics = params.take_topics()?;
    params.end("topics")?;
    let audiences = addressee.audiences(topics);
    let store = server.inner.streams.database.store();
    let counts = store.counts(&addressee.app, &addressee.user, &audiences);
    Ok(Json(server.looked_up(counts).await?.into()))
}

/// Withdraws a notification: it is neither delivered nor listed any more.
///
/// Whoever has it already gets `tidings.state`. Withdrawing it again is answered the same.
#[utoipa::path(
    post, path = "/api/notifications/withdraw/{app}/{id}", tag = "state",
    params(OfApp, OfNotification),
    responses(
        OfApi,
        (status = 204, description = "Withdrawn, durably"),
        (status = 404, description = "The app has no such notification, or it has expired", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "A body over the limit, where none is taken", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn withdraw(
    State(server): State<Server>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    params: Params,
    body: Body,
) -> Result<StatusCode, Problem> {
    params.end("none")?;
    let (app, id) = one_of_app(path, &uri, "notification")?;
    no_body(&server, body).await?;
    let store = server.inner.streams.database.store();
    match server.counted(store.withdraw(&app, id, server.now_ms())).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_such("notification", id, "")),
    }
}

/// What a body asks for.
struct Wish {
    subject: Subject,
    topics: Vec<Topic>,
    state: InboxState,
}

impl Wish {
    fn read(body: &[u8]) -> Result<Wish, Problem> {
        let mut object = Object::read(body, "The body")?;
        let (ids, up_to) = (object.take("ids")?, object.take("up_to")?);
        let (topics, state) = (object.take("topics")?, object.take("state")?);
        object.end("a change of state", "ids or up_to, topics, state")?;
        let subject =
            match (ids, up_to) {
                (Some(ids), None) => Subject::Ids(read_ids(&ids)?),
                (None, Some(up_to)) => Subject::UpTo(read_up_to(&up_to)?),
                (None, None) => {
                    return Err(Kind::InvalidField
                        .because("Neither ids nor up_to is given: give one of them."));
                }
                (Some(_), Some(_)) => {
                    return Err(Kind::InvalidField
                        .because("Both ids and up_to are given: give one of them."));
                }
            };
        let topics = topics.map(|topics| read_topics(&topics)).transpose()?.unwrap_or_default();
        Ok(Wish { subject, topics, state: read_state(state.as_deref())? })
    }
}

fn read_ids(ids: &RawValue) -> Result<Vec<EventId>, Problem> {
    let texts = texts(ids, "ids", 1)?;
    let id = |(at, text): (usize, &String)| {
        text.parse().map_err(|why| {
            let text = shown(text);
            Kind::InvalidField.because(format!("ids[{at}], {text}, is {why}: leave it out."))
        })
    };
    texts.iter().enumerate().map(id).collect()
}

fn read_up_to(up_to: &RawValue) -> Result<EventId, Problem> {
    typed::<String>(up_to).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Kind::InvalidField
            .because("The member up_to is not a ULID: give the id of a notification or a cursor.")
    })
}

fn read_topics(topics: &RawValue) -> Result<Vec<Topic>, Problem> {
    distinct_topics(texts(topics, "topics", 0)?.iter().map(|name| parse_topic(name)))
}

fn read_state(state: Option<&RawValue>) -> Result<InboxState, Problem> {
    let known = "seen, read, unread, archived, unarchived";
    let Some(state) = state else {
        return Err(Kind::InvalidField
            .because(format!("The member state is missing: give one of {known}.")));
    };
    let text: Option<String> = typed(state);
    InboxState::ALL.into_iter().find(|state| text.as_deref() == Some(state.as_str())).ok_or_else(
        || Kind::InvalidField.because(format!("The member state is none of {known}: give one.")),
    )
}

impl Server {
    fn now_ms(&self) -> i64 {
        self.inner.streams.clock.now().timestamp_millis()
    }

    /// Makes a change, counts it, and says why it was not acknowledged.
    pub(super) async fn counted<T>(
        &self,
        change: impl Future<Output = Result<T, ChangeError>>,
    ) -> Result<T, Problem> {
        let metrics = &self.inner.streams.metrics;
        let started = Instant::now();
        let changed = change.await;
        let outcome = match &changed {
            Ok(_) => {
                metrics.change_seconds.observe(started.elapsed().as_secs_f64());
                "done"
            }
            Err(ChangeError::Busy(_) | ChangeError::NoSession(_)) => "overloaded",
            Err(ChangeError::Refused(_)) => "refused",
            Err(ChangeError::OutcomeUnknown(_)) => "unknown",
        };
        metrics.changes.get_or_create(&Outcome { outcome }).inc();
        changed.map_err(|error| Problem::of_change(error, self.inner.streams.database.is_up()))
    }
}
