//! What one of the instances does for all, at the start and every hour: partitions ahead, and what is
//! older than the retention goes. Which one is decided by a lock in the database.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::database::Database;
use crate::metrics::Metrics;
use crate::retention::{Removal, Retention};
use crate::store::{Maintenance, StoreError};

const EVERY: Duration = Duration::from_secs(3600);
/// Another has the lock for a moment, or a long query is in the way. Appends queue up behind each attempt
/// to add a partition for up to its lock timeout of 100 ms, so while a dump refuses them, they become rarer.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// The instance's share in it.
#[derive(Debug)]
pub struct Maintainer {
    /// Whose.
    pub database: Arc<Database>,
    /// How long notifications are kept.
    pub retention: Retention,
    /// What to count.
    pub metrics: Arc<Metrics>,
}

impl Maintainer {
    /// Runs for as long as the program does.
    pub async fn run_forever(self) {
        self.database.prepared().await;
        let mut retry = SHORTEST_RETRY;
        loop {
            let pause = match self.round().await {
                Ok(true) => EVERY,
                Ok(false) => retry,
                Err(error) if error.is_refusal() => {
                    warn!(error = error.summary(), "may not maintain the partitions");
                    EVERY
                }
                Err(error) => {
                    info!(
                        error = error.summary(),
                        "could not maintain the partitions; trying again soon"
                    );
                    retry
                }
            };
            retry = if pause == EVERY { SHORTEST_RETRY } else { (retry * 2).min(LONGEST_RETRY) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether all is done. What another does meanwhile may not be all: its retention can be a longer one.
    async fn round(&self) -> Result<bool, StoreError> {
        let done = match self.database.store().maintenance().await? {
            Some(mut maintenance) => {
                let done = self.maintain(&mut maintenance).await?;
                maintenance.end().await;
                done
            }
            None => false,
        };
        self.measure().await?;
        Ok(done)
    }

    async fn maintain(&self, maintenance: &mut Maintenance) -> Result<bool, StoreError> {
        let ahead = maintenance.extend_partitions().await;
        match &ahead {
            Ok(0) => {}
            Ok(added) => info!(added, "made partitions ahead"),
            Err(error) if error.is_lock_timeout() => {
                info!("no partitions can be made ahead while a dump or a long query runs; later");
            }
            Err(_) => return ahead.map(|_| true),
        }
        let apps = self.database.store().app_retentions(self.retention.now()).await?;
        let idle = apps.iter().filter(|app| !app.effective).count();
        if idle > 0 {
            warn!(
                apps = idle,
                "a retention in tidings.app_setting has no effect if it is longer than TIDINGS_RETENTION"
            );
        }
        let in_use =
            self.retention.enforce(maintenance, &apps, |removal| self.note(&removal)).await?;
        if let Some(partition) = &in_use {
            info!(
                partition = partition.name,
                state = partition.state,
                "an old partition is in use, by a dump or an old snapshot; its removal goes on later"
            );
        }
        Ok(ahead.is_ok() && in_use.is_none())
    }

    fn note(&self, removal: &Removal) {
        match removal {
            Removal::Partition(partition) => {
                self.metrics.partitions_removed.inc();
                info!(
                    partition = partition.name,
                    rows_estimate = partition.rows_estimate,
                    bytes = partition.bytes,
                    "removed a partition that was older than the retention"
                );
            }
            Removal::AppRows { rows, .. } => {
                self.metrics.app_rows_deleted.inc_by(rows.unsigned_abs());
                info!(rows, "deleted rows of an app that were older than its own retention");
            }
        }
    }

    async fn measure(&self) -> Result<(), StoreError> {
        let store = self.database.store();
        let overdue = store.overdue_partitions(self.retention.now()).await?.len();
        self.metrics.partitions_overdue.set(overdue as i64);
        let oldest = store.oldest().await?.map_or(0, |id| id.ms() / 1000);
        self.metrics.oldest_notification.set(oldest as i64);
        Ok(())
    }
}
