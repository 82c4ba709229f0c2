//! Sends with `deliver_at`, and `DELETE scheduled/{app}/{schedule_id}`. What is scheduled has an id of its own; the
//! notification gets one when it is due.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::history::{no_such, one_of_app};
use super::openapi::addresses::OfApp;
use super::openapi::problems::OfApi;
use super::openapi::values::Id;
use super::params::Params;
use super::received::no_body;
use crate::error::{Kind, Problem, ProblemBody};
use crate::event_id::EventId;
use crate::metrics::Outcome;
use crate::notification::NewSend;
use crate::queue::bytes_of;
use crate::sender::SendError;
use crate::store::{Cancelling, ChangeError, NewScheduled, Scheduled, Scheduling};

/// The send is stored, durably, and will be made when it is due.
#[derive(Serialize, ToSchema)]
#[schema(as = Scheduled)]
pub(super) struct ScheduledBody {
    /// For calling it off. The notification will have another id.
    #[schema(value_type = Id)]
    schedule_id: EventId,
    /// When it is due, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    deliver_at: String,
}

impl From<Scheduled> for ScheduledBody {
    fn from(scheduled: Scheduled) -> ScheduledBody {
        ScheduledBody {
            schedule_id: scheduled.id,
            deliver_at: crate::clock::rfc3339(scheduled.deliver_at),
        }
    }
}

/// Stores a send for later.
pub(super) async fn schedule(
    server: &Server,
    send: &NewSend,
    deliver_at: DateTime<Utc>,
) -> Result<Response, Problem> {
    let count =
        |outcome| server.inner.streams.metrics.sends.get_or_create(&Outcome { outcome }).inc();
    if let Err(error) = bytes_of(send) {
        count("refused");
        return Err(error.into());
    }
    let NewSend { notifications, key } = send;
    let new = NewScheduled { notifications, deliver_at, key: key.as_ref() };
    let outcome = server.inner.streams.database.store().schedule(&new).await;
    let (label, answer) = match outcome {
        Ok(Scheduling::Scheduled(scheduled)) => ("scheduled", Ok(answer(scheduled))),
        Ok(Scheduling::Replayed(scheduled)) => {
            let mut response = answer(scheduled);
            super::send::replayed(&mut response);
            ("replayed", Ok(response))
        }
        Ok(Scheduling::KeyMismatch) => ("mismatch", Err(SendError::KeyMismatch.into())),
        Ok(Scheduling::Past) => ("refused", Err(bad_time("is past: leave it out to send now"))),
        Ok(Scheduling::Far) => {
            ("refused", Err(bad_time("is more than 30 days ahead: schedule it later")))
        }
        Err(error) => {
            let (label, error) = send_error(&error, server.inner.streams.database.is_up());
            (label, Err(error.into()))
        }
    };
    count(label);
    answer
}

fn answer(scheduled: Scheduled) -> Response {
    (StatusCode::ACCEPTED, Json(ScheduledBody::from(scheduled))).into_response()
}

fn bad_time(why: &str) -> Problem {
    Kind::InvalidField.because(format!("The member deliver_at {why}."))
}

fn send_error(error: &ChangeError, database_is_up: bool) -> (&'static str, SendError) {
    tracing::warn!(%error, "a send could not be scheduled");
    match error {
        ChangeError::OutcomeUnknown(_) => ("unknown", SendError::OutcomeUnknown),
        ChangeError::Busy(_) => ("overloaded", SendError::Overloaded),
        ChangeError::NoSession(_) if database_is_up => ("overloaded", SendError::Overloaded),
        ChangeError::Refused(cause) if cause.is_bad_data() => {
            ("refused", SendError::Refused(cause.summary()))
        }
        ChangeError::NoSession(_) | ChangeError::Refused(_) => {
            ("unreachable", SendError::Unreachable)
        }
    }
}

/// Calls a scheduled send off.
///
/// Again 204 if it was called off before, for a week.
#[utoipa::path(
    delete, path = "/api/notifications/scheduled/{app}/{schedule_id}", tag = "send",
    params(OfApp, ("schedule_id" = Id, Path, description = "What the send was answered")),
    responses(
        OfApi,
        (status = 204, description = "It will not be sent"),
        (status = 404, description = "The app has no such scheduled send", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "It was sent already", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 413, description = "A body over the limit, where none is taken", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cancel(
    State(server): State<Server>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    params: Params,
    body: Body,
) -> Result<StatusCode, Problem> {
    params.end("none")?;
    let (app, id) = one_of_app(path, &uri, "scheduled send")?;
    no_body(&server, body).await?;
    let store = server.inner.streams.database.store();
    match server.counted(store.cancel_scheduled(&app, id)).await? {
        Cancelling::Cancelled => Ok(StatusCode::NO_CONTENT),
        Cancelling::Sent => {
            Err(Kind::AlreadySent.because(format!("The scheduled send {id} was sent already.")))
        }
        Cancelling::Unknown => Err(no_such("scheduled send", id, "")),
    }
}
