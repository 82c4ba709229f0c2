//! The drainer's session: moves what waits in the outbox into the feed. What it calls is safe to cut
//! off at any point, and safe beside another that was cut off: every row is moved by deleting it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::settle::{LaneHolder, end_stale_lane_holder};
use super::{QUERY_DEADLINE, Store, StoreError, within};

/// Apps of one slice. The rest has its turn in the next.
const MOST_APPS: i32 = 500;
/// Rows of one slice: what is moved in some tenths of a second, so that reading them was not in vain.
const MOST_ROWS: i32 = 5000;
/// Above the slice's time and waits for locks.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
/// A table of the outbox of this size gives way to the other: small enough to read past in a few ms.
const TURN_AT: i64 = 8 << 20;

/// A connection that drains.
pub struct DrainSession {
    conn: PgConnection,
    /// Where the next slice begins, among the apps.
    after_app: String,
}

/// What one slice was.
#[derive(Debug)]
pub struct Drained {
    /// Rows that have got their ids.
    pub moved: u64,
    /// There is more to do at once.
    pub more: bool,
    /// Since when the oldest row of the slice had waited.
    pub oldest: Option<DateTime<Utc>>,
}

impl Store {
    /// Opens a session for draining.
    pub async fn drain_session(&self) -> Result<DrainSession, StoreError> {
        let mut conn = self.appending_session("drainer").await?;
        // The planner is told to use the indexes: it may have seen the tables empty, or full of rows
        // that are gone.
        let settings = sqlx::raw_sql(
            "set lock_timeout = '2s'; set jit = off; set enable_seqscan = off; set enable_bitmapscan = off;
             set enable_hashjoin = off; set enable_mergejoin = off",
        );
        within(QUERY_DEADLINE, settings.execute(&mut conn)).await?;
        Ok(DrainSession { conn, after_app: String::new() })
    }
}

impl DrainSession {
    /// Moves one slice, unless another session is the drainer.
    pub async fn drain(&mut self, instance_ms: i64) -> Result<Drained, StoreError> {
        let call = sqlx::query!(
            "call tidings.drain_outbox($1, $2, $3, $4, null, null, null)",
            MOST_APPS,
            MOST_ROWS,
            instance_ms,
            self.after_app,
        );
        let row = within(DRAIN_DEADLINE, call.fetch_one(&mut self.conn)).await?;
        self.after_app = row.after_app.unwrap_or_default();
        Ok(Drained {
            moved: row.moved.unwrap_or_default().unsigned_abs().into(),
            more: row.more.unwrap_or_default(),
            oldest: row.oldest,
        })
    }

    /// Lets go of the room of what was moved, as far as nobody is in the way.
    pub async fn rotate(&mut self) -> Result<(), StoreError> {
        let call = sqlx::query!("call tidings.rotate_outbox($1)", TURN_AT);
        within(DRAIN_DEADLINE, call.execute(&mut self.conn)).await?;
        Ok(())
    }

    /// Forgets a small group of what is past its time; whether there is more of it.
    pub async fn forget_old(&mut self) -> Result<bool, StoreError> {
        let call = sqlx::query!("call tidings.forget_old(null)");
        let row = within(DRAIN_DEADLINE, call.fetch_one(&mut self.conn)).await?;
        Ok(row.more.unwrap_or_default())
    }

    /// Ends whoever has held the lane for more than five seconds. Where nothing is sent over HTTP, no
    /// writer does it.
    pub async fn end_stale_lane_holder(&mut self) -> Result<Option<LaneHolder>, StoreError> {
        end_stale_lane_holder(&mut self.conn).await
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        let _ = within(QUERY_DEADLINE, self.conn.close()).await;
    }
}
