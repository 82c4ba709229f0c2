//! The writer's session, and appending a group on it (invariants 1 and 2). What became of a call that
//! broke off is looked up in `settle.rs`.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::group::{Answered, Columns, Keys, Outcome, answers, outcomes};
use super::pooler::backend_pid;
use super::{QUERY_DEADLINE, Store, StoreError, within};
use crate::event_id::EventId;
use crate::notification::NewSend;

/// Short: the sends that wait meanwhile have a few seconds' patience.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What an append did with a group of sends.
#[derive(Debug)]
pub struct Appended {
    /// The last position before this group, read under the lane; `None` if not known any more. After
    /// a failed call it can be above the last committed one, which only costs a feed read.
    pub prev: Option<i64>,
    /// The last position of the group, state entries included.
    pub last: i64,
    /// In which its ids were made.
    pub epoch: i32,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// What became of each send, in order.
    pub sends: Vec<Outcome>,
    /// State entries follow the group's own rows.
    pub has_entries: bool,
}

/// A connection that appends, with what it takes to find its backend again when it broke.
pub struct Session {
    pub(super) conn: PgConnection,
    backend: Backend,
}

/// One backend process of Postgres; the pid alone may have been given to another since.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pub(super) pid: i32,
    pub(super) started: DateTime<Utc>,
}

impl Store {
    /// Opens a session for appending.
    pub async fn append_session(&self) -> Result<Session, StoreError> {
        let mut conn = self.appending_session("writer").await?;
        let backend = within(QUERY_DEADLINE, async {
            // It does not count in a wait for a synchronous standby.
            sqlx::raw_sql("set lock_timeout = '2s'").execute(&mut conn).await?;
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
    /// unknown until [`Session::find`] was asked. Two sends of a group with the same new key are
    /// refused like a bad row.
    pub async fn append(
        &mut self,
        group: &[&NewSend],
        tail: u64,
        instance_ms: i64,
        deadline: Duration,
    ) -> Result<Appended, StoreError> {
        let columns = Columns::of(group);
        let keys = Keys::of(group);
        let call = sqlx::query!(
            "call tidings.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
                null, null, null, null, null, null, null, null, null, null)",
            &columns.apps as &[&str],
            &columns.audiences,
            &columns.events as &[Option<&str>],
            &columns.datas as &[&str],
            &columns.lifetimes as &[Option<i32>],
            &columns.replaces as &[Option<&str>],
            &keys.apps as &[&str],
            &keys.keys as &[&str],
            &keys.fingerprints as &[&[u8]],
            &keys.firsts,
            &keys.counts,
            tail as i64,
            instance_ms,
        );
        let row = within(deadline, call.fetch_one(&mut self.conn)).await?;
        let none = || StoreError::Database(sqlx::Error::RowNotFound);
        let first = row.first.ok_or_else(none)?;
        let epoch = row.epoch.and_then(|epoch| u16::try_from(epoch).ok()).ok_or_else(none)?;
        let created_at = row.created_at.ok_or_else(none)?;
        let known = row.known.unwrap_or_default().into_iter().zip(answers(
            row.known_fingerprints.unwrap_or_default(),
            row.known_firsts.unwrap_or_default(),
            row.known_counts.unwrap_or_default(),
            row.known_at.unwrap_or_default(),
        ));
        let known: HashMap<usize, Answered> =
            known.map(|(number, answered)| (keys.sends[number as usize - 1], answered)).collect();
        let entries = i64::from(row.entries.unwrap_or(0));
        let (sends, rows) = outcomes(group, EventId::at(first, epoch, tail), known);
        Ok(Appended {
            prev: Some(row.prev.ok_or_else(none)?),
            last: first + rows as i64 + entries - 1,
            epoch: epoch.into(),
            created_at,
            sends,
            has_entries: entries > 0,
        })
    }

    /// Finds out whether the connection lives, and is still ours: a pooler can be switched to
    /// another mode under it.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        let pid = within(PING_DEADLINE, backend_pid(&mut self.conn)).await?;
        if pid == self.backend.pid { Ok(()) } else { Err(StoreError::LentConnection) }
    }

    /// Says goodbye to the database.
    pub async fn close(self) {
        let _ = within(QUERY_DEADLINE, self.conn.close()).await;
    }
}
