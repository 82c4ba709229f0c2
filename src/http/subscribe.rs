//! `GET subscribe/{app}/{user}`: the event stream (WHATWG HTML, 9.2). A native EventSource gives up
//! for ever on anything but 200, so what may pass by waiting is told inside a stream.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::Server;
use super::json::shown;
use super::openapi::addresses::{OfUser, Topics};
use super::openapi::problems::OfApi;
use super::params::{Addressee, Params, parse_cursor};
use crate::coverage::{Coverage, Format};
use crate::error::{Kind, Problem};
use crate::frame::{self, Goodbye};
use crate::release::{Placeholder, Release};
use crate::subscription::{Start, Subscription};

/// Where the stream goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the parameter of the document; the header is read by itself")]
pub(super) struct Cursor {
    /// The cursor: the id of the last event received. One that is no id is told with a gap.
    #[param(rename = "Last-Event-ID", value_type = String, required = false)]
    header: Option<String>,
}

/// Where the stream begins, and what it looks like.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the parameters of the document; they are read one by one")]
pub(super) struct Beginning {
    /// The cursor, for clients that cannot set the header; `earliest` for everything kept. Aliases:
    /// lastEventId, lastEventID.
    #[param(
        value_type = String,
        required = false,
        pattern = "^(earliest|[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25})?$"
    )]
    last_event_id: Option<String>,
    /// From this time on, inclusive. Not together with a cursor in the query.
    #[param(value_type = String, required = false, format = DateTime)]
    since: Option<String>,
    /// `envelope`: `data` is an object with id, event, audience, created_at and data.
    #[param(value_type = String, required = false, pattern = "^envelope$")]
    format: Option<String>,
}

/// Streams what is for a user, for everyone in the app, and for the topics named.
///
/// All of it comes in the order of the ids, under one cursor. A client that comes back with `Last-Event-ID` first gets what it missed, then goes live.
#[utoipa::path(
    get, path = "/api/notifications/subscribe/{app}/{user}", tag = "subscribe",
    params(OfUser, Cursor, Beginning, Topics),
    responses(
        OfApi,
        (status = 200, description = "The stream; also instead of a 503, with `Accept: text/event-stream`", body = String, content_type = "text/event-stream"),
    )
)]
pub(super) async fn subscribe(
    State(server): State<Server>,
    method: Method,
    addressee: Addressee,
    mut params: Params,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, Problem> {
    let audiences = addressee.audiences(params.take_topics()?);
    let format = params.take("format").map_or(Ok(Format::Data), |text| parse_format(&text))?;
    let start = start(&headers, params)?;
    let streams = &server.inner.streams;
    let patient = accepts_event_stream(&headers);
    if streams.drain.has_begun() {
        let problem =
            Kind::Draining.because("This server is shutting down: connect again, to another.");
        return server.refuse(patient, Goodbye::Shutdown, frame::short_retry(), problem);
    }
    if streams.metrics.subscriptions.get() >= server.inner.config.max_connections as i64 {
        let problem = Kind::Overloaded.because(
            "This server has as many streams as it may (TIDINGS_MAX_CONNECTIONS): try again later.",
        );
        let retry = server.inner.refusals.refuse();
        return server.refuse(patient, Goodbye::Overloaded, retry, problem);
    }
    if !patient && !streams.database.is_up() {
        return Err(
            Kind::DatabaseUnreachable.because("The database cannot be reached. Try again later.")
        );
    }
    if method == Method::HEAD {
        return Ok(event_stream(Body::empty()));
    }
    let coverage = Coverage { app: addressee.app, audiences: audiences.into(), format };
    let subscription = Subscription::open(streams.clone(), coverage, start);
    let stream = server.inner.open_streams.open(subscription, extensions.get().cloned());
    let Some(release) = extensions.get::<Release>() else {
        return Ok(event_stream(Body::new(stream)));
    };
    let placeholder = Placeholder::new(Box::pin(stream), release.clone());
    // No other request is answered on the connection.
    let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
    Ok((close, event_stream(Body::new(placeholder))).into_response())
}

/// The cursor: the header, else the query, else the head.
fn start(headers: &HeaderMap, mut params: Params) -> Result<Start, Problem> {
    let mut in_query = None;
    for name in ["last_event_id", "lastEventId", "lastEventID"] {
        if let Some(text) = params.take(name)
            && in_query.replace((name, text)).is_some()
        {
            return Err(Kind::InvalidParameter
                .because("The cursor is given under two names: give it once."));
        }
    }
    let since = params.take("since");
    params.end("last_event_id, since, topics, format")?;
    if in_query.is_some() && since.is_some() {
        return Err(Kind::InvalidParameter
            .because("Both since and last_event_id are given: give one of them."));
    }
    // Checked even when the header wins: a mistake in the URL is one on every connection.
    let in_query = match in_query {
        None => None,
        Some((_, text)) if text.is_empty() => None,
        Some((_, text)) if text == "earliest" => Some(Start::Earliest),
        Some((name, text)) => {
            let instead = "give the id of an event, or earliest";
            Some(Start::After(parse_cursor(name, &text, instead)?))
        }
    };
    let since = since.map(|text| parse_since(&text)).transpose()?;
    let mut given = headers.get_all("last-event-id").iter();
    match (given.next(), given.next()) {
        // Which of them is the client's cursor, nobody can tell.
        (_, Some(_)) => Ok(Start::BadCursor),
        (Some(id), None) if !id.is_empty() && !mutant!(ReconnectWithoutCursor) => {
            let id = id.to_str().ok().and_then(|text| text.parse().ok());
            Ok(id.map_or(Start::BadCursor, Start::After))
        }
        _ => Ok(in_query.or(since).unwrap_or(Start::Head)),
    }
}

fn parse_format(text: &str) -> Result<Format, Problem> {
    match text {
        "envelope" => Ok(Format::Envelope),
        _ => Err(Kind::InvalidParameter.because(format!(
            "format is not envelope: {}; leave it out for the data alone.",
            shown(text)
        ))),
    }
}

fn parse_since(text: &str) -> Result<Start, Problem> {
    // A plus that was not percent-encoded has become a space.
    let time = DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map_err(|_| {
        Kind::InvalidParameter.because(format!(
            "since is not RFC 3339: {}; write it like 2026-11-22T12:00:00Z.",
            shown(text)
        ))
    })?;
    Ok(Start::Since(time.timestamp_millis().try_into().unwrap_or(0)))
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/event-stream"))
}

impl Server {
    fn refuse(
        &self,
        patient: bool,
        reason: Goodbye,
        retry: Duration,
        problem: Problem,
    ) -> Result<Response, Problem> {
        self.inner.streams.metrics.streams_refused.inc();
        match patient {
            true => Ok(event_stream(Body::from(frame::goodbye(reason, retry)))),
            false => Err(problem.retry_after(retry)),
        }
    }
}

fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// How long refused clients are sent away: longer, the more of them there are.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    window: Mutex<Option<(Instant, u32)>>,
}

impl Refusals {
    const WINDOW: Duration = Duration::from_secs(10);
    /// Refusals in one window that double the shortest delay.
    const STEP: f64 = 100.0;

    /// Counts one, and says when it may come back: 5 to 60 s, jittered.
    fn refuse(&self) -> Duration {
        let now = Instant::now();
        let mut window = self.window.lock().expect("no code panics while it holds this lock");
        let count = match *window {
            Some((begun, count)) if now < begun + Self::WINDOW => {
                *window = Some((begun, count + 1));
                count + 1
            }
            _ => {
                *window = Some((now, 1));
                1
            }
        };
        let base = 5.0 * (1.0 + f64::from(count) / Self::STEP);
        Duration::from_secs_f64((base * (1.0 + fastrand::f64() * 0.5)).clamp(5.0, 60.0))
    }
}
