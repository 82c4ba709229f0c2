//! Inbox state: what users did with their notifications, and withdrawals. A change and the entry of the
//! feed that tells it to the user's other devices commit together, in one call. Unlike a send, every
//! change may be repeated without harm, so a call that broke off is not looked up but said to be unknown.

use uuid::Uuid;

use super::{ChangeError, Store, StoreError};
use crate::address::{App, Audience, User};
use crate::event_id::EventId;

/// What a user does with a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was in a list that the user looked at.
    Seen,
    /// Read, and so seen.
    Read,
    /// Read no more; seen all the same.
    Unread,
    /// Put away: counted no more.
    Archived,
    /// Back in the list.
    Unarchived,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] =
        [State::Seen, State::Read, State::Unread, State::Archived, State::Unarchived];

    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Seen => "seen",
            State::Read => "read",
            State::Unread => "unread",
            State::Archived => "archived",
            State::Unarchived => "unarchived",
        }
    }
}

/// Which notifications change.
#[derive(Clone, Debug)]
pub enum Subject {
    /// These, as far as they are in a list of the user.
    Ids(Vec<EventId>),
    /// Those of the audiences up to and including this id, and up to the head at most.
    UpTo(EventId),
}

/// One request to change state.
#[derive(Debug)]
pub struct StateChange<'a> {
    /// The tenant.
    pub app: &'a App,
    /// Whose state.
    pub user: &'a User,
    /// What is counted; with [`Subject::UpTo`] also what changes.
    pub audiences: &'a [Audience],
    /// Of what.
    pub subject: Subject,
    /// To what.
    pub state: State,
}

/// How much of an inbox waits for its user.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Not read.
    pub unread: i64,
    /// Not even seen.
    pub unseen: i64,
    /// Of the same snapshot: a stream from here brings what is not counted.
    pub head: EventId,
}

/// What became of a change.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// Notifications whose state is another now.
    pub changed: i64,
    /// After it.
    pub counts: Counts,
}

impl Store {
    /// Changes a user's state.
    pub async fn change_state(
        &self,
        change: &StateChange<'_>,
        instance_ms: i64,
    ) -> Result<Changed, ChangeError> {
        let audiences: Vec<String> = change.audiences.iter().map(Audience::to_sql).collect();
        let (ids, up_to) = match &change.subject {
            Subject::Ids(ids) => (Some(ids.iter().copied().map(Uuid::from).collect()), None),
            Subject::UpTo(up_to) => (None, Some(Uuid::from(*up_to))),
        };
        let ids: Option<Vec<Uuid>> = ids;
        let row = self
            .change(async |conn| {
                sqlx::query!(
                    "call tidings.change_state($1, $2, $3, $4, $5, $6, $7, $8, null, null, null, null)",
                    change.app.as_str(),
                    change.user.as_str(),
                    ids.as_deref(),
                    up_to,
                    &audiences,
                    change.state.as_str(),
                    tail(),
                    instance_ms,
                )
                .fetch_one(conn)
                .await
            })
            .await?;
        let answer = || {
            let counts =
                Counts { unread: row.unread?, unseen: row.unseen?, head: row.head?.into() };
            Some(Changed { changed: row.changed?, counts })
        };
        answer().ok_or_else(|| ChangeError::OutcomeUnknown(sqlx::Error::RowNotFound.into()))
    }

    /// Withdraws a notification of an app; false if it has no such one.
    pub async fn withdraw(
        &self,
        app: &App,
        id: EventId,
        instance_ms: i64,
    ) -> Result<bool, ChangeError> {
        let row = self
            .change(async |conn| {
                sqlx::query!(
                    "call tidings.withdraw($1, $2, $3, $4, null)",
                    app.as_str(),
                    Uuid::from(id),
                    tail(),
                    instance_ms,
                )
                .fetch_one(conn)
                .await
            })
            .await?;
        row.known.ok_or_else(|| ChangeError::OutcomeUnknown(sqlx::Error::RowNotFound.into()))
    }

    /// Counts what waits for a user in these audiences.
    pub async fn counts(
        &self,
        app: &App,
        user: &User,
        audiences: &[Audience],
    ) -> Result<Counts, StoreError> {
        let audiences: Vec<String> = audiences.iter().map(Audience::to_sql).collect();
        self.request(async |conn| {
            let row = sqlx::query!(
                r#"select unread as "unread!", unseen as "unseen!", head as "head!"
                from tidings.inbox_counts($1, $2, $3)"#,
                app.as_str(),
                user.as_str(),
                &audiences,
            )
            .fetch_one(conn)
            .await?;
            Ok(Counts { unread: row.unread, unseen: row.unseen, head: row.head.into() })
        })
        .await
    }

    /// Makes users known who subscribe: from now on what is sent to everyone counts for them.
    pub async fn note_known(&self, users: &[(&App, &User)]) -> Result<(), StoreError> {
        if users.is_empty() {
            return Ok(());
        }
        let (apps, names): (Vec<&str>, Vec<&str>) =
            users.iter().map(|(app, user)| (app.as_str(), user.as_str())).unzip();
        self.read(&self.streams, async |conn| {
            sqlx::query!("select tidings.note_known($1, $2)", &apps as &[&str], &names as &[&str])
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }
}

/// What no other group has in its ids.
fn tail() -> i64 {
    fastrand::i64(0..1 << 48)
}
