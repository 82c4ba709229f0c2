//! `GET history/{app}/{user}` and `GET notification/{app}/{id}`: what is listed, and what the user did
//! with it.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Extensions, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Server;
use super::json::shown;
use super::openapi::addresses::{OfApp, OfNotification, OfUser, Topics};
use super::openapi::problems::OfApi;
use super::openapi::values::{AudienceSchema, Id};
use super::params::{Addressee, Params, last_name_is_unreadable, parse_app};
use crate::address::{App, Audience};
use crate::error::{Kind, Problem, ProblemBody};
use crate::event_id::EventId;
use crate::notification::Notification;
use crate::store::{Filter, Found, HistoryQuery, Listed, Order};

/// A stored notification.
#[derive(Serialize, ToSchema)]
#[schema(as = Notification)]
pub(super) struct NotificationBody {
    /// Its id, also of its SSE event.
    #[schema(value_type = Id)]
    id: EventId,
    /// The SSE event name; null: it has none.
    #[schema(required = true)]
    event: Option<String>,
    /// Any JSON, byte for byte as stored.
    #[schema(value_type = Value)]
    data: Box<RawValue>,
    #[schema(value_type = AudienceSchema)]
    audience: Option<Audience>,
    /// When it was committed, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    /// From when on it is not delivered any more; null: it does not expire.
    #[schema(value_type = Option<String>, required = true, format = DateTime)]
    expires_at: Option<String>,
}

impl TryFrom<Notification> for NotificationBody {
    type Error = Problem;

    fn try_from(n: Notification) -> Result<NotificationBody, Problem> {
        let data = RawValue::from_string(n.data)
            .map_err(|_| Kind::Internal.because("Something went wrong on our side."))?;
        Ok(NotificationBody {
            id: n.id,
            event: n.event,
            data,
            audience: Audience::from_sql(&n.audience),
            created_at: crate::clock::rfc3339(n.created_at),
            expires_at: n.expires_at.map(crate::clock::rfc3339),
        })
    }
}

/// A notification in a user's list, with what the user did with it.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedNotification)]
pub(super) struct ListedBody {
    #[serde(flatten)]
    #[schema(inline)]
    notification: NotificationBody,
    /// It was in a list that the user looked at.
    seen: bool,
    /// The user read it.
    read: bool,
    /// The user put it away.
    archived: bool,
}

impl TryFrom<Listed> for ListedBody {
    type Error = Problem;

    fn try_from(listed: Listed) -> Result<ListedBody, Problem> {
        let Listed { notification, seen, read, archived } = listed;
        Ok(ListedBody { notification: notification.try_into()?, seen, read, archived })
    }
}

/// One page of a history.
#[derive(Serialize, ToSchema)]
pub(super) struct History {
    /// In the order asked for.
    notifications: Vec<ListedBody>,
    /// `before` (desc) or `after` (asc) of the next page; null on the last one.
    #[schema(value_type = Option<Id>, required = true)]
    next: Option<EventId>,
    /// Subscribing from here continues exactly there; null with `before`: keep the first page's.
    #[schema(value_type = Option<Id>, required = true)]
    cursor: Option<EventId>,
}

/// Which of them, and how many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the parameters of the document; they are read one by one")]
pub(super) struct Page {
    /// How many at most; 50 if absent.
    #[param(value_type = u16, required = false, minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// The newest first, if absent.
    #[param(value_type = Direction, required = false, inline)]
    order: Option<Direction>,
    /// Only ids below this one.
    #[param(value_type = Id, required = false)]
    before: Option<String>,
    /// Only ids above this one.
    #[param(value_type = Id, required = false)]
    after: Option<String>,
    /// Only those that are so.
    #[param(value_type = FilterSchema, required = false, inline)]
    state: Option<FilterSchema>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of a parameter")]
enum Direction {
    Asc,
    Desc,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of a parameter")]
enum FilterSchema {
    Unread,
    Read,
    Unseen,
    Seen,
    Archived,
    Unarchived,
}

/// Lists a user's notifications.
#[utoipa::path(
    get, path = "/api/notifications/history/{app}/{user}", tag = "history",
    params(OfUser, Page, Topics),
    responses(
        OfApi,
        (status = 200, description = "One page", body = History),
    )
)]
pub(super) async fn history(
    State(server): State<Server>,
    addressee: Addressee,
    mut params: Params,
    extensions: Extensions,
) -> Result<Response, Problem> {
    let limit = match params.take("limit").as_deref() {
        None => 50,
        Some(text) => {
            text.parse().ok().filter(|limit| (1..=500).contains(limit)).ok_or_else(|| {
                Kind::InvalidParameter
                    .because(format!("limit is not a number from 1 to 500: {}.", shown(text)))
            })?
        }
    };
    let order = match params.take("order").as_deref() {
        None | Some("desc") => Order::Descending,
        Some("asc") => Order::Ascending,
        Some(text) => {
            return Err(Kind::InvalidParameter
                .because(format!("order is neither asc nor desc: {}.", shown(text))));
        }
    };
    let before = params.take_id("before")?;
    let after = params.take_id("after")?;
    let filter = params.take("state").map(|text| parse_filter(&text)).transpose()?;
    let topics = params.take_topics()?;
    params.end("limit, order, before, after, topics, state")?;

    let audiences = addressee.audiences(topics);
    let query = HistoryQuery {
        app: &addressee.app,
        user: &addressee.user,
        filter,
        audiences: &audiences,
        order,
        limit,
        after,
        before,
    };
    let store = server.inner.streams.database.store();
    let page = server.looked_up(store.history(&query)).await?;
    let last = page.rows.last().map(|row| row.notification.id);
    let cursor = match (before, order, page.more) {
        (Some(_), _, _) => None,
        (None, Order::Ascending, true) => last,
        (None, _, _) => Some(page.head),
    };
    let history = History {
        next: last.filter(|_| page.more),
        cursor,
        notifications: page.rows.into_iter().map(ListedBody::try_from).collect::<Result<_, _>>()?,
    };
    server.inner.answers.json(&history, extensions.get().cloned())
}

fn parse_filter(text: &str) -> Result<Filter, Problem> {
    Filter::ALL.into_iter().find(|filter| filter.as_str() == text).ok_or_else(|| {
        Kind::InvalidParameter.because(format!(
            "state is none of unread, read, unseen, seen, archived, unarchived: {}.",
            shown(text)
        ))
    })
}

/// Shows one notification.
#[utoipa::path(
    get, path = "/api/notifications/notification/{app}/{id}", tag = "history",
    params(OfApp, OfNotification),
    responses(
        OfApi,
        (status = 200, description = "The notification", body = NotificationBody),
        (status = 404, description = "The app has no such notification, or it has expired", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 410, description = "It was withdrawn, or replaced by another", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(super) async fn notification(
    State(server): State<Server>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    params: Params,
    extensions: Extensions,
) -> Result<Response, Problem> {
    params.end("none")?;
    let (app, id) = one_of_app(path, &uri, "notification")?;
    let store = server.inner.streams.database.store();
    match server.looked_up(store.notification(&app, id)).await? {
        Some(Found::Listed(notification)) => {
            let body = NotificationBody::try_from(notification)?;
            server.inner.answers.json(&body, extensions.get().cloned())
        }
        Some(Found::Withdrawn) => Err(Kind::Withdrawn
            .because(format!("The notification {id} was withdrawn: remove it from your list."))),
        Some(Found::Replaced(by)) => Err(Kind::Withdrawn
            .because(format!("The notification {id} was replaced: show {by} in its place."))),
        None => Err(no_such("notification", id, "")),
    }
}

/// Reads `{app}/{id}` at the end of a path; `what` has the id.
pub(super) fn one_of_app(
    path: Result<Path<(String, String)>, PathRejection>,
    uri: &Uri,
    what: &str,
) -> Result<(App, EventId), Problem> {
    let Ok(Path((app, id))) = path else {
        return Err(match last_name_is_unreadable(uri) {
            true => {
                Kind::NotFound.because(format!("There is no such {what}: the id is not a ULID."))
            }
            false => Kind::InvalidApp.because("The app is not UTF-8 after percent-decoding."),
        });
    };
    let app = parse_app(&app)?;
    let id = id.parse().map_err(|why| no_such(what, shown(&id), &format!(": the id is {why}")))?;
    Ok((app, id))
}

pub(super) fn no_such(what: &str, id: impl std::fmt::Display, why: &str) -> Problem {
    Kind::NotFound.because(format!("There is no {what} {id} in this app{why}."))
}
