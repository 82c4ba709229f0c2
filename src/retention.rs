//! How long notifications are kept, and what happens to those that are older: partitions are removed
//! whole, and rows of apps with a shorter retention of their own in batches. Nothing here waits long or
//! makes a send wait; what is in use is left for later.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::store::{AppRetention, Keep, Leftovers, Maintenance, Partition, Step, StoreError};

/// Tries for one step, with a pause in between: on a busy database one of them usually meets no long
/// query. What lasts longer, a dump, is waited for by whoever calls again.
const MOST_TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Deleting takes this share of the time at most, so that sends keep the rest of the disk and the cores.
const ONE_IN: u32 = 5;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// How long notifications are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// By all apps; some may keep theirs for a shorter time (`tidings.app_setting`).
    pub keep: Duration,
    /// The instance's.
    pub clock: Clock,
}

/// What was removed.
#[derive(Debug)]
pub enum Removal {
    /// A partition with all its rows.
    Partition(Partition),
    /// Rows of one app.
    AppRows {
        /// Which, and how long it keeps them.
        app: AppRetention,
        /// How many.
        rows: i64,
    },
}

impl Retention {
    /// What is kept at this moment.
    pub fn now(&self) -> Keep {
        Keep { retention: self.keep, now: self.clock.now() }
    }

    /// Removes all that is older, and tells `removed` of each part. Returns the partition that is in use
    /// if one is: it and those after it are left for later.
    pub async fn enforce(
        &self,
        maintenance: &mut Maintenance,
        apps: &[AppRetention],
        mut removed: impl FnMut(Removal),
    ) -> Result<Option<Partition>, StoreError> {
        let in_use = self.remove_partitions(maintenance, &mut removed).await?;
        for app in apps.iter().filter(|app| app.effective) {
            let rows = self.delete_rows(maintenance, app).await?;
            if rows > 0 {
                removed(Removal::AppRows { app: app.clone(), rows });
            }
        }
        if in_use.is_none() {
            forget(maintenance).await?;
        }
        Ok(in_use)
    }

    async fn remove_partitions(
        &self,
        maintenance: &mut Maintenance,
        removed: &mut impl FnMut(Removal),
    ) -> Result<Option<Partition>, StoreError> {
        let mut tries = 0;
        while let Some((step, partition)) = maintenance.next_step(self.now()).await? {
            match maintenance.perform(step, &partition).await {
                Ok(()) => {
                    tries = 0;
                    if step == Step::Drop {
                        removed(Removal::Partition(partition));
                    }
                }
                Err(error) if error.is_lock_timeout() => {
                    tries += 1;
                    if tries == MOST_TRIES {
                        return Ok(Some(partition));
                    }
                    sleep(BETWEEN_TRIES).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn delete_rows(
        &self,
        maintenance: &mut Maintenance,
        app: &AppRetention,
    ) -> Result<i64, StoreError> {
        let mut rows = 0;
        for range in maintenance.expired_ranges(app, self.now()).await? {
            let Some(edge) = maintenance.move_app_edge(app, range).await? else { continue };
            let mut progress = Default::default();
            loop {
                let began = Instant::now();
                match maintenance.delete_expired(app, range, edge, &mut progress).await? {
                    0 => break,
                    deleted => rows += deleted,
                }
                rest(began).await;
            }
        }
        Ok(rows)
    }
}

/// Forgets what refers to rows that are gone.
async fn forget(maintenance: &mut Maintenance) -> Result<(), StoreError> {
    let mut next = Some(Leftovers::FIRST);
    while let Some(at) = next {
        let began = Instant::now();
        next = maintenance.forget(at).await?;
        rest(began).await;
    }
    Ok(())
}

/// Leaves the machine to the sends for a while.
async fn rest(began: Instant) {
    sleep((began.elapsed() * (ONE_IN - 1)).max(SHORTEST_PAUSE)).await;
}
