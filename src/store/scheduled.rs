//! Scheduled sends: stored until they are due, or called off. An answer is durable; where none came,
//! the outcome is unknown.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Postgres};

use super::{CONNECT_DEADLINE, Lease, QUERY_DEADLINE, Store, StoreError, within};
use crate::address::App;
use crate::event_id::EventId;
use crate::notification::{IdempotencyKey, NewNotification};

/// Short, since somebody waits.
const PING_DEADLINE: Duration = Duration::from_secs(1);
/// Pooled connections that may have broken while they were idle.
const MOST_BROKEN: usize = 8;

/// A send to come.
#[derive(Debug)]
pub struct NewScheduled<'a> {
    /// What it says, for each of its audiences: one or more, which differ in that alone.
    pub notifications: &'a [NewNotification],
    /// When.
    pub deliver_at: DateTime<Utc>,
    /// Makes repeating the request safe.
    pub key: Option<&'a IdempotencyKey>,
}

/// What became of a wish to schedule.
#[derive(Clone, Copy, Debug)]
pub enum Scheduling {
    /// It is stored.
    Scheduled(Scheduled),
    /// An earlier request with the same key stored it.
    Replayed(Scheduled),
    /// The key belongs to another request.
    KeyMismatch,
    /// More than a few seconds ago.
    Past,
    /// Too far ahead.
    Far,
}

/// A scheduled send.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled {
    /// Its own id; the notification gets another when it is due.
    pub id: EventId,
    /// When it is due.
    pub deliver_at: DateTime<Utc>,
}

/// What became of a wish to call one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelling {
    /// It will not be sent.
    Cancelled,
    /// It was sent already.
    Sent,
    /// The app has no such one.
    Unknown,
}

/// Why a change has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Certainly nothing was changed.
    #[error(transparent)]
    Undone(StoreError),
    /// The call was made, and broke off.
    #[error(transparent)]
    Unknown(StoreError),
}

impl ChangeError {
    /// Of an error in a call that commits by itself. An error that Postgres answers has undone it, but
    /// for those that end the session: these can come while it waits for a standby, after the commit.
    fn in_call(error: StoreError) -> ChangeError {
        match error.sqlstate() {
            Some(state) if !state.starts_with("57") && !state.starts_with("08") => {
                ChangeError::Undone(error)
            }
            _ => ChangeError::Unknown(error),
        }
    }
}

impl Store {
    /// Schedules a send.
    pub async fn schedule(&self, new: &NewScheduled<'_>) -> Result<Scheduling, ChangeError> {
        let what = &new.notifications[0];
        let audiences: Vec<String> =
            new.notifications.iter().map(|n| n.audience.to_sql()).collect();
        let mut lease = self.living_connection().await.map_err(ChangeError::Undone)?;
        let conn = lease.conn.as_mut().expect("the lease was just filled");
        let call = sqlx::query!(
            "call tidings.schedule($1, $2, $3, $4, $5, $6, $7, $8, $9, null, null, null)",
            what.app.as_str(),
            &audiences,
            what.event.as_ref().map(|event| event.as_str()),
            what.data.as_str(),
            what.expires_in.map(|seconds| seconds as i32),
            what.replaces.as_ref().map(|key| key.as_str()),
            new.deliver_at,
            new.key.map(|key| key.key.as_str()),
            new.key.map(|key| &key.fingerprint[..]),
        );
        let row = within(QUERY_DEADLINE, call.fetch_one(&mut **conn)).await;
        let row = row.map_err(ChangeError::in_call)?;
        lease.conn.take();
        let scheduled = row
            .id
            .zip(row.deliver_at)
            .map(|(id, deliver_at)| Scheduled { id: EventId::from(id), deliver_at });
        Ok(match (row.verdict.as_deref(), scheduled) {
            (Some("scheduled"), Some(scheduled)) => Scheduling::Scheduled(scheduled),
            (Some("replayed"), Some(scheduled)) => Scheduling::Replayed(scheduled),
            (Some("past"), _) => Scheduling::Past,
            (Some("far"), _) => Scheduling::Far,
            _ => Scheduling::KeyMismatch,
        })
    }

    /// Calls a scheduled send off.
    pub async fn cancel_scheduled(
        &self,
        app: &App,
        id: EventId,
    ) -> Result<Cancelling, ChangeError> {
        let mut lease = self.living_connection().await.map_err(ChangeError::Undone)?;
        let conn = lease.conn.as_mut().expect("the lease was just filled");
        let id = uuid::Uuid::from(id);
        let call = sqlx::query!("call tidings.cancel_scheduled($1, $2, null)", app.as_str(), id);
        let row = within(QUERY_DEADLINE, call.fetch_one(&mut **conn)).await;
        let row = row.map_err(ChangeError::in_call)?;
        lease.conn.take();
        Ok(match row.outcome.as_deref() {
            Some("cancelled") => Cancelling::Cancelled,
            Some("sent") => Cancelling::Sent,
            _ => Cancelling::Unknown,
        })
    }

    /// A connection that has just answered: with one that broke while it was idle, the outcome of the
    /// first call would be unknown.
    async fn living_connection(&self) -> Result<Lease, StoreError> {
        let mut attempts = 0;
        loop {
            let conn: PoolConnection<Postgres> =
                within(CONNECT_DEADLINE, self.requests.acquire()).await?;
            let mut lease = Lease { conn: Some(conn) };
            let conn = lease.conn.as_mut().expect("the lease was just filled");
            let answered = within(PING_DEADLINE, conn.ping()).await;
            attempts += 1;
            match answered {
                Ok(()) => return Ok(lease),
                Err(error) if attempts == MOST_BROKEN => return Err(error),
                Err(_) => {}
            }
        }
    }
}
