//! The writer's session: appending a group, and finding out what became of one after its call was
//! cut off (invariants 1 and 2).

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{QUERY_DEADLINE, Store, StoreError, within};
use crate::event_id::EventId;
use crate::notification::NewNotification;

/// Short: the sends that wait meanwhile have a few seconds' patience.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What an append did.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// The last position before this group, read under the lane. After a failed call it can be above
    /// the last committed one, which only costs a feed read.
    pub prev: i64,
    /// The position of the first row; the others follow without a hole.
    pub first: i64,
    /// The epoch in the ids.
    pub epoch: u16,
    /// The tail in the ids.
    pub tail: u64,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
}

impl Appended {
    /// The id of the row number `index` of the group.
    pub fn id(&self, index: usize) -> EventId {
        EventId::at(self.first + index as i64, self.epoch, self.tail)
    }
}

/// A connection that appends, with what it takes to find its backend again when it broke.
pub struct Session {
    conn: PgConnection,
    backend: Backend,
}

/// One backend process of Postgres; the pid alone may have been given to another since.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pid: i32,
    started: DateTime<Utc>,
}

/// What held the lane when a lock timeout ended the wait for it.
#[derive(Debug)]
pub struct LaneHolder {
    /// Its process in the database.
    pub pid: i32,
}

impl Store {
    /// Opens a session for appending.
    pub async fn append_session(&self) -> Result<Session, StoreError> {
        let mut conn = self.session().await?;
        // statement_timeout stays off: it would end a wait for a synchronous standby as if the
        // standby had confirmed. lock_timeout does not count there.
        let backend = within(QUERY_DEADLINE, async {
            sqlx::raw_sql(
                "set statement_timeout = 0; set lock_timeout = '2s'; set tcp_user_timeout = 30000;
                 set default_transaction_isolation = 'read committed'",
            )
            .execute(&mut conn)
            .await?;
            sqlx::query!(
                r#"select pid as "pid!", backend_start as "started!"
                from pg_stat_activity where pid = pg_backend_pid()"#
            )
            .fetch_one(&mut conn)
            .await
        })
        .await?;
        Ok(Session { conn, backend: Backend { pid: backend.pid, started: backend.started } })
    }
}

impl Session {
    /// The backend process behind this session.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Appends a group and commits it. After any error but of SQLSTATE class 22 or 23 the outcome is
    /// unknown until [`Session::find`] was asked.
    pub async fn append(
        &mut self,
        group: &[&NewNotification],
        tail: u64,
        instance_ms: i64,
        deadline: Duration,
    ) -> Result<Appended, StoreError> {
        let apps: Vec<&str> = group.iter().map(|n| n.app.as_str()).collect();
        let audiences: Vec<String> = group.iter().map(|n| n.audience.to_sql()).collect();
        let events: Vec<Option<&str>> =
            group.iter().map(|n| n.event.as_ref().map(|event| event.as_str())).collect();
        let datas: Vec<&str> = group.iter().map(|n| n.data.as_str()).collect();
        let call = sqlx::query!(
            "call tidings.append($1, $2, $3, $4, $5, $6, null, null, null, null)",
            &apps as &[&str],
            &audiences,
            &events as &[Option<&str>],
            &datas as &[&str],
            tail as i64,
            instance_ms,
        );
        let row = within(deadline, call.fetch_one(&mut self.conn)).await?;
        let none = || StoreError::Database(sqlx::Error::RowNotFound);
        Ok(Appended {
            prev: row.prev.ok_or_else(none)?,
            first: row.first.ok_or_else(none)?,
            epoch: row.epoch.and_then(|epoch| u16::try_from(epoch).ok()).ok_or_else(none)?,
            tail,
            created_at: row.created_at.ok_or_else(none)?,
        })
    }

    /// Ends the backend of a session that broke off in a call, and waits until it is gone: it might
    /// still be waiting for the lane, and commit later.
    pub async fn end_backend(&mut self, backend: Backend) -> Result<(), StoreError> {
        within(QUERY_DEADLINE, async {
            loop {
                let alive = sqlx::query!(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                    where pid = $1 and backend_start = $2",
                    backend.pid,
                    backend.started,
                )
                .fetch_optional(&mut self.conn)
                .await?;
                if alive.is_none() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Looks for the group with `tail` above the position `after`. Found means committed here; a
    /// synchronous standby may not have it yet, so a commit of ours waits as the append would have.
    pub async fn find(&mut self, tail: u64, after: i64) -> Result<Option<Appended>, StoreError> {
        let after = Uuid::from(EventId::at(after, u16::MAX, (1 << 48) - 1));
        within(QUERY_DEADLINE, async {
            let tail_bytes = &tail.to_be_bytes()[2..];
            let found = sqlx::query!(
                r#"select id, created_at from tidings.notification
                where id > $1 and substring(uuid_send(id) from 11) = $2 order by id limit 1"#,
                after,
                tail_bytes,
            )
            .fetch_optional(&mut self.conn)
            .await?;
            let Some(row) = found else { return Ok(None) };
            sqlx::raw_sql(
                "begin; select set_config('synchronous_commit', 'on', true)
                 where current_setting('synchronous_commit') in ('off', 'local');
                 select pg_logical_emit_message(true, 'tidings', ''); commit",
            )
            .execute(&mut self.conn)
            .await?;
            let first = EventId::from(row.id);
            Ok(Some(Appended {
                // Not known any more; no position is below zero, so the hub reads the feed.
                prev: -1,
                first: first.position(),
                epoch: (row.id.as_u128() >> 48) as u16,
                tail,
                created_at: row.created_at,
            }))
        })
        .await
    }

    /// Ends whoever has held the lane for more than five seconds, unless it waits for a synchronous
    /// standby: ending that would make a row visible that no standby has.
    pub async fn end_stale_lane_holder(&mut self) -> Result<Option<LaneHolder>, StoreError> {
        within(QUERY_DEADLINE, async {
            let ended = sqlx::query!(
                r#"select a.pid as "pid!", pg_terminate_backend(a.pid)
                from pg_locks l join pg_stat_activity a using (pid)
                where l.locktype = 'advisory' and l.granted
                  and l.database = (select oid from pg_database where datname = current_database())
                  and l.classid = 7463 and l.objid = 1 and l.objsubid = 2
                  and a.xact_start < clock_timestamp() - interval '5 seconds'
                  and a.wait_event is distinct from 'SyncRep'"#
            )
            .fetch_optional(&mut self.conn)
            .await?;
            Ok(ended.map(|row| LaneHolder { pid: row.pid }))
        })
        .await
    }

    /// Finds out whether the connection lives.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        within(PING_DEADLINE, self.conn.ping()).await
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        let _ = within(QUERY_DEADLINE, self.conn.close()).await;
    }
}
