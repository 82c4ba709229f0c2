//! Calls that change something beside the feed and commit by themselves: state, withdrawals, scheduled
//! sends. Each is durable when it is answered; where no answer came, the outcome is unknown.

use super::{QUERY_DEADLINE, Store, StoreError, within};

/// Why a change was not acknowledged. All but `OutcomeUnknown` mean: certainly not done.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another held a lock for too long.
    #[error("a lock was not to be had: {0}")]
    Busy(StoreError),
    /// No session in time: all are taken, or the database is away.
    #[error("no session was to be had: {0}")]
    NoSession(StoreError),
    /// The database refuses us.
    #[error("the database refuses it: {0}")]
    Refused(StoreError),
    /// The call broke off.
    #[error("the outcome is not known: {0}")]
    OutcomeUnknown(StoreError),
}

impl Store {
    /// Calls a procedure that commits, on a session for changes.
    pub(super) async fn change<T>(
        &self,
        call: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, ChangeError> {
        let mut lease = self.lease(&self.changes).await.map_err(ChangeError::NoSession)?;
        let error = match within(QUERY_DEADLINE, call(lease.conn())).await {
            Ok(answer) => {
                lease.end();
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.sqlstate().unwrap_or_default().as_str() {
            // Answered before a commit begins alone: no lock in time, and a deadlock.
            "55P03" | "40P01" => {
                lease.end();
                Err(ChangeError::Busy(error))
            }
            state
                if error.is_bad_data()
                    || ["25", "28", "42", "3F"].iter().any(|class| state.starts_with(class)) =>
            {
                Err(ChangeError::Refused(error))
            }
            _ => Err(ChangeError::OutcomeUnknown(error)),
        }
    }
}
