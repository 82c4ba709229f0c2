//! `tidings prune`: by hand what the server does every hour, or only a look at what it would do.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::postgres;
use crate::retention::{Removal, Retention};
use crate::serve::{ServeError, by_hand};
use crate::store::{AppRetention, Maintenance, Partition, SchemaError, Store, StoreError};

/// A server that is adding or removing partitions has done so within it, unless it has many rows to delete.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug)]
pub struct Pruned {
    /// Is in use, so that it and those after it are still there.
    pub in_use: Option<Partition>,
    /// Have a retention of their own that changes nothing.
    pub idle: Vec<AppRetention>,
}

/// Why nothing, or not everything, was removed. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// It has never been started there.
    #[error(
        "there is no database: set DATABASE_URL, or TIDINGS_DATA_DIR if the private one is elsewhere"
    )]
    NoDatabase,
    /// Another version made it, or none.
    #[error("the database lacks {0} migration(s): run `tidings migrate` first")]
    NotMigrated(usize),
    /// A server, or another `tidings prune`.
    #[error(
        "somebody else is removing old notifications at this moment: try again when that is done"
    )]
    Occupied,
    /// A query failed.
    #[error("the database: {}", .0.summary())]
    Store(#[from] StoreError),
    /// The private Postgres, or the schema.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Removes what is older than the retention, or with `dry_run` changes nothing; tells `removed` of each
/// part.
pub async fn prune(
    config: &Config,
    dry_run: bool,
    removed: impl FnMut(Removal),
) -> Result<Pruned, PruneError> {
    let private = config.database_url.is_none();
    if private && !postgres::exists(&config.private_postgres).map_err(ServeError::from)? {
        return Err(PruneError::NoDatabase);
    }
    let retention = Retention { keep: config.retention, clock: config.limits.clock };
    by_hand(config, async |store| {
        store.check().await?;
        store.check_migrated().await.map_err(schema_error)?;
        let (apps, idle) = store
            .app_retentions(retention.now())
            .await?
            .into_iter()
            .partition::<Vec<_>, _>(|app| app.effective);
        let in_use = match dry_run {
            true => foresee(store, retention, &apps, removed).await.map(|()| None)?,
            false => {
                let mut maintenance = occupy(store).await?;
                let in_use = retention.enforce(&mut maintenance, &apps, removed).await?;
                maintenance.end().await;
                in_use
            }
        };
        Ok(Pruned { in_use, idle })
    })
    .await
}

async fn foresee(
    store: &Store,
    retention: Retention,
    apps: &[AppRetention],
    mut removed: impl FnMut(Removal),
) -> Result<(), StoreError> {
    for partition in store.overdue_partitions(retention.now()).await? {
        removed(Removal::Partition(partition));
    }
    for app in apps {
        match store.count_expired(app, retention.now()).await? {
            0 => {}
            rows => removed(Removal::AppRows { app: app.clone(), rows }),
        }
    }
    Ok(())
}

/// Takes the maintenance lock, which a server holds for a moment every hour.
async fn occupy(store: &Store) -> Result<Maintenance, PruneError> {
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        if let Some(maintenance) = store.maintenance().await? {
            return Ok(maintenance);
        }
        if Instant::now() > deadline {
            return Err(PruneError::Occupied);
        }
        sleep(LOCK_RETRY).await;
    }
}

fn schema_error(error: SchemaError) -> PruneError {
    match error {
        SchemaError::NotMigrated(missing) => PruneError::NotMigrated(missing),
        SchemaError::Store(error) => error.into(),
        other => ServeError::from(other).into(),
    }
}
