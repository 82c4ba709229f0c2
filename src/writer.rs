//! Group commit. One task and one connection per instance: whenever it is free it takes what waits,
//! appends it in one call, and answers each send after the commit (invariant 1).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::database::Database;
use crate::event_id::EventId;
use crate::metrics::{Metrics, Outcome as OutcomeLabel};
use crate::notification::{NewSend, Notification};
use crate::queue::{Queue, Waiting};
use crate::store::{Answered, Appended, Outcome, Session, StoreError};

/// Rows of one group: beyond this a bigger group gains nothing.
const GROUP_ROWS: usize = 1000;
/// Bytes of one group: what one call may carry without holding the lane long.
const GROUP_BYTES: usize = 4 << 20;
/// How long a send waits for its turn before it is told that the database is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one call may take; its waiting for the lane is bounded in the session.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);
/// How long the outcome of a broken call is looked for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);
/// A connection not used for this long is asked whether it lives: a round trip that nobody notices.
const IDLE: Duration = Duration::from_millis(500);
/// And a busy one is asked this often whether it is still ours.
const ASK_EVERY: Duration = Duration::from_secs(5);
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// What a sender is told after the commit.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The id of the first notification.
    pub first: EventId,
    /// How many there are.
    pub count: usize,
    /// When they were committed, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// An earlier request with the same key stored them.
    pub replayed: bool,
}

impl Stored {
    /// The ids, in the order of the request.
    pub fn ids(self) -> impl Iterator<Item = EventId> {
        (0..self.count).map(move |place| self.first.followed_by(place))
    }
}

/// Why a send was not acknowledged. All but `OutcomeUnknown` mean: certainly not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The queue is full.
    #[error("too many sends are waiting")]
    Overloaded,
    /// It alone is more than one app may have waiting.
    #[error("its notifications have {bytes} bytes together, over {limit}")]
    TooLarge {
        /// Of all its notifications.
        bytes: usize,
        /// The most that would be taken.
        limit: usize,
    },
    /// The database did not come back in time.
    #[error("the database cannot be reached")]
    Unreachable,
    /// The server is going away.
    #[error("the server is shutting down")]
    Draining,
    /// The connection broke in the call and the outcome could not be found out in time.
    #[error("the outcome is not known")]
    OutcomeUnknown,
    /// Postgres refused this row.
    #[error("the database refuses it: {0}")]
    Refused(String),
    /// The idempotency key was used with another request.
    #[error("the key belongs to another request")]
    KeyMismatch,
}

/// The sending side: cheap to clone, used by every request.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

/// A group that this instance committed, for its own hub.
#[derive(Debug)]
pub struct OwnGroup {
    /// The last position before it.
    pub prev: i64,
    /// In which it was made.
    pub epoch: i32,
    /// Its rows, in order.
    pub rows: Vec<Notification>,
}

impl Sender {
    /// Has notifications stored, all or none. Dropping the future before its turn comes means they
    /// are not.
    pub async fn send(&self, send: NewSend) -> Result<Stored, SendError> {
        let (reply, stored) = oneshot::channel();
        let deadline = Instant::now() + PATIENCE;
        let outcome = match self.queue.push(Waiting { send, deadline, reply }) {
            Ok(()) => stored.await.unwrap_or(Err(SendError::OutcomeUnknown)),
            Err(refused) => Err(refused),
        };
        let label = match &outcome {
            Ok(Stored { replayed: true, .. }) => "replayed",
            Ok(_) => "stored",
            Err(SendError::Overloaded) => "overloaded",
            Err(SendError::Unreachable) => "unreachable",
            Err(SendError::Draining) => "draining",
            Err(SendError::OutcomeUnknown) => "unknown",
            Err(SendError::Refused(_) | SendError::TooLarge { .. }) => "refused",
            Err(SendError::KeyMismatch) => "mismatch",
        };
        self.metrics.sends.get_or_create(&OutcomeLabel { outcome: label }).inc();
        outcome
    }

    /// Takes no more sends. The writer ends once those in flight are answered.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Answers sends whose patience has run out, for as long as the program runs: the writer itself
    /// may be waiting, for the database or for the lane.
    pub async fn expire_forever(self, database: Arc<Database>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            let reason =
                if database.is_up() { SendError::Overloaded } else { SendError::Unreachable };
            self.queue.expire(Instant::now(), &reason);
        }
    }
}

/// The appending side.
pub struct Writer {
    queue: Arc<Queue>,
    database: Arc<Database>,
    clock: Clock,
    metrics: Arc<Metrics>,
    to_feed: mpsc::Sender<OwnGroup>,
    session: Option<Session>,
    /// The highest position known to be committed: where to look for a lost group.
    last_known: i64,
    last_used: Instant,
    last_asked: Instant,
}

impl Writer {
    /// A writer and the handle that feeds it. Committed groups go to `to_feed` as far as it takes
    /// them; the feed reads what it did not get.
    pub fn new(
        database: Arc<Database>,
        clock: Clock,
        metrics: Arc<Metrics>,
        to_feed: mpsc::Sender<OwnGroup>,
    ) -> (Writer, Sender) {
        let queue = Arc::new(Queue::new(metrics.clone()));
        let sender = Sender { queue: queue.clone(), metrics: metrics.clone() };
        let writer = Writer {
            queue,
            database,
            clock,
            metrics,
            to_feed,
            session: None,
            last_known: 0,
            last_used: Instant::now(),
            last_asked: Instant::now(),
        };
        (writer, sender)
    }

    /// Appends until the queue is closed and empty.
    pub async fn run(mut self) {
        let queue = self.queue.clone();
        loop {
            // First the connection: what is taken from the queue without one could not expire. Once
            // the queue is closed nobody waits for an answer any more, so for none either.
            if self.session.is_none() {
                tokio::select! {
                    () = self.connect() => {}
                    () = queue.closed() => break,
                }
            }
            if !self.queue.filled().await {
                break;
            }
            if self.session_answers().await {
                let group = self.queue.take_group(GROUP_ROWS, GROUP_BYTES);
                self.append(group).await;
                self.last_used = Instant::now();
            }
        }
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    async fn connect(&mut self) {
        self.database.prepared().await;
        let mut pause = SHORTEST_RETRY;
        while self.session.is_none() {
            match self.open_session().await {
                Ok(session) => {
                    self.database.set_lent(false);
                    self.session = Some(session);
                }
                Err(error) => {
                    self.database.set_lent(matches!(error, StoreError::LentConnection));
                    warn!(error = error.summary(), "the writer cannot reach the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    async fn open_session(&mut self) -> Result<Session, StoreError> {
        let session = self.database.store().append_session().await?;
        // Lower than before, if the database has gone back: its rows are to be found all the same.
        let head = self.database.store().head().await?.id.position();
        self.last_known = if self.last_known == 0 { head } else { head.min(self.last_known) };
        Ok(session)
    }

    /// A connection that broke while it was idle would make the outcome of the first call on it
    /// unknown, which would be told in `SETTLE_DEADLINE` and in doubt instead of soon and for certain.
    async fn session_answers(&mut self) -> bool {
        let idle = self.last_used.elapsed() >= IDLE || !self.database.is_up();
        if !idle && self.last_asked.elapsed() < ASK_EVERY {
            return true;
        }
        self.last_asked = Instant::now();
        let Some(session) = &mut self.session else { return false };
        let Err(error) = session.ping().await else { return true };
        info!(error = error.summary(), "the writer's connection was lost between two appends");
        self.session = None;
        false
    }

    /// Appends a group; halves it when Postgres refuses a row of it, until its send stands alone.
    async fn append(&mut self, group: Vec<Waiting>) {
        // Those that repeat a key come after the first with it: by then the key is known, or free.
        let (group, repeats) = set_repeats_aside(group);
        let mut parts = vec![repeats, group];
        parts.retain(|part| !part.is_empty());
        while let Some(mut group) = parts.pop() {
            match self.commit(&group).await {
                Ok(appended) => self.answer(group, appended),
                Err(SendError::Refused(_)) if group.len() > 1 => {
                    let tail = group.split_off(group.len() / 2);
                    parts.push(tail);
                    parts.push(group);
                }
                Err(error) => {
                    for waiting in group {
                        let _ = waiting.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn answer(&mut self, group: Vec<Waiting>, appended: Appended) {
        self.last_known = appended.last;
        let mut rows = Vec::with_capacity(group.len());
        for (Waiting { send, reply, .. }, outcome) in group.into_iter().zip(appended.sends) {
            let first = match outcome {
                Outcome::Stored(first) => first,
                Outcome::Known(answered) => {
                    let _ = reply.send(repeat(&send, answered));
                    continue;
                }
            };
            let (count, created_at) = (send.notifications.len(), appended.created_at);
            let _ = reply.send(Ok(Stored { first, count, created_at, replayed: false }));
            let stored =
                send.notifications.into_iter().enumerate().map(|(place, n)| Notification {
                    id: first.followed_by(place),
                    app: n.app.as_str().to_owned(),
                    audience: n.audience.to_sql(),
                    event: n.event.map(|event| event.as_str().to_owned()),
                    data: n.data.into_string(),
                    created_at,
                    expires_at: n
                        .expires_in
                        .map(|s| created_at + chrono::Duration::seconds(s.into())),
                });
            rows.extend(stored);
        }
        self.metrics.group_size.observe(rows.len() as f64);
        // What the database added is in the table alone. A full channel loses nothing either: the
        // feed finds the rows there.
        if let Some(prev) = appended.prev.filter(|_| !appended.has_entries && !rows.is_empty()) {
            let _ = self.to_feed.try_send(OwnGroup { prev, epoch: appended.epoch, rows });
        }
    }

    /// Commits a group once, whatever breaks, or says why not.
    async fn commit(&mut self, group: &[Waiting]) -> Result<Appended, SendError> {
        let sends: Vec<&NewSend> = group.iter().map(|waiting| &waiting.send).collect();
        let tail = fastrand::u64(..1 << 48);
        let give_up = Instant::now() + SETTLE_DEADLINE;
        let mut session = self.session.take().ok_or(SendError::Unreachable)?;
        loop {
            let started = Instant::now();
            let now_ms = self.clock.now().timestamp_millis();
            let error = match session.append(&sends, tail, now_ms, APPEND_DEADLINE).await {
                Ok(appended) => {
                    self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
                    self.session = Some(session);
                    return Ok(appended);
                }
                Err(error) => error,
            };
            let state = error.sqlstate().unwrap_or_default();
            if error.is_bad_data() {
                self.session = Some(session);
                return Err(SendError::Refused(error.summary()));
            }
            session = if state == LOCK_NOT_AVAILABLE {
                // Postgres answered: nothing to look for. Settling would turn into doubt at the end.
                warn!(error = error.summary(), "an append could not have the lane");
                self.free_lane(session).await
            } else {
                warn!(error = error.summary(), "an append broke off; looking for its outcome");
                let settled = match mutant!(ResendAfterBreak) {
                    true => self.open_session().await.ok().map(|fresh| (fresh, None)),
                    false => self.settle(session, &sends, tail, give_up).await,
                };
                let (fresh, found) = settled.ok_or_else(|| {
                    error!("the outcome of an append could not be found out in time");
                    self.count_settled("unknown");
                    SendError::OutcomeUnknown
                })?;
                if let Some(appended) = found {
                    self.count_settled("stored");
                    self.session = Some(fresh);
                    return Ok(appended);
                }
                self.count_settled("absent");
                // A full disk would answer the same at once, again and again.
                tokio::time::sleep(SHORTEST_RETRY).await;
                fresh
            };
            if Instant::now() >= give_up || is_refusal(&state) {
                self.session = Some(session);
                return Err(if state == LOCK_NOT_AVAILABLE {
                    SendError::Overloaded
                } else {
                    SendError::Unreachable
                });
            }
        }
    }

    /// Finds out whether the call that broke off in `broken` committed. `None`: not in time.
    ///
    /// A backend that still waits for the lane may commit later, so "absent, therefore send again"
    /// would double. The old backend is ended and gone before the table is asked.
    async fn settle(
        &mut self,
        broken: Session,
        group: &[&NewSend],
        tail: u64,
        give_up: Instant,
    ) -> Option<(Session, Option<Appended>)> {
        let backend = broken.backend();
        drop(broken);
        let mut pause = SHORTEST_RETRY;
        loop {
            let attempt = async {
                let mut session = self.open_session().await?;
                session.end_backend(backend).await?;
                let found = session.find(group, tail, self.last_known).await?;
                Ok::<_, StoreError>((session, found))
            };
            match tokio::time::timeout_at(give_up, attempt).await {
                Ok(Ok(settled)) => return Some(settled),
                Ok(Err(error)) => info!(error = error.summary(), "not settled yet"),
                Err(_) => return None,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// After a lock timeout: whoever stopped while holding the lane must not stop everyone.
    async fn free_lane(&mut self, mut session: Session) -> Session {
        match session.end_stale_lane_holder().await {
            Ok(Some(holder)) => {
                self.metrics.lane_holders_ended.inc();
                warn!(
                    backend_pid = holder.pid,
                    "ended a session that had held the lane for over 5 s"
                );
            }
            Ok(None) => {}
            Err(error) => {
                warn!(error = error.summary(), "could not look for a stopped lane holder")
            }
        }
        session
    }

    fn count_settled(&self, outcome: &'static str) {
        self.metrics.outcomes_settled.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

fn set_repeats_aside(group: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
    let mut seen = HashSet::new();
    group.into_iter().partition(|waiting| {
        let NewSend { key, .. } = &waiting.send;
        key.as_ref().is_none_or(|key| seen.insert((waiting.send.app().clone(), key.key.clone())))
    })
}

/// The answer to a request whose key is known.
fn repeat(send: &NewSend, answered: Answered) -> Result<Stored, SendError> {
    match (&send.key, answered.first) {
        (Some(key), Some(first)) if key.fingerprint == answered.fingerprint => {
            let Answered { count, at, .. } = answered;
            Ok(Stored { first, count, created_at: at, replayed: true })
        }
        _ => Err(SendError::KeyMismatch),
    }
}

const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Postgres answered, and would answer the same again: no privilege, no such procedure, read-only.
fn is_refusal(state: &str) -> bool {
    ["25", "28", "42", "0A", "3D", "3F"].iter().any(|class| state.starts_with(class))
}
