//! `POST send/{app}/{user}`: from hostile bytes to a checked notification, and its acknowledgement.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Server;
use super::params::{Addressee, Params};
use crate::address::Audience;
use crate::error::{Kind, Problem};
use crate::event_id::EventId;
use crate::notification::{Data, EventName, NewNotification};

/// A body that takes longer to arrive is given up.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// What to send.
#[derive(ToSchema)]
#[schema(as = Send)]
#[expect(dead_code, reason = "the schema of the document; the body is read with its bytes kept")]
pub(super) struct SendSchema {
    /// Any JSON; its bytes stay as sent, but for white space between tokens.
    data: serde_json::Value,
    /// The SSE event name: 1 to 64 of `A-Z a-z 0-9 _ . : -`.
    event: Option<String>,
}

/// The notification is stored, durably.
#[derive(Serialize, ToSchema)]
pub(super) struct Sent {
    /// Its id, also of its SSE event.
    #[schema(value_type = String, example = "01KB5T6ZVX0000000QZ4V7G1XN")]
    id: EventId,
    /// When it was committed, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// Sends a notification to one user.
///
/// With `text/plain` the body becomes the data as a JSON string. Answered after the commit is durable.
#[utoipa::path(
    post, path = "/api/notifications/send/{app}/{user}", tag = "send",
    params(("app" = String, Path, description = "The app"), ("user" = String, Path, description = "The user")),
    request_body(content((SendSchema = "application/json"), (String = "text/plain"))),
    responses(
        (status = 201, description = "Stored", body = Sent),
        (status = "4XX", description = "Refused; nothing is stored", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Certainly not stored, unless the type is outcome-unknown", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn send(
    State(server): State<Server>,
    addressee: Addressee,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    params.end("none", &[])?;
    if headers.contains_key("idempotency-key") {
        return Err(super::openapi::not_yet("The header Idempotency-Key"));
    }
    let (data, event) = read(&server, &headers, body).await?;
    let max_data = server.inner.config.max_data;
    if data.as_str().len() > max_data {
        return Err(Kind::TooLarge.because(format!(
            "The data has {} bytes as compact JSON, over the limit of {max_data} (TIDINGS_MAX_DATA): send less, or a link to it.",
            data.as_str().len()
        )));
    }
    let notification = NewNotification {
        app: addressee.app,
        audience: Audience::User(addressee.user),
        event,
        data,
    };
    let stored = server.inner.sender.send(notification).await?;
    let sent = Sent { id: stored.id, created_at: crate::clock::rfc3339(stored.created_at) };
    Ok((StatusCode::CREATED, Json(sent)).into_response())
}

enum MediaType {
    Json,
    Text,
}

async fn read(
    server: &Server,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Data, Option<EventName>), Problem> {
    let media_type = media_type(headers)?;
    let body = read_body(body, server.inner.config.max_body).await?;
    match media_type {
        MediaType::Json => read_json(&body),
        MediaType::Text => {
            let text = std::str::from_utf8(&body).map_err(|_| {
                Kind::InvalidData.because("The text is not UTF-8: send it as UTF-8.")
            })?;
            let data = Data::from_text(text.strip_prefix('\u{feff}').unwrap_or(text));
            Ok((data.map_err(|why| Kind::InvalidData.because(format!("The data {why}.")))?, None))
        }
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

async fn read_body(body: Body, max_body: usize) -> Result<axum::body::Bytes, Problem> {
    let collected =
        tokio::time::timeout(BODY_DEADLINE, Limited::new(body, max_body).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Kind::TooLarge.because(format!(
            "The body is over the limit of {max_body} bytes (TIDINGS_MAX_BODY): send less."
        ))),
        Ok(Err(_)) => Err(Kind::InvalidData.because("The body broke off: send it again.")),
        Err(_) => {
            Err(Kind::InvalidData.because("The body did not arrive within 30 s: send it again."))
        }
    }
}

fn read_json(body: &[u8]) -> Result<(Data, Option<EventName>), Problem> {
    let members: Members = serde_json::from_slice(body).map_err(|why| {
        Kind::InvalidJson.because(format!("The body is not a JSON object: {why}."))
    })?;
    let mut data = None;
    let mut event = None;
    for (name, value) in &members.0 {
        let slot = match name.as_str() {
            "data" => &mut data,
            "event" => &mut event,
            "expires_in" | "replaces" | "deliver_at" => {
                return Err(super::openapi::not_yet(&format!("The member {name}")));
            }
            _ => {
                return Err(Kind::UnknownField.because(format!(
                    "There is no member {name}: a notification has data and event."
                )));
            }
        };
        if slot.replace(value).is_some() {
            return Err(Kind::InvalidField
                .because(format!("The member {name} is given twice: give it once.")));
        }
    }
    let data = data.ok_or_else(|| {
        Kind::MissingData.because("The member data is missing: give any JSON, null for none.")
    })?;
    let data =
        Data::compact(data).map_err(|why| Kind::InvalidData.because(format!("The data {why}.")))?;
    Ok((data, event.map(|event| read_event(event)).transpose()?))
}

fn read_event(event: &RawValue) -> Result<EventName, Problem> {
    let name: String = serde_json::from_str(event.get()).map_err(|_| {
        Kind::InvalidEvent.because("The event is not a string: give a name, or leave it out.")
    })?;
    let shown = name.clone();
    EventName::try_from(name)
        .map_err(|why| Kind::InvalidEvent.because(format!("The event {shown:?} {why}.")))
}

/// The members of an object in their order, repeated ones too, each value with its bytes.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with the member data")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
