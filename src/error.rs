//! Every error that a client can see, as `application/problem+json` (RFC 9457). The only place that
//! knows status codes. 503 means *certainly not stored*, except `outcome-unknown`.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::sender::SendError;
use crate::store::{ChangeError, StoreError};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        /// The kinds of problem; the slug ends the problem's `type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// `urn:tidings:problem:<slug>`
            pub fn urn(self) -> &'static str {
                match self { $(Kind::$kind => concat!("urn:tidings:problem:", $slug),)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Kind::$kind => StatusCode::$status,)* }
            }

            fn title(self) -> &'static str {
                match self { $(Kind::$kind => $title,)* }
            }
        }
    };
}

kinds! {
    /// The app in the path is no name.
    InvalidApp = "invalid-app", BAD_REQUEST, "Invalid app";
    /// The user in the path is no name.
    InvalidUser = "invalid-user", BAD_REQUEST, "Invalid user";
    /// A topic is no name.
    InvalidTopic = "invalid-topic", BAD_REQUEST, "Invalid topic";
    /// The body is not JSON, or not an object.
    InvalidJson = "invalid-json", BAD_REQUEST, "Invalid JSON";
    /// The member `data` is not there.
    MissingData = "missing-data", BAD_REQUEST, "Missing data";
    /// The body has a member that does not exist.
    UnknownField = "unknown-field", BAD_REQUEST, "Unknown field";
    /// The member `event` is no event name.
    InvalidEvent = "invalid-event", BAD_REQUEST, "Invalid event name";
    /// The data cannot be stored.
    InvalidData = "invalid-data", BAD_REQUEST, "Invalid data";
    /// A cursor in the query is no ULID.
    InvalidCursor = "invalid-cursor", BAD_REQUEST, "Invalid cursor";
    /// Another member of the body is bad.
    InvalidField = "invalid-field", BAD_REQUEST, "Invalid field";
    /// The header Idempotency-Key is no key.
    InvalidIdempotencyKey = "invalid-idempotency-key", BAD_REQUEST, "Invalid idempotency key";
    /// The query has a parameter that does not exist.
    UnknownParameter = "unknown-parameter", BAD_REQUEST, "Unknown parameter";
    /// A parameter of the query is bad.
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "Invalid parameter";
    /// A web page of another origin sends.
    ForeignOrigin = "foreign-origin", FORBIDDEN, "Foreign origin";
    /// A name that is not this machine's reached a server that only this machine may use.
    ForeignHost = "foreign-host", FORBIDDEN, "Foreign host";
    /// No such route or notification.
    NotFound = "not-found", NOT_FOUND, "Not found";
    /// The route has other methods.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// A scheduled send that was to be cancelled was sent already.
    AlreadySent = "already-sent", CONFLICT, "Already sent";
    /// The notification is deliverable no more.
    Withdrawn = "withdrawn", GONE, "Withdrawn";
    /// The idempotency key was used with another request.
    IdempotencyMismatch = "idempotency-mismatch", UNPROCESSABLE_ENTITY, "Idempotency key of another request";
    /// Over one of the limits.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "Too large";
    /// Neither JSON nor plain text.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    /// A defect of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// Too much at once.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded";
    /// The database is away.
    DatabaseUnreachable = "database-unreachable", SERVICE_UNAVAILABLE, "Database unreachable";
    /// The server is going away.
    Draining = "draining", SERVICE_UNAVAILABLE, "Draining";
    /// The one 503 that may have stored the notification.
    OutcomeUnknown = "outcome-unknown", SERVICE_UNAVAILABLE, "Outcome unknown";
}

impl Kind {
    /// The problem, with a sentence that names the thing and the remedy.
    pub fn because(self, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { kind: self, detail: detail.into(), cause: None, retry_after: None, index: None }
    }
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    /// For the log alone.
    cause: Option<String>,
    retry_after: Option<Duration>,
    /// Which entry of a batch.
    index: Option<usize>,
}

/// The body of every error: `application/problem+json` (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:tidings:problem:<slug>`: what programs look at.
    #[serde(rename = "type")]
    kind: &'a str,
    /// The kind in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do.
    detail: &'a str,
    /// Which entry of a batch, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = usize, required = false)]
    index: Option<usize>,
    /// With 5xx: the id under which the log tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    request_id: Option<&'a str>,
}

impl Problem {
    /// 5xx: what happened, for the log.
    pub fn caused_by(mut self, cause: impl Into<String>) -> Problem {
        self.cause = Some(cause.into());
        self
    }

    /// When the client may try again.
    pub fn retry_after(mut self, delay: Duration) -> Problem {
        self.retry_after = Some(delay);
        self
    }

    /// Says which entry of a batch it is about.
    pub fn of_entry(mut self, index: usize) -> Problem {
        self.index = Some(index);
        self.detail = format!("In notifications[{index}]: {}", self.detail).into();
        self
    }

    /// Logs what the client is not told, and makes the answer.
    pub fn render(&self, request_id: &str) -> Response {
        let status = self.kind.status();
        if let Some(cause) = &self.cause {
            match status {
                StatusCode::INTERNAL_SERVER_ERROR => error!(request_id, cause, "a request failed"),
                _ => warn!(request_id, cause, "a request was refused"),
            }
        }
        let body = ProblemBody {
            kind: self.kind.urn(),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            index: self.index,
            request_id: status.is_server_error().then_some(request_id),
        };
        let json = serde_json::to_vec(&body).expect("strings and numbers become JSON");
        let mut response = (status, Body::from(json)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = self.retry_after.map_or(1, |delay| delay.as_secs().max(1));
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The problem travels in the response's extensions to the layer that knows the request id, which
/// renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Problem {
        match error {
            SendError::Overloaded => Kind::Overloaded
                .because("Too many sends are waiting. The notification was not stored; send it again later."),
            SendError::TooLarge { bytes, limit } => Kind::TooLarge.because(format!(
                "The notifications of this send have {bytes} bytes together, over the limit of {limit}: send to fewer users at once, or less data. Nothing was stored."
            )),
            SendError::Unreachable => Kind::DatabaseUnreachable
                .because("The database cannot be reached. The notification was not stored; send it again later."),
            SendError::Draining => Kind::Draining
                .because("This server is shutting down. The notification was not stored; send it again."),
            SendError::OutcomeUnknown => Kind::OutcomeUnknown.because(
                "The database broke off. The notification may be stored; repeat it with the same Idempotency-Key, or look into the history first.",
            ),
            SendError::Refused(reason) => {
                Kind::InvalidData.because(format!("The database refuses this notification: {reason}."))
            }
            SendError::KeyMismatch => Kind::IdempotencyMismatch.because(
                "This Idempotency-Key was used with another method, path, type or body: take a new key for a new request.",
            ),
        }
    }
}

impl Problem {
    /// Why a change of state or a withdrawal was not acknowledged.
    pub fn of_change(error: ChangeError, database_is_up: bool) -> Problem {
        let away = "The database cannot be reached. Nothing was changed; try again later.";
        match error {
            ChangeError::NoSession(error) if !database_is_up => {
                Kind::DatabaseUnreachable.because(away).caused_by(error.summary())
            }
            ChangeError::Refused(error) => {
                Kind::DatabaseUnreachable.because(away).caused_by(error.summary())
            }
            ChangeError::NoSession(error) | ChangeError::Busy(error) => Kind::Overloaded
                .because("Too many changes are under way. Nothing was changed; try again later.")
                .caused_by(error.summary()),
            ChangeError::OutcomeUnknown(error) => Kind::OutcomeUnknown
                .because("The database broke off. It may be done; repeating it is harmless.")
                .caused_by(error.summary()),
        }
    }

    /// Why something could not be looked up.
    pub fn of_read(error: &StoreError, database_is_up: bool) -> Problem {
        let problem = match database_is_up && error.is_timeout() {
            true => Kind::Overloaded.because("Too much is being looked up. Try again later."),
            false => Kind::DatabaseUnreachable
                .because("The database cannot be reached. Try again later."),
        };
        problem.caused_by(error.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_waits_in_vain_for_a_database_that_is_up_is_told_of_too_much_at_once() {
        let late = || StoreError::Deadline(Duration::from_secs(5));
        let none_free = || StoreError::Database(sqlx::Error::PoolTimedOut);
        let broken = || StoreError::Database(std::io::Error::other("reset").into());
        for (error, is_up, kind) in [
            (late(), true, Kind::Overloaded),
            (none_free(), true, Kind::Overloaded),
            (broken(), true, Kind::DatabaseUnreachable),
            (late(), false, Kind::DatabaseUnreachable),
            (none_free(), false, Kind::DatabaseUnreachable),
        ] {
            assert_eq!(Problem::of_read(&error, is_up).kind, kind, "{error}, {is_up}");
        }
    }
}
