//! `POST send/{app}/{user}`, `POST send/{app}` and `POST batch/{app}`: what arrives becomes one send,
//! and is acknowledged when its commit is durable.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Server;
use super::body::{Content, MOST_AT_ONCE, MediaType, Members, Object, Received, typed};
use super::params::{Addressee, AppName, Params};
use crate::address::{App, Audience};
use crate::error::{Kind, Problem};
use crate::event_id::EventId;
use crate::notification::{IdempotencyKey, NewNotification, NewSend};
use crate::sender::Stored;

/// What to send.
#[derive(ToSchema)]
#[schema(as = Send)]
#[expect(dead_code, reason = "the schema of the document; the body is read with its bytes kept")]
pub(super) struct SendSchema {
    /// Any JSON; its bytes stay as sent, but for white space between tokens.
    data: serde_json::Value,
    /// The SSE event name: 1 to 64 of `A-Z a-z 0-9 _ . : -`.
    event: Option<String>,
    /// Seconds after its delivery, from which on it is not delivered any more: 1 to 31,536,000.
    expires_in: Option<u32>,
    /// Takes the place of the last one with this key in the same audience: 1 to 128 characters.
    replaces: Option<String>,
    /// RFC 3339, up to 30 days ahead: send it then.
    deliver_at: Option<String>,
}

/// What to send, and to whom.
#[derive(ToSchema)]
#[schema(as = SendTo)]
#[expect(dead_code, reason = "the schema of the document; the body is read with its bytes kept")]
pub(super) struct SendToSchema {
    /// `"everyone"`, `{"user":"ada"}`, `{"topic":"t"}`, or `{"users":["a","b"]}` (1 to 1,000).
    #[schema(value_type = Object)]
    to: serde_json::Value,
    #[serde(flatten)]
    #[schema(inline)]
    what: SendSchema,
}

/// Many notifications: all of them are stored, or none.
#[derive(ToSchema)]
#[schema(as = Batch)]
#[expect(dead_code, reason = "the schema of the document; the body is read with its bytes kept")]
pub(super) struct BatchSchema {
    /// 1 to 1,000, without `deliver_at`.
    #[schema(inline)]
    notifications: Vec<SendToSchema>,
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

/// The notifications are stored, durably.
#[derive(Serialize, ToSchema)]
pub(super) struct SentMany {
    /// Their ids, in the order of the request.
    #[schema(value_type = Vec<String>)]
    ids: Vec<EventId>,
    /// When they were committed, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// Sends a notification to one user.
///
/// With `text/plain` the body becomes the data as a JSON string. Answered after the commit is durable.
#[utoipa::path(
    post, path = "/api/notifications/send/{app}/{user}", tag = "send",
    params(
        ("app" = String, Path, description = "The app"), ("user" = String, Path, description = "The user"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating safe for 24 hours: 1 to 255 visible ASCII characters"),
    ),
    request_body(content((SendSchema = "application/json"), (String = "text/plain"))),
    responses(
        (status = 201, description = "Stored", body = Sent),
        (status = 202, description = "Scheduled, with `deliver_at`", body = super::scheduled::ScheduledBody),
        (status = "4XX", description = "Refused; nothing is stored", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Certainly not stored, unless the type is outcome-unknown", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn send(
    State(server): State<Server>,
    addressee: Addressee,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let received = Received::read(&server, request).await?;
    let max_data = server.inner.config.max_data;
    let mut content = match received.media_type {
        MediaType::Text => Content::from_text(&received.body, max_data)?,
        MediaType::Json => {
            let members = Members { to: false, deliver_at: true };
            Content::from_json(&received.body, members, max_data)?
        }
    };
    content.to = vec![Audience::User(addressee.user)];
    store(&server, addressee.app, content, received.key).await
}

/// Sends a notification to one or many users, a topic, or everyone in the app.
#[utoipa::path(
    post, path = "/api/notifications/send/{app}", tag = "send",
    params(
        ("app" = String, Path, description = "The app"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating safe for 24 hours: 1 to 255 visible ASCII characters"),
    ),
    request_body = SendToSchema,
    responses(
        (status = 202, description = "Scheduled, with `deliver_at`", body = super::scheduled::ScheduledBody),
        (status = 201, description = "Stored; with a list of users `ids` instead of `id`", body = Sent),
        (status = "4XX", description = "Refused; nothing is stored", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Certainly not stored, unless the type is outcome-unknown", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn send_to(
    State(server): State<Server>,
    AppName(app): AppName,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let received = Received::read(&server, request).await?;
    received.json_only("which cannot say whom it is for")?;
    let members = Members { to: true, deliver_at: true };
    let content = Content::from_json(&received.body, members, server.inner.config.max_data)?;
    store(&server, app, content, received.key).await
}

/// Sends many notifications: all of them are stored, with ids that follow each other, or none.
#[utoipa::path(
    post, path = "/api/notifications/batch/{app}", tag = "send",
    params(
        ("app" = String, Path, description = "The app"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating safe for 24 hours: 1 to 255 visible ASCII characters"),
    ),
    request_body = BatchSchema,
    responses(
        (status = 201, description = "Stored", body = SentMany),
        (status = "4XX", description = "Refused; nothing is stored. `index` says which entry is wrong", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 503, description = "Certainly not stored, unless the type is outcome-unknown", body = crate::error::ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn batch(
    State(server): State<Server>,
    AppName(app): AppName,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let received = Received::read(&server, request).await?;
    received.json_only("which cannot hold a batch")?;
    let mut object = Object::read(&received.body, "The body")?;
    let entries = object.take("notifications")?.ok_or_else(|| {
        Kind::InvalidField.because("The member notifications is missing: give a list.")
    })?;
    object.end("a batch", "notifications alone")?;
    let entries: Vec<Box<RawValue>> = typed(&entries).ok_or_else(|| {
        Kind::InvalidField.because("The member notifications is not a list: give one.")
    })?;
    let mut notifications = Vec::with_capacity(entries.len());
    let members = Members { to: true, deliver_at: false };
    for (index, entry) in entries.iter().enumerate() {
        let max_data = server.inner.config.max_data;
        let content = Content::from_json(entry.get().as_bytes(), members, max_data)
            .map_err(|problem| problem.of_entry(index))?;
        notifications.extend(content.into_notifications(&app));
        if notifications.len() > MOST_AT_ONCE {
            break;
        }
    }
    if notifications.is_empty() || notifications.len() > MOST_AT_ONCE {
        return Err(Kind::InvalidField.because(format!(
            "The batch is not of 1 to {MOST_AT_ONCE} notifications, one for each user: send several."
        )));
    }
    let send = NewSend { notifications, key: received.key };
    Ok(answer(server.inner.sender.send(send).await?, true))
}

async fn store(
    server: &Server,
    app: App,
    content: Content,
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    let (many, deliver_at) = (content.many, content.deliver_at);
    let send = NewSend { notifications: content.into_notifications(&app), key };
    if let Some(deliver_at) = deliver_at {
        return super::scheduled::schedule(server, &send, deliver_at.to_utc()).await;
    }
    Ok(answer(server.inner.sender.send(send).await?, many))
}

impl Content {
    /// One row for each audience.
    fn into_notifications(self, app: &App) -> Vec<NewNotification> {
        let Content { to, data, event, expires_in, replaces, .. } = self;
        let one = |audience| NewNotification {
            app: app.clone(),
            audience,
            event: event.clone(),
            data: data.clone(),
            expires_in,
            replaces: replaces.clone(),
        };
        to.into_iter().map(one).collect()
    }
}

fn answer(stored: Stored, many: bool) -> Response {
    let created_at = crate::clock::rfc3339(stored.created_at);
    let body = match many {
        true => Json(SentMany { ids: stored.ids().collect(), created_at }).into_response(),
        false => Json(Sent { id: stored.first, created_at }).into_response(),
    };
    let mut response = (StatusCode::CREATED, body).into_response();
    if stored.replayed {
        replayed(&mut response);
    }
    response
}

/// Says that an earlier request with the same key did it.
pub(super) fn replayed(response: &mut Response) {
    let yes = axum::http::HeaderValue::from_static("true");
    response.headers_mut().insert("idempotency-replayed", yes);
}
