//! The database as the rest of the program sees it: being prepared, up, or away. Nothing ends because
//! it is away; everything waits, and readers of [`Database::is_up`] say so.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::store::{SchemaError, Store, StoreError};

const SHORTEST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// The store and what is known about it.
#[derive(Debug)]
pub struct Database {
    store: Store,
    state: watch::Sender<State>,
    up_gauge: Gauge,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    prepared: bool,
    up: bool,
    lent: bool,
}

/// Why the database cannot be used, whatever time is given.
#[derive(Debug, thiserror::Error)]
pub enum UnusableDatabase {
    /// The schema does not fit this version.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Postgres refuses us.
    #[error(
        "the database refuses tidings: {0}; check DATABASE_URL, or TIDINGS_DIRECT_DATABASE_URL where it is set, and the rights of its role"
    )]
    Refused(String),
    /// A pooler is in the way, or leads elsewhere.
    #[error(transparent)]
    Pooler(StoreError),
}

impl Database {
    /// Nothing is connected yet.
    pub fn new(store: Store, up_gauge: Gauge) -> Database {
        Database { store, state: watch::Sender::default(), up_gauge }
    }

    /// The queries.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The last query that checked was answered.
    pub fn is_up(&self) -> bool {
        let state = self.state.borrow();
        state.up && !state.lent
    }

    /// Notes whether the database answers.
    pub fn set_up(&self, up: bool) {
        let changed =
            self.state.send_if_modified(|state| std::mem::replace(&mut state.up, up) != up);
        if changed {
            self.up_gauge.set(up.into());
            match up {
                true => info!("the database answers"),
                false => warn!(
                    "the database cannot be reached; streams stay open and sends are refused until it is back"
                ),
            }
        }
    }

    /// Notes whether what the writer got is a connection of its own. On one that a pooler lends
    /// nothing can be appended safely, and reads come back by luck.
    pub fn set_lent(&self, lent: bool) {
        let changed =
            self.state.send_if_modified(|state| std::mem::replace(&mut state.lent, lent) != lent);
        if changed && lent {
            error!("{}", StoreError::LentConnection);
        }
    }

    /// Waits until the schema is known to be there.
    pub async fn prepared(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.state.subscribe().wait_for(|state| state.prepared).await;
    }

    /// The schema is known to be there.
    pub fn is_prepared(&self) -> bool {
        self.state.borrow().prepared
    }

    /// Waits for the database, then brings its schema up to date, or only checks it.
    pub async fn prepare(&self, migrate: bool) -> Result<(), UnusableDatabase> {
        let mut pause = SHORTEST_RETRY;
        loop {
            let error = match self.try_prepare(migrate).await {
                Ok(()) => break,
                Err(SchemaError::Store(error)) => error,
                Err(error) => return Err(error.into()),
            };
            if matches!(error, StoreError::LentConnection | StoreError::OtherDatabase) {
                return Err(UnusableDatabase::Pooler(error));
            }
            if error.is_refusal() {
                return Err(UnusableDatabase::Refused(error.summary()));
            }
            warn!(error = error.summary(), "waiting for the database");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
        self.state.send_modify(|state| state.prepared = true);
        self.set_up(true);
        Ok(())
    }

    async fn try_prepare(&self, migrate: bool) -> Result<(), SchemaError> {
        self.store.check().await?;
        if !migrate {
            return self.store.check_migrated().await;
        }
        match self.store.migrate().await? {
            0 => {}
            count => info!(count, "migrated the database"),
        }
        #[cfg(feature = "mutants")]
        self.store.mutate().await?;
        Ok(())
    }
}
