//! The writer's session: appending a group, and finding out what became of one after its call was
//! cut off (invariants 1 and 2).

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

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

/// What became of one send.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Stored now; this is its first row, and the others follow without a hole.
    Stored(EventId),
    /// Its key was there already: this is what that request was answered.
    Known(Answered),
}

/// What a send with an `Idempotency-Key` was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Of the request that was answered.
    pub fingerprint: [u8; 32],
    /// `None`: it was a scheduled send.
    pub first: Option<EventId>,
    /// Rows, from the first one on.
    pub count: usize,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
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
        let mut conn = self.appending_session().await?;
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

    /// Ends the backend of a session that broke off in a call, and waits until it is gone: it might
    /// still be waiting for the lane, and commit later. One that waits for a synchronous standby is
    /// only waited for: ending it would make a row visible that no standby has, and that a failover
    /// takes back from subscribers who have seen it.
    pub async fn end_backend(&mut self, backend: Backend) -> Result<(), StoreError> {
        within(QUERY_DEADLINE, async {
            loop {
                let alive = sqlx::query!(
                    "select case when wait_event is distinct from 'SyncRep' then pg_terminate_backend(pid) end
                    from pg_stat_activity where pid = $1 and backend_start = $2",
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
    pub async fn find(
        &mut self,
        group: &[&NewSend],
        tail: u64,
        after: i64,
    ) -> Result<Option<Appended>, StoreError> {
        let after = Uuid::from(EventId::at(after, u16::MAX, (1 << 48) - 1));
        within(QUERY_DEADLINE, async {
            let tail_bytes = &tail.to_be_bytes()[2..];
            let found = sqlx::query!(
                r#"select min(id::text)::uuid as first, max(id::text)::uuid as last,
                    min(created_at) as created_at
                from tidings.notification where id > $1 and substring(uuid_send(id) from 11) = $2"#,
                after,
                tail_bytes,
            )
            .fetch_one(&mut self.conn)
            .await?;
            let (Some(first), Some(last), Some(created_at)) =
                (found.first, found.last, found.created_at)
            else {
                return Ok(None);
            };
            let known = self.known(group, tail).await?;
            sqlx::raw_sql(
                "begin; select set_config('synchronous_commit', 'on', true)
                 where current_setting('synchronous_commit') in ('off', 'local');
                 select pg_logical_emit_message(true, 'tidings', ''); commit",
            )
            .execute(&mut self.conn)
            .await?;
            let (sends, _) = outcomes(group, EventId::from(first), known);
            let last = EventId::from(last).position();
            let epoch = (first.as_u128() >> 48) as u16;
            Ok(Some(Appended {
                prev: None,
                last,
                epoch: epoch.into(),
                created_at,
                sends,
                has_entries: true,
            }))
        })
        .await
    }

    /// The sends of a committed group whose keys were there before it.
    async fn known(
        &mut self,
        group: &[&NewSend],
        tail: u64,
    ) -> sqlx::Result<HashMap<usize, Answered>> {
        let keys = Keys::of(group);
        if keys.keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query!(
            r#"select n.number as "number!", k.fingerprint, k.first_id, k.id_count, k.answered_at
            from unnest($1::text[], $2::text[]) with ordinality as n (app, key, number)
            join tidings.idempotency_key k on k.app = n.app and k.key = n.key"#,
            &keys.apps as &[&str],
            &keys.keys as &[&str],
        )
        .fetch_all(&mut self.conn)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let answered =
                    answered(row.fingerprint, row.first_id, row.id_count, row.answered_at);
                (keys.sends[row.number as usize - 1], answered)
            })
            .filter(|(_, answered)| answered.first.is_none_or(|first| first.tail() != tail))
            .collect())
    }

    /// Ends whoever has held the lane for more than five seconds.
    pub async fn end_stale_lane_holder(&mut self) -> Result<Option<LaneHolder>, StoreError> {
        end_stale_lane_holder(&mut self.conn).await
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

/// Ends whoever has held the lane for more than five seconds, unless it waits for a synchronous
/// standby: ending that would make a row visible that no standby has.
pub(super) async fn end_stale_lane_holder(
    conn: &mut PgConnection,
) -> Result<Option<LaneHolder>, StoreError> {
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
        .fetch_optional(conn)
        .await?;
        Ok(ended.map(|row| LaneHolder { pid: row.pid }))
    })
    .await
}

/// The columns of a group's rows.
#[derive(Default)]
struct Columns<'a> {
    apps: Vec<&'a str>,
    audiences: Vec<String>,
    events: Vec<Option<&'a str>>,
    datas: Vec<&'a str>,
    lifetimes: Vec<Option<i32>>,
    replaces: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn of(group: &[&'a NewSend]) -> Columns<'a> {
        let mut columns = Columns::default();
        for n in group.iter().flat_map(|send| &send.notifications) {
            columns.apps.push(n.app.as_str());
            columns.audiences.push(n.audience.to_sql());
            columns.events.push(n.event.as_ref().map(|event| event.as_str()));
            columns.datas.push(n.data.as_str());
            columns.lifetimes.push(n.expires_in.map(|seconds| seconds as i32));
            columns.replaces.push(n.replaces.as_ref().map(|key| key.as_str()));
        }
        columns
    }
}

/// The keys of a group's sends, and which rows each covers, counted from 1.
#[derive(Default)]
struct Keys<'a> {
    sends: Vec<usize>,
    apps: Vec<&'a str>,
    keys: Vec<&'a str>,
    fingerprints: Vec<&'a [u8]>,
    firsts: Vec<i32>,
    counts: Vec<i32>,
}

impl<'a> Keys<'a> {
    fn of(group: &[&'a NewSend]) -> Keys<'a> {
        let mut keys = Keys::default();
        let mut row = 1;
        for (index, send) in group.iter().enumerate() {
            let count = send.notifications.len() as i32;
            if let Some(key) = &send.key {
                keys.sends.push(index);
                keys.apps.push(send.app().as_str());
                keys.keys.push(&key.key);
                keys.fingerprints.push(&key.fingerprint);
                keys.firsts.push(row);
                keys.counts.push(count);
            }
            row += count;
        }
        keys
    }
}

fn answers(
    fingerprints: Vec<Vec<u8>>,
    firsts: Vec<Uuid>,
    counts: Vec<i32>,
    at: Vec<DateTime<Utc>>,
) -> impl Iterator<Item = Answered> {
    fingerprints
        .into_iter()
        .zip(firsts)
        .zip(counts)
        .zip(at)
        .map(|(((fingerprint, first), count), at)| answered(fingerprint, Some(first), count, at))
}

fn answered(fingerprint: Vec<u8>, first: Option<Uuid>, count: i32, at: DateTime<Utc>) -> Answered {
    Answered {
        // One of another length is of no request of ours, and matches none.
        fingerprint: fingerprint.try_into().unwrap_or_default(),
        first: first.map(EventId::from).filter(|first| *first != EventId::ZERO),
        count: count as usize,
        at,
    }
}

/// Gives each send its first row, from the group's `first` on; those whose key was known have none.
/// Also returns the number of rows.
fn outcomes(
    group: &[&NewSend],
    first: EventId,
    mut known: HashMap<usize, Answered>,
) -> (Vec<Outcome>, usize) {
    let mut rows = 0;
    let outcomes = group.iter().enumerate().map(|(index, send)| {
        if let Some(answered) = known.remove(&index) {
            return Outcome::Known(answered);
        }
        let first = first.followed_by(rows);
        rows += send.notifications.len();
        Outcome::Stored(first)
    });
    (outcomes.collect(), rows)
}
