//! Scheduled sends: stored until they are due, or called off. An answer is durable; where none came,
//! the outcome is unknown.

use chrono::{DateTime, Utc};

use super::{ChangeError, Store};
use crate::address::App;
use crate::event_id::EventId;
use crate::notification::{IdempotencyKey, NewNotification};

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

impl Store {
    /// Schedules a send.
    pub async fn schedule(&self, new: &NewScheduled<'_>) -> Result<Scheduling, ChangeError> {
        let what = &new.notifications[0];
        let audiences: Vec<String> =
            new.notifications.iter().map(|n| n.audience.to_sql()).collect();
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
        let row = self.change(async |conn| call.fetch_one(conn).await).await?;
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
        let id = uuid::Uuid::from(id);
        let call = sqlx::query!("call tidings.cancel_scheduled($1, $2, null)", app.as_str(), id);
        let row = self.change(async |conn| call.fetch_one(conn).await).await?;
        Ok(match row.outcome.as_deref() {
            Some("cancelled") => Cancelling::Cancelled,
            Some("sent") => Cancelling::Sent,
            _ => Cancelling::Unknown,
        })
    }
}
