//! What became of a call that broke off, and of whoever holds the lane: looked up, waited for, or
//! ended, but never guessed (invariants 1 and 2).

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::append::{Appended, Backend, Session};
use super::group::{Answered, Keys, answered, outcomes};
use super::{QUERY_DEADLINE, StoreError, within};
use crate::event_id::EventId;
use crate::notification::NewSend;

/// What held the lane when a lock timeout ended the wait for it.
#[derive(Debug)]
pub struct LaneHolder {
    /// Its process in the database.
    pub pid: i32,
}

impl Session {
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
