//! The history of a user, and single notifications. Keyset paging on the replay index.

use uuid::Uuid;

use super::{Store, StoreError};
use crate::address::{App, Audience};
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

/// What is asked for.
#[derive(Debug)]
pub struct HistoryQuery<'a> {
    /// The tenant.
    pub app: &'a App,
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

/// One page of a history.
#[derive(Debug)]
pub struct HistoryPage {
    /// In the order asked for.
    pub rows: Vec<Notification>,
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
        let app = query.app.as_str();
        let mut page = self
            .read(&self.requests, async |conn| {
                // The two directions differ in `order by` alone, which cannot be a parameter.
                macro_rules! read {
                    ($sql:literal) => {{
                        let rows = sqlx::query_file!(
                            $sql, app, &audiences, after, before, limit, PAGE_BYTES
                        )
                        .fetch_all(conn)
                        .await?;
                        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
                        let (head, taken) = (EventId::from(first.head), first.taken.unwrap_or(0));
                        let rows: Vec<Notification> = rows
                            .into_iter()
                            .filter_map(|row| {
                                Some(Notification {
                                    id: row.id?.into(),
                                    app: app.to_owned(),
                                    audience: row.audience?,
                                    event: row.event,
                                    data: row.data?,
                                    created_at: row.created_at?,
                                    expires_at: row.expires_at,
                                })
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

    /// One notification of an app.
    pub async fn notification(
        &self,
        app: &App,
        id: EventId,
    ) -> Result<Option<Notification>, StoreError> {
        self.read(&self.requests, async |conn| {
            let row = sqlx::query!(
                r#"select audience, event, data::text as "data!", created_at, expires_at
                from tidings.notification where id = $1 and app = $2"#,
                Uuid::from(id),
                app.as_str(),
            )
            .fetch_optional(conn)
            .await?;
            Ok(row.map(|row| Notification {
                id,
                app: app.as_str().to_owned(),
                audience: row.audience,
                event: row.event,
                data: row.data,
                created_at: row.created_at,
                expires_at: row.expires_at,
            }))
        })
        .await
    }
}
