//! The history of a user, and single notifications. Keyset paging on the replay index.

use uuid::Uuid;

use super::{Store, StoreError};
use crate::address::{App, Audience, User};
use crate::event_id::EventId;
use crate::notification::Notification;

/// Which way a history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which notifications of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// What counts as unread: archived ones do not.
    Unread,
    /// Read ones.
    Read,
    /// What counts as unseen: archived ones do not.
    Unseen,
    /// Seen ones.
    Seen,
    /// Archived ones.
    Archived,
    /// All others.
    Unarchived,
}

impl Filter {
    /// All of them.
    pub const ALL: [Filter; 6] = [
        Filter::Unread,
        Filter::Read,
        Filter::Unseen,
        Filter::Seen,
        Filter::Archived,
        Filter::Unarchived,
    ];

    /// The word of the contract, and of the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Filter::Unread => "unread",
            Filter::Read => "read",
            Filter::Unseen => "unseen",
            Filter::Seen => "seen",
            Filter::Archived => "archived",
            Filter::Unarchived => "unarchived",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub struct HistoryQuery<'a> {
    /// The tenant.
    pub app: &'a App,
    /// Whose state.
    pub user: &'a User,
    /// Only those; `None` for all.
    pub filter: Option<Filter>,
    /// Whose notifications.
    pub audiences: &'a [Audience],
    /// Direction.
    pub order: Order,
    /// At most so many.
    pub limit: u16,
    /// Only ids above.
    pub after: Option<EventId>,
    /// Only ids below.
    pub before: Option<EventId>,
}

/// A notification in a user's list.
#[derive(Debug)]
pub struct Listed {
    /// What was sent.
    pub notification: Notification,
    /// The user saw it in a list.
    pub seen: bool,
    /// The user read it.
    pub read: bool,
    /// The user put it away.
    pub archived: bool,
}

/// What has a notification's id.
#[derive(Debug)]
pub enum Found {
    /// A notification.
    Listed(Notification),
    /// One that was withdrawn.
    Withdrawn,
    /// One whose place this one took.
    Replaced(EventId),
}

/// One page of a history.
#[derive(Debug)]
pub struct HistoryPage {
    /// In the order asked for.
    pub rows: Vec<Listed>,
    /// More follow in that direction.
    pub more: bool,
    /// The head of the snapshot that the rows are of.
    pub head: EventId,
}

/// Bounds the memory that one answer takes; the rest follows on the next page.
const PAGE_BYTES: i64 = 8 << 20;

impl Store {
    /// Reads one page.
    pub async fn history(&self, query: &HistoryQuery<'_>) -> Result<HistoryPage, StoreError> {
        let audiences: Vec<String> = query.audiences.iter().map(Audience::to_sql).collect();
        let after = Uuid::from(query.after.unwrap_or(EventId::ZERO));
        let before = query.before.map_or(Uuid::max(), Uuid::from);
        // One more than asked for tells whether a next page exists.
        let limit = i64::from(query.limit) + 1;
        let (app, user) = (query.app.as_str(), query.user.as_str());
        let filter = query.filter.map(Filter::as_str);
        let mut page = self
            .request(async |conn| {
                // The two directions differ in `order by` alone, which cannot be a parameter.
                macro_rules! read {
                    ($sql:literal) => {{
                        let rows = sqlx::query_file!(
                            $sql, app, user, &audiences, after, before, limit, PAGE_BYTES, filter
                        )
                        .fetch_all(conn)
                        .await?;
                        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                        let (head, taken) = (EventId::from(first.head), first.taken.unwrap_or(0));
                        let rows: Vec<Listed> = rows
                            .into_iter()
                            .filter_map(|row| {
                                let notification = Notification {
                                    id: row.id?.into(),
                                    app: app.to_owned(),
                                    audience: row.audience?,
                                    event: row.event,
                                    data: row.data?,
                                    created_at: row.created_at?,
                                    expires_at: row.expires_at,
                                };
                                let (seen, read, archived) = (row.seen?, row.read?, row.archived?);
                                Some(Listed { notification, seen, read, archived })
                            })
                            .collect();
                        HistoryPage { more: (rows.len() as i64) < taken, rows, head }
                    }};
                }
                Ok(match query.order {
                    Order::Ascending => read!("src/store/history_asc.sql"),
                    Order::Descending => read!("src/store/history_desc.sql"),
                })
            })
            .await?;
        if page.rows.len() > usize::from(query.limit) {
            page.rows.truncate(query.limit.into());
            page.more = true;
        }
        Ok(page)
    }

    /// One notification of an app. Expired ones and state entries are none.
    pub async fn notification(&self, app: &App, id: EventId) -> Result<Option<Found>, StoreError> {
        self.request(async |conn| {
            let row = sqlx::query!(
                r#"select n.audience, n.event, n.data::text as "data!", n.created_at, n.expires_at,
                    g.id is not null as "gone!", g.replaced_by as "replaced_by?"
                from tidings.notification n left join tidings.gone g on g.id = n.id
                where n.id = $1 and n.app = $2 and n.event is distinct from 'tidings.state'
                    and (g.id is not null or n.expires_at is null or n.expires_at > clock_timestamp())"#,
                Uuid::from(id),
                app.as_str(),
            )
            .fetch_optional(conn)
            .await?;
            Ok(row.map(|row| match (row.gone, row.replaced_by) {
                (true, None) => Found::Withdrawn,
                (true, Some(by)) => Found::Replaced(by.into()),
                (false, _) => Found::Listed(Notification {
                    id,
                    app: app.as_str().to_owned(),
                    audience: row.audience,
                    event: row.event,
                    data: row.data,
                    created_at: row.created_at,
                    expires_at: row.expires_at,
                }),
            }))
        })
        .await
    }
}
