//! All SQL. Every query has one caller and a deadline on our side; a connection whose query did not
//! answer in time is closed, never returned to the pool.

mod app_retention;
mod append;
mod change;
mod epoch;
mod feed;
mod group;
mod history;
mod identity;
mod leftovers;
#[cfg(feature = "mutants")]
mod mutant;
mod outbox;
mod pooler;
pub(crate) mod replay;
mod retention;
mod scheduled;
mod schema;
mod settings;
mod settle;
mod state;

use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres};

pub use app_retention::AppRetention;
use epoch::Seen;
use identity::Identity;
use settings::{FOR_CHANGES, FOR_READS, FOR_REQUESTS, FOR_SESSIONS};

pub use append::{Appended, Session};
pub use change::ChangeError;
pub use feed::{FeedPage, Head, NewEpoch};
pub use group::{Answered, Outcome};
pub use history::{Filter, Found, HistoryPage, HistoryQuery, Listed, Order};
pub use leftovers::Leftovers;
pub use outbox::{DrainSession, Drained};
pub use replay::{Facts, PageEnd, ReplayPage, ReplayRequest, ReplayRow};
pub use retention::{Keep, Maintenance, Partition, Step};
pub use scheduled::{Cancelling, NewScheduled, Scheduled, Scheduling};
pub use schema::SchemaError;
pub use settle::LaneHolder;
pub use state::{Changed, Counts, State, StateChange, Subject};

/// Long enough for any query of ours on a busy machine, short enough to notice a frozen database.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(5);

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A connection that did nothing for longer is asked whether it is still one. Under load none is.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Where NOTIFY says that the feed has grown.
pub const WAKE_UP: &str = "tidings";

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Reads for requests, possibly through a pooler.
    requests: PgPool,
    /// They go another way than the rest, so through a pooler.
    pooled: bool,
    /// Reads for streams, never through one: however many histories are asked for, the feed has its
    /// turn.
    streams: PgPool,
    /// Changes of state and scheduled sends: these wait for each other's locks, and must not keep reads waiting.
    changes: PgPool,
    /// LISTEN, the writer and maintenance: these need a session of their own.
    direct: PgConnectOptions,
    /// Where these lead.
    identity: Arc<Mutex<Option<Identity>>>,
    seen: Arc<Seen>,
}

/// Changes under way at once: more would only wait for the lane.
const CHANGES: u32 = 4;

/// In pg_stat_activity the name tells what a connection is for.
fn named(options: &PgConnectOptions, part: &str) -> PgConnectOptions {
    let name = options.get_application_name().unwrap_or_default();
    options.clone().application_name(&format!("{name} {part}"))
}

fn pool(
    options: PgPoolOptions,
    database: PgConnectOptions,
    settings: Option<&'static str>,
    seen: Option<Arc<Seen>>,
) -> PgPool {
    options
        .acquire_timeout(CONNECT_DEADLINE)
        .after_connect(move |conn, _| {
            let seen = seen.clone();
            Box::pin(async move {
                if let Some(settings) = settings {
                    sqlx::raw_sql(settings).execute(&mut *conn).await?;
                }
                match seen {
                    Some(seen) => seen.check(conn).await,
                    None => Ok(()),
                }
            })
        })
        .connect_lazy_with(database)
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres answered with an error, or the connection broke.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// No answer in time; the connection was closed.
    #[error("the database did not answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The way to the database is a pooler that lends connections for a transaction or a statement.
    #[error(
        "the database is reached through a pooler that is not in session mode, where LISTEN hears nothing and no session lasts: set TIDINGS_DIRECT_DATABASE_URL to Postgres itself, or put the pooler into session mode"
    )]
    LentConnection,
    /// Sends would be stored in one, and histories read from the other.
    #[error(
        "DATABASE_URL and TIDINGS_DIRECT_DATABASE_URL lead to two different databases: let both name the same one, the first by way of the pooler, or set DATABASE_URL alone"
    )]
    OtherDatabase,
    /// No session has been had yet, so which database it ought to be is not known.
    #[error("the database was not reached yet")]
    Unknown,
    /// Nothing can be appended there, and LISTEN hears nothing.
    #[error("it is a standby: promote it, or name its primary")]
    Standby,
}

impl StoreError {
    /// The SQLSTATE, if Postgres answered.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            StoreError::Database(error) => Some(error.as_database_error()?.code()?.into_owned()),
            _ => None,
        }
    }

    /// The database cannot be asked at all, or does not answer.
    pub fn is_unreachable(&self) -> bool {
        use sqlx::Error::{Io, PoolTimedOut};
        matches!(self, StoreError::Deadline(_) | StoreError::Database(Io(_) | PoolTimedOut))
    }

    /// No session, or no answer, in the time allowed for it.
    pub fn is_timeout(&self) -> bool {
        matches!(self, StoreError::Deadline(_) | StoreError::Database(sqlx::Error::PoolTimedOut))
    }

    /// A lock was not had in the time allowed for it.
    pub fn is_lock_timeout(&self) -> bool {
        self.sqlstate().is_some_and(|state| state == "55P03")
    }

    /// Postgres refuses what it was given: no row of it was stored.
    pub fn is_bad_data(&self) -> bool {
        let state = self.sqlstate().unwrap_or_default();
        state.starts_with("22") || state.starts_with("23")
    }

    /// Waiting would not help: wrong password, no such database, no privilege.
    pub fn is_refusal(&self) -> bool {
        let state = self.sqlstate().unwrap_or_default();
        ["28", "3D", "42"].iter().any(|class| state.starts_with(class))
    }

    /// A sentence for the log. Postgres quotes the failing row in its DETAIL; that stays out.
    pub fn summary(&self) -> String {
        match self {
            StoreError::Database(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                format!("{} (SQLSTATE {code})", error.message())
            }
            other => other.to_string(),
        }
    }
}

impl Store {
    /// A store on `url`; sessions of their own go to `direct_url` if there is one. Nothing is
    /// connected before the first query.
    pub fn new(url: &str, direct_url: Option<&str>) -> Result<Store, sqlx::Error> {
        let options = |url| {
            PgConnectOptions::from_str(url).map(|o| {
                let name = o.get_application_name().unwrap_or("tidings").to_owned();
                o.application_name(&name)
                    // A pooler refuses what it does not know, and no query of ours has a float.
                    .extra_float_digits(None)
                    .log_statements(tracing::log::LevelFilter::Trace)
            })
        };
        let (url, direct) = (options(url)?, options(direct_url.unwrap_or(url))?);
        // Where there is a direct way, the first goes through a pooler: what is set in a session
        // there would be met by whoever gets it next.
        // Asking before each query costs a round trip. Not asking at all, each connection that the
        // database has closed meanwhile, as a restart does, would be one request that fails.
        let reads = || {
            PgPoolOptions::new().max_connections(4).test_before_acquire(false).before_acquire(
                |conn, meta| {
                    Box::pin(async move {
                        Ok(meta.idle_for < TRUSTED_IDLE || conn.ping().await.is_ok())
                    })
                },
            )
        };
        let pooled = direct_url.is_some();
        let settings = (!pooled).then_some(FOR_REQUESTS);
        let requests = pool(reads(), named(&url, "requests"), settings, None);
        let seen = Arc::new(Seen::default());
        let options = named(&direct, "streams");
        let streams = pool(reads(), options, Some(FOR_READS), Some(seen.clone()));
        // But what became of a change on one would not be known.
        let changes = PgPoolOptions::new().max_connections(CHANGES).test_before_acquire(true);
        let options = named(&direct, "changes");
        let changes = pool(changes, options, Some(FOR_CHANGES), Some(seen.clone()));
        let identity = Arc::default();
        Ok(Store { requests, pooled, streams, changes, direct, identity, seen })
    }

    /// Closes the pools once their connections are idle.
    pub async fn close(&self) {
        self.requests.close().await;
        self.streams.close().await;
        self.changes.close().await;
    }

    /// The database can be read and is a primary, and every way leads to it.
    pub async fn check(&self) -> Result<(), StoreError> {
        // The first query of all: a session, because that is checked for a pooler.
        let mut conn = self.session("check").await?;
        let row = within(QUERY_DEADLINE, async {
            let query = sqlx::query!("select pg_is_in_recovery() as standby");
            let row = query.fetch_one(&mut conn).await?;
            conn.close().await?;
            Ok(row)
        })
        .await?;
        match row.standby {
            Some(false) if self.pooled => self.check_way_for_requests().await,
            Some(false) => Ok(()),
            _ => Err(StoreError::Standby),
        }
    }

    /// A connection that listens for wake-ups, on a session of its own.
    pub async fn listen(&self) -> Result<PgListener, StoreError> {
        // The listener's own connection cannot be asked; another on the same way can.
        let session = self.session("check").await?;
        let _ = within(QUERY_DEADLINE, session.close()).await;
        let options = PgPoolOptions::new().max_connections(1);
        let one = pool(options, named(&self.direct, "listener"), Some(FOR_SESSIONS), None);
        within(QUERY_DEADLINE, async {
            let mut listener = PgListener::connect_with(&one).await?;
            // Whoever has it connects anew, so that no wake-up is lost unnoticed.
            listener.eager_reconnect(false);
            listener.listen(WAKE_UP).await?;
            Ok(listener)
        })
        .await
    }

    /// A connection that is ours until we close it.
    async fn session(&self, part: &str) -> Result<PgConnection, StoreError> {
        let options = named(&self.direct, part);
        let mut conn = within(CONNECT_DEADLINE, options.connect()).await?;
        self.check_own(&mut conn).await?;
        let identity = Identity::after(FOR_SESSIONS, &mut conn);
        self.note_identity(within(QUERY_DEADLINE, identity).await?);
        Ok(conn)
    }

    /// One for appending, to a database that is the one this instance knows.
    async fn appending_session(&self, part: &str) -> Result<PgConnection, StoreError> {
        let mut conn = self.session(part).await?;
        within(QUERY_DEADLINE, self.seen.check(&mut conn)).await?;
        Ok(conn)
    }

    /// Runs a read on a pooled connection. Should it fail to end, in time or because the caller
    /// went away, its connection is closed: an answer may still be on the way on it.
    async fn read<T>(
        &self,
        pool: &PgPool,
        query: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let mut lease = self.lease(pool).await?;
        let answer = within(QUERY_DEADLINE, query(lease.conn())).await?;
        lease.end();
        Ok(answer)
    }

    async fn lease(&self, pool: &PgPool) -> Result<Lease, StoreError> {
        Ok(Lease { conn: Some(within(CONNECT_DEADLINE, pool.acquire()).await?) })
    }
}

struct Lease {
    conn: Option<PoolConnection<Postgres>>,
}

impl Lease {
    fn conn(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("a lease holds its connection until it ends")
    }

    /// Nothing is under way: the connection may be used again.
    fn end(mut self) {
        self.conn.take();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Still here: the query has not ended well.
        if let Some(conn) = self.conn.take() {
            drop(conn.detach());
        }
    }
}

async fn within<T>(
    deadline: Duration,
    query: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Deadline(deadline)),
    }
}
