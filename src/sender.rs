//! The side of requests: hands a send in, and waits until it is told what became of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::database::Database;
use crate::event_id::EventId;
use crate::metrics::{Metrics, Outcome};
use crate::notification::NewSend;
use crate::queue::{Queue, Waiting};

/// How long a send waits for its turn before it is told that the database is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sending side: cheap to clone, used by every request.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

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

impl Sender {
    pub(crate) fn new(queue: Arc<Queue>, metrics: Arc<Metrics>) -> Sender {
        Sender { queue, metrics }
    }

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
        self.metrics.sends.get_or_create(&Outcome { outcome: label }).inc();
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
