//! Moves the outbox into the feed, for as long as the program runs. Every instance tries; a lock in the
//! database lets one at a time do it. Nothing here is waited for, so every error only means: try again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::database::Database;
use crate::metrics::Metrics;
use crate::store::{DrainSession, Drained, StoreError};

/// While there is something to move.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// While there is nothing: how late the first send from SQL is at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Idempotency keys past their time count as absent anyway; this only keeps their table small.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Drains the outbox.
pub struct Drainer {
    database: Arc<Database>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Drainer {
    /// A drainer that is not running yet.
    pub fn new(database: Arc<Database>, clock: Clock, metrics: Arc<Metrics>) -> Drainer {
        Drainer { database, clock, metrics }
    }

    /// Runs for as long as the program does.
    pub async fn run_forever(self) {
        self.database.prepared().await;
        let mut retry = SHORTEST_PAUSE;
        loop {
            match self.database.store().drain_session().await {
                Ok(mut session) => {
                    let error = self.drain_until_error(&mut session, &mut retry).await;
                    self.after_error(session, &error).await;
                }
                Err(error) => debug!(error = error.summary(), "the drainer cannot connect"),
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }

    async fn drain_until_error(
        &self,
        session: &mut DrainSession,
        retry: &mut Duration,
    ) -> StoreError {
        let mut pause = SHORTEST_PAUSE;
        let mut forget_at = Instant::now();
        loop {
            if Instant::now() >= forget_at {
                match session.forget_old().await {
                    Ok(true) => {}
                    Ok(false) => forget_at = Instant::now() + FORGET_EVERY,
                    Err(error) => return error,
                }
            }
            let started = Instant::now();
            let drained = match self.drain_once(session).await {
                Ok(drained) => drained,
                Err(error) => return error,
            };
            *retry = SHORTEST_PAUSE;
            if drained.more {
                pause = SHORTEST_PAUSE;
                continue;
            }
            // Where looking is slow, since an old snapshot keeps what was moved, look less often.
            let look = started.elapsed().min(LONGEST_PAUSE);
            pause = match drained.moved {
                0 => (pause * 2).max(look * 4).min(LONGEST_PAUSE),
                _ => SHORTEST_PAUSE.max(look),
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn drain_once(&self, session: &mut DrainSession) -> Result<Drained, StoreError> {
        let now = self.clock.now();
        let drained = session.drain(now.timestamp_millis()).await?;
        self.metrics.outbox_rows.inc_by(drained.moved);
        let age = drained.oldest.map_or(0.0, |oldest| (now - oldest).as_seconds_f64().max(0.0));
        self.metrics.outbox_age_seconds.set(age);
        if !drained.more {
            session.rotate().await?;
        }
        Ok(drained)
    }

    async fn after_error(&self, mut session: DrainSession, error: &StoreError) {
        if error.sqlstate().is_none() {
            debug!(error = error.summary(), "the drainer's connection broke");
            return;
        }
        warn!(error = error.summary(), "the outbox could not be drained; trying again");
        if error.is_lock_timeout()
            && let Ok(Some(holder)) = session.end_stale_lane_holder().await
        {
            self.metrics.lane_holders_ended.inc();
            info!(backend_pid = holder.pid, "ended a session that had held the lane for over 5 s");
        }
        session.close().await;
    }
}
