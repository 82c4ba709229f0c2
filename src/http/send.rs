//! `POST send/{app}/{user}`, `POST send/{app}` and `POST batch/{app}`: what arrives becomes one send,
//! and is acknowledged when its commit is durable.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::content::{Content, Place};
use super::json::{MOST_AT_ONCE, Object, entries};
use super::openapi::addresses::{OfApp, OfUser, WithKey};
use super::openapi::bodies::{BatchSchema, SendSchema, SendToSchema};
use super::openapi::problems::OfSends;
use super::openapi::values::Id;
use super::params::{Addressee, AppName, Params};
use super::received::{MediaType, Received, Takes};
use crate::address::{App, Audience};
use crate::error::{Kind, Problem};
use crate::event_id::EventId;
use crate::notification::{IdempotencyKey, NewNotification, NewSend};
use crate::sender::Stored;

/// The notification is stored, durably.
#[derive(Serialize, ToSchema)]
pub(super) struct Sent {
    /// Its id, also of its SSE event.
    #[schema(value_type = Id)]
    id: EventId,
    /// When it was committed, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// The notifications are stored, durably.
#[derive(Serialize, ToSchema)]
pub(super) struct SentMany {
    /// Their ids, in the order of the request.
    #[schema(value_type = Vec<Id>, min_items = 1)]
    ids: Vec<EventId>,
    /// When they were committed, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// One notification, or with a list of users many.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema of the document; the answer is one of these")]
pub(super) enum SentAny {
    One(Sent),
    Many(SentMany),
}

/// Sends a notification to one user.
///
/// With `text/plain` the body becomes the data as a JSON string. Answered after the commit is durable.
#[utoipa::path(
    post, path = "/api/notifications/send/{app}/{user}", tag = "send",
    params(OfUser, WithKey),
    request_body(content((SendSchema = "application/json"), (String = "text/plain"))),
    responses(
        OfSends,
        (status = 201, description = "Stored", body = Sent, headers(("Idempotency-Replayed" = String, description = "`true`: an earlier request with the key did it"))),
        (status = 202, description = "Scheduled, with `deliver_at`", body = super::scheduled::ScheduledBody, headers(("Idempotency-Replayed" = String, description = "`true`: an earlier request with the key did it"))),
    )
)]
pub(super) async fn send(
    State(server): State<Server>,
    addressee: Addressee,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let received = Received::read(&server, request, Takes::TextOrJson).await?;
    let max_data = server.inner.config.max_data;
    let mut content = match received.media_type {
        MediaType::Text => Content::from_text(&received.body, max_data)?,
        MediaType::Json => Content::from_json(&received.body, Place::OfUser, max_data)?,
    };
    content.to = vec![Audience::User(addressee.user)];
    store(&server, addressee.app, content, received.key).await
}

/// Sends a notification to one or many users, a topic, or everyone in the app.
#[utoipa::path(
    post, path = "/api/notifications/send/{app}", tag = "send",
    params(OfApp, WithKey),
    request_body = SendToSchema,
    responses(
        OfSends,
        (status = 202, description = "Scheduled, with `deliver_at`", body = super::scheduled::ScheduledBody, headers(("Idempotency-Replayed" = String, description = "`true`: an earlier request with the key did it"))),
        (status = 201, description = "Stored; with a list of users `ids` instead of `id`", body = SentAny, headers(("Idempotency-Replayed" = String, description = "`true`: an earlier request with the key did it"))),
    )
)]
pub(super) async fn send_to(
    State(server): State<Server>,
    AppName(app): AppName,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let takes = Takes::Json(r#"{"to": …, "data": …}"#);
    let received = Received::read(&server, request, takes).await?;
    let max_data = server.inner.config.max_data;
    let content = Content::from_json(&received.body, Place::OfApp, max_data)?;
    store(&server, app, content, received.key).await
}

/// Sends many notifications: all of them are stored, with ids that follow each other, or none.
#[utoipa::path(
    post, path = "/api/notifications/batch/{app}", tag = "send",
    params(OfApp, WithKey),
    request_body = BatchSchema,
    responses(
        OfSends,
        (status = 201, description = "Stored. Of a mistake in an entry `index` says in which", body = SentMany, headers(("Idempotency-Replayed" = String, description = "`true`: an earlier request with the key did it"))),
    )
)]
pub(super) async fn batch(
    State(server): State<Server>,
    AppName(app): AppName,
    params: Params,
    request: Request,
) -> Result<Response, Problem> {
    params.end("none")?;
    let takes = Takes::Json(r#"{"notifications": […]}"#);
    let received = Received::read(&server, request, takes).await?;
    let notifications = read_batch(&received.body, &app, server.inner.config.max_data)?;
    let send = NewSend { notifications, key: received.key };
    Ok(answer(server.inner.sender.send(send).await?, true))
}

fn read_batch(body: &[u8], app: &App, max_data: usize) -> Result<Vec<NewNotification>, Problem> {
    let mut object = Object::read(body, "The body")?;
    let list = object.take("notifications")?.ok_or_else(|| {
        Kind::InvalidField.because("The member notifications is missing: give a list.")
    })?;
    object.end("a batch", "notifications alone")?;
    let entries = entries(&list, "notifications", 1)?;
    let mut notifications = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let content = Content::from_json(entry.get().as_bytes(), Place::Entry, max_data)
            .map_err(|problem| problem.of_entry(index))?;
        notifications.extend(content.into_notifications(app));
        if notifications.len() > MOST_AT_ONCE {
            return Err(Kind::InvalidField.because(format!(
                "The batch has more than {MOST_AT_ONCE} notifications, one for each user: send it in parts."
            )));
        }
    }
    Ok(notifications)
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
