//! Reading the feed: all rows in id order after a position.

use uuid::Uuid;

use super::{Store, StoreError};
use crate::event_id::EventId;
use crate::notification::Notification;

/// One read of the feed.
#[derive(Debug)]
pub struct FeedPage {
    /// Rows in id order.
    pub rows: Vec<Notification>,
    /// More rows follow.
    pub more: bool,
    /// A restore or failover was noticed since `known_epoch`.
    pub new_epoch: Option<NewEpoch>,
    /// The highest edge in the same snapshot, of all or of one app: rows up to it may be gone.
    pub edge: EventId,
}

/// An epoch that was opened, and what is left of the time before.
#[derive(Clone, Copy, Debug)]
pub struct NewEpoch {
    /// Its number.
    pub number: i32,
    /// The last position that was kept.
    pub cut_off_at: i64,
}

/// Where the feed ends.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The newest committed row, or the edge when rows up to it are gone, or zero.
    pub id: EventId,
    /// The epoch of today.
    pub epoch: i32,
}

const PAGE_ROWS: i64 = 1000;
const PAGE_BYTES: i64 = 4 << 20;

impl Store {
    /// Reads on after `after`, and tells of epochs after `known_epoch`.
    pub async fn read_feed(
        &self,
        after: EventId,
        known_epoch: i32,
    ) -> Result<FeedPage, StoreError> {
        self.read(&self.streams, async |conn| {
            let after = Uuid::from(after);
            let rows = sqlx::query!(
                r#"select greatest(e.edge, (select a.edge from tidings.app_edge a
                        order by a.edge desc limit 1)) as "edge!", f.id as "id?", f.app as "app?", f.audience as "audience?",
                    f.event as "event?", f.data as "data?", f.created_at as "created_at?",
                    f.expires_at as "expires_at?", f.taken as "taken?",
                    n.number as "new_epoch?", n.cut_off_at as "cut_off_at?"
                from tidings.retention_edge e cross join (
                    select max(epoch) as number, min(previous_end) as cut_off_at
                    from tidings.epoch where epoch > $4
                ) n left join lateral (
                    select p.*, count(*) over () as taken,
                        sum(octet_length(p.data)) over (order by p.id) - octet_length(p.data) as bytes_before
                    from (
                        select n.id, n.app, n.audience, n.event, n.data::text as data, n.created_at,
                            n.expires_at
                        from tidings.notification n where n.id > $1 order by n.id limit $2
                    ) p
                ) f on f.bytes_before < $3
                order by f.id"#,
                after,
                PAGE_ROWS,
                PAGE_BYTES,
                known_epoch,
            )
            .fetch_all(conn)
            .await?;
            let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let edge = EventId::from(first.edge);
            let new_epoch = first
                .new_epoch
                .zip(first.cut_off_at)
                .map(|(number, cut_off_at)| NewEpoch { number, cut_off_at });
            let taken = first.taken.unwrap_or(0);
            let rows: Vec<Notification> = rows
                .into_iter()
                .filter_map(|row| {
                    Some(Notification {
                        id: row.id?.into(),
                        app: row.app?,
                        audience: row.audience?,
                        event: row.event,
                        data: row.data?,
                        created_at: row.created_at?,
                        expires_at: row.expires_at,
                    })
                })
                .collect();
            let more = taken == PAGE_ROWS || (rows.len() as i64) < taken;
            Ok(FeedPage { rows, more, new_epoch, edge })
        })
        .await
    }

    /// Where the feed ends now.
    pub async fn head(&self) -> Result<Head, StoreError> {
        self.read(&self.streams, async |conn| {
            let row = sqlx::query!(
                r#"select greatest((select id from tidings.notification order by id desc limit 1), edge)
                    as "head!", (select max(epoch) from tidings.epoch) as "epoch!"
                from tidings.retention_edge"#
            )
            .fetch_one(conn)
            .await?;
            Ok(Head { id: row.head.into(), epoch: row.epoch })
        })
        .await
    }
}
