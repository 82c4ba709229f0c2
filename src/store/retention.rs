//! Removing what is old, one small step at a time. The next step is read from the catalog each time, so
//! whoever comes after a crash, a timeout or another version goes on where it ended. The edge is committed
//! by the first step, before anything is taken away (invariant 3).

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::leftovers::note_known_users;
use super::{Store, StoreError, within};
use crate::event_id::EventId;

/// A step reads or writes the rows of a day at most.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(120);

/// A session's settings. Appends queue up behind a wait for a table lock, so each is short. The statements
/// are few and their tables change under them: the plan is to be made for the values, with the indexes.
const SETTINGS: &str = "set lock_timeout = '100ms'; set statement_timeout = '120s'; set jit = off; \
     set plan_cache_mode = force_custom_plan; set enable_seqscan = off";

/// The session that has the maintenance lock: one in a cluster has it, for as long as this lives.
#[derive(Debug)]
pub struct Maintenance {
    pub(super) conn: PgConnection,
}

/// A partition of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Of its table, in the schema `tidings`.
    pub name: String,
    /// How far its removal has come: `kept`, `leaving`, `detaching`, `detached`.
    pub state: String,
    from_id: Option<Uuid>,
    to_id: Option<Uuid>,
    /// How many rows Postgres thinks it has.
    pub rows_estimate: i64,
    /// What it takes on the disk.
    pub bytes: i64,
}

/// What is to be done next to one partition, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commit the edge over it.
    Retire,
    /// Take it out of the feed.
    Detach,
    /// The same, when an earlier attempt did not end.
    FinishDetach,
    /// Remove the table.
    Drop,
}

/// How young what is kept is, and the instance's time: the database's alone is not trusted.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Older is removed.
    pub retention: Duration,
    /// By the instance's clock.
    pub now: DateTime<Utc>,
}

/// Ids: from the first to before the second.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub(super) from: Uuid,
    pub(super) to: Uuid,
}

impl Partition {
    /// From when on its ids are; `None` for the oldest.
    pub fn from(&self) -> Option<DateTime<Utc>> {
        self.from_id.and_then(time_in)
    }

    /// Before when they are; `None` for the newest.
    pub fn to(&self) -> Option<DateTime<Utc>> {
        self.to_id.and_then(time_in)
    }

    fn next_step(&self) -> Step {
        match self.state.as_str() {
            "detaching" => Step::FinishDetach,
            "detached" => Step::Drop,
            "leaving" => Step::Detach,
            _ => Step::Retire,
        }
    }
}

impl Store {
    /// A session for maintenance, unless another has it.
    pub async fn maintenance(&self) -> Result<Option<Maintenance>, StoreError> {
        // It takes the lane too.
        let mut conn = self.appending_session("maintenance").await?;
        let locked = within(STEP_DEADLINE, async {
            sqlx::raw_sql(SETTINGS).execute(&mut conn).await?;
            let row = sqlx::query!(r#"select pg_try_advisory_lock(7463, 2) as "locked!""#);
            Ok(row.fetch_one(&mut conn).await?.locked)
        })
        .await?;
        Ok(locked.then_some(Maintenance { conn }))
    }

    /// The partitions that are to be removed, in the order in which that happens.
    pub async fn overdue_partitions(&self, keep: Keep) -> Result<Vec<Partition>, StoreError> {
        self.read(&self.streams, async |conn| overdue(conn, keep).await).await
    }

    /// The oldest row there is.
    pub async fn oldest(&self) -> Result<Option<EventId>, StoreError> {
        self.read(&self.streams, async |conn| {
            let oldest = sqlx::query_scalar!(
                "select n.id from tidings.notification n order by n.id limit 1"
            );
            Ok(oldest.fetch_optional(conn).await?.map(EventId::from))
        })
        .await
    }
}

impl Maintenance {
    /// What is to be done next, and to which partition.
    pub async fn next_step(&mut self, keep: Keep) -> Result<Option<(Step, Partition)>, StoreError> {
        let overdue = within(STEP_DEADLINE, overdue(&mut self.conn, keep)).await?;
        Ok(overdue.into_iter().next().map(|partition| (partition.next_step(), partition)))
    }

    /// Does one step, or fails after 100 ms for each lock that it would have to wait for
    /// ([`StoreError::is_lock_timeout`]).
    pub async fn perform(&mut self, step: Step, partition: &Partition) -> Result<(), StoreError> {
        let name = quoted(&partition.name);
        within(STEP_DEADLINE, async {
            match step {
                Step::Retire => {
                    let from = partition.from_id.unwrap_or_default();
                    let range = Range { from, to: partition.to_id.unwrap_or(Uuid::max()) };
                    note_known_users(&mut self.conn, range, None).await?;
                    sqlx::query!("select tidings.retire_partition($1)", partition.name)
                        .fetch_one(&mut self.conn)
                        .await?;
                }
                // In no transaction block: it commits in between.
                Step::Detach => {
                    let detach = "alter table tidings.notification detach partition tidings.";
                    let detach = format!("{detach}{name} concurrently");
                    sqlx::raw_sql(AssertSqlSafe(detach)).execute(&mut self.conn).await?;
                }
                Step::FinishDetach => {
                    let finish = "alter table tidings.notification detach partition tidings.";
                    let finish = format!("{finish}{name} finalize");
                    sqlx::raw_sql(AssertSqlSafe(finish)).execute(&mut self.conn).await?;
                }
                Step::Drop => {
                    let mut transaction = self.conn.begin().await?;
                    let drop = format!("drop table if exists tidings.{name}");
                    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *transaction).await?;
                    sqlx::query!(
                        "delete from tidings.leaving_partition where name = $1",
                        partition.name
                    )
                    .execute(&mut *transaction)
                    .await?;
                    transaction.commit().await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Gives the lock back. Dropping does too, once the server has noticed.
    pub async fn end(self) {
        let _ = within(STEP_DEADLINE, self.conn.close()).await;
    }
}

/// A detach that has begun comes before any other, since Postgres allows one at a time; and what has
/// begun before what has not.
async fn overdue(conn: &mut PgConnection, keep: Keep) -> sqlx::Result<Vec<Partition>> {
    sqlx::query_as!(
        Partition,
        r#"select name as "name!", state as "state!", from_id as "from_id?", to_id as "to_id?",
            rows_estimate as "rows_estimate!", bytes as "bytes!"
        from tidings.partitions
        where state <> 'kept'
            or to_id <= tidings.first_id_younger_than(make_interval(secs => $1), $2)
        order by array_position(array['detaching', 'detached', 'leaving', 'kept'], state), to_id"#,
        keep.retention.as_secs_f64(),
        keep.now.timestamp_millis(),
    )
    .fetch_all(conn)
    .await
}

fn time_in(id: Uuid) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(EventId::from(id).ms() as i64)
}

/// As an identifier. The names are from the catalog; who made them is not known.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
