//! Deleting the rows of apps that keep theirs for a shorter time, in small batches. No append waits for
//! it: appends insert ids that are new. What refers to the rows stays until the edge of all overtakes
//! them, since a withdrawal inserts into `tidings.gone` under the lane, where it may not meet a deletion.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::leftovers::note_known_users;
use super::retention::{Range, STEP_DEADLINE};
use super::{Keep, Maintenance, Store, StoreError, within};
use crate::event_id::EventId;

const BATCH_ROWS: i64 = 1000;

/// An app with a retention of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRetention {
    /// Which.
    pub app: String,
    /// How long it keeps its rows, as Postgres prints it.
    pub retention: String,
    /// Shorter than that of all: else it changes nothing.
    pub effective: bool,
    /// Its smallest id that is kept.
    cutoff: Uuid,
}

/// How far the deletion of an app's rows has come, in the order of the index that finds them. The index
/// entries of rows deleted before are not looked at again: under an old snapshot they stay.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    audience: String,
    id: Uuid,
}

impl Store {
    /// The apps with a retention of their own.
    pub async fn app_retentions(&self, keep: Keep) -> Result<Vec<AppRetention>, StoreError> {
        self.read(&self.streams, async |conn| {
            sqlx::query_as!(
                AppRetention,
                r#"select s.app, s.retention::text as "retention!",
                    s.retention < make_interval(secs => $1) as "effective!",
                    tidings.first_id_younger_than(s.retention, $2) as "cutoff!"
                from tidings.app_setting s where s.retention is not null order by s.app"#,
                keep.retention.as_secs_f64(),
                keep.now.timestamp_millis(),
            )
            .fetch_all(conn)
            .await
        })
        .await
    }

    /// How many rows an app has that it does not keep, but for those in partitions that are to be
    /// removed.
    pub async fn count_expired(&self, app: &AppRetention, keep: Keep) -> Result<i64, StoreError> {
        let mut conn = self.session("maintenance").await?;
        within(STEP_DEADLINE, async {
            let mut rows = 0;
            for range in expired_ranges(&mut conn, app, keep).await? {
                rows += sqlx::query_scalar!(
                    r#"select count(*) as "rows!" from tidings.notification n
                    where n.app = $1 and n.id >= $2 and n.id < $3"#,
                    app.app,
                    range.from,
                    range.to,
                )
                .fetch_one(&mut conn)
                .await?;
            }
            conn.close().await?;
            Ok(rows)
        })
        .await
    }
}

impl Maintenance {
    /// Where rows of an app can be that it does not keep: a partition each, the oldest first.
    pub async fn expired_ranges(
        &mut self,
        app: &AppRetention,
        keep: Keep,
    ) -> Result<Vec<Range>, StoreError> {
        within(STEP_DEADLINE, expired_ranges(&mut self.conn, app, keep)).await
    }

    /// Commits the app's edge over its rows in `range`, before any is deleted (invariant 3). Returns it,
    /// unless there are no rows.
    pub async fn move_app_edge(
        &mut self,
        app: &AppRetention,
        range: Range,
    ) -> Result<Option<EventId>, StoreError> {
        within(STEP_DEADLINE, async {
            note_known_users(&mut self.conn, range, Some(&app.app)).await?;
            let edge = sqlx::query_scalar!(
                r#"with expired as materialized (
                    -- By the app's own index: in the order of ids the rows of all others would be read.
                    select n.id from tidings.notification n
                    where n.app = $1 and n.id >= $2 and n.id < $3
                ), newest as (
                    select e.id from expired e order by e.id desc limit 1
                )
                insert into tidings.app_edge as a (app, edge) select $1, n.id from newest n
                on conflict (app) do update set edge = greatest(a.edge, excluded.edge)
                returning edge"#,
                app.app,
                range.from,
                range.to,
            );
            Ok(edge.fetch_optional(&mut self.conn).await?.map(EventId::from))
        })
        .await
    }

    /// Deletes the next rows of the app from the beginning of `range` up to `edge`. Returns how many; none means that it is done.
    pub async fn delete_expired(
        &mut self,
        app: &AppRetention,
        range: Range,
        edge: EventId,
        progress: &mut Progress,
    ) -> Result<i64, StoreError> {
        let batch = within(STEP_DEADLINE, async {
            sqlx::query!(
                r#"with expired as materialized (
                    select n.audience, n.id from tidings.notification n
                    where n.app = $1 and n.id between $2 and $3 and (n.audience, n.id) > ($4, $5)
                    order by n.audience, n.id limit $6
                ), deleted as (
                    delete from tidings.notification n using expired e
                    where n.id = e.id and n.id between $2 and $3
                )
                select e.audience, e.id, count(*) over () as "rows!" from expired e
                order by e.audience desc, e.id desc limit 1"#,
                app.app,
                range.from,
                Uuid::from(edge),
                progress.audience,
                progress.id,
                BATCH_ROWS,
            )
            .fetch_optional(&mut self.conn)
            .await
        })
        .await?;
        let Some(batch) = batch else { return Ok(0) };
        *progress = Progress { audience: batch.audience, id: batch.id };
        Ok(batch.rows)
    }
}

/// Not in what is to be removed whole.
async fn expired_ranges(
    conn: &mut PgConnection,
    app: &AppRetention,
    keep: Keep,
) -> sqlx::Result<Vec<Range>> {
    sqlx::query_as!(
        Range,
        r#"select coalesce(p.from_id, '00000000-0000-0000-0000-000000000000') as "from!",
            least(p.to_id, $1) as "to!"
        from tidings.partitions p
        where p.state = 'kept' and (p.from_id is null or p.from_id < $1)
            and (p.to_id is null
                or p.to_id > tidings.first_id_younger_than(make_interval(secs => $2), $3))
        order by p.to_id"#,
        app.cutoff,
        keep.retention.as_secs_f64(),
        keep.now.timestamp_millis(),
    )
    .fetch_all(conn)
    .await
}
