//! Commits one group, and when the call breaks off finds out what became of it, so that nothing is
//! stored twice and nothing is said to be lost that may be stored.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{LONGEST_RETRY, SHORTEST_RETRY, Writer};
use crate::metrics::Outcome;
use crate::notification::NewSend;
use crate::queue::Waiting;
use crate::sender::SendError;
use crate::store::{Appended, Session, StoreError};

/// How long one call may take; its waiting for the lane is bounded in the session.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);
/// How long the outcome of a broken call is looked for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);

impl Writer {
    /// Commits a group once, whatever breaks, or says why not.
    pub(super) async fn commit(&mut self, group: &[Waiting]) -> Result<Appended, SendError> {
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
            if error.is_bad_data() {
                self.session = Some(session);
                return Err(SendError::Refused(error.summary()));
            }
            session = if error.is_lock_timeout() {
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
            if Instant::now() >= give_up || is_refusal(&error) {
                self.session = Some(session);
                return Err(match error.is_lock_timeout() {
                    true => SendError::Overloaded,
                    false => SendError::Unreachable,
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
        self.metrics.outcomes_settled.get_or_create(&Outcome { outcome }).inc();
    }
}

/// Postgres answered, and would answer the same again: no privilege, no such procedure, read-only.
fn is_refusal(error: &StoreError) -> bool {
    let state = error.sqlstate().unwrap_or_default();
    ["25", "28", "42", "0A", "3D", "3F"].iter().any(|class| state.starts_with(class))
}
