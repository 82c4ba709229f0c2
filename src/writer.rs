//! Group commit. One task and one connection per instance: whenever it is free it takes what waits,
//! appends it in one call, and answers each send after the commit (invariant 1).

mod commit;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::database::Database;
use crate::metrics::Metrics;
use crate::notification::{NewSend, Notification};
use crate::queue::{Queue, Waiting};
use crate::sender::{SendError, Sender, Stored};
use crate::store::{Answered, Appended, Outcome, Session, StoreError};

/// Rows of one group: beyond this a bigger group gains nothing.
const GROUP_ROWS: usize = 1000;
/// Bytes of one group: what one call may carry without holding the lane long.
const GROUP_BYTES: usize = 4 << 20;
/// A connection not used for this long is asked whether it lives: a round trip that nobody notices.
const IDLE: Duration = Duration::from_millis(500);
/// And a busy one is asked this often whether it is still ours.
const ASK_EVERY: Duration = Duration::from_secs(5);
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

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

/// The appending side.
pub struct Writer {
    queue: Arc<Queue>,
    database: Arc<Database>,
    clock: Clock,
    metrics: Arc<Metrics>,
    to_feed: mpsc::Sender<OwnGroup>,
    session: Option<Session>,
    /// The highest position known to be committed: where to look for a lost group. Above all until the
    /// database was asked; not zero, which is the head of an empty feed.
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
        let sender = Sender::new(queue.clone(), metrics.clone());
        let writer = Writer {
            queue,
            database,
            clock,
            metrics,
            to_feed,
            session: None,
            last_known: i64::MAX,
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
        self.last_known = head.min(self.last_known);
        Ok(session)
    }

    /// A connection that broke while it was idle would make the outcome of the first call on it
    /// unknown, which would be told after many seconds and in doubt instead of soon and for certain.
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
                    data: n.data.as_str().to_owned(),
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
