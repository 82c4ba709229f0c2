//! One instance: wires the parts together, runs them, and takes them down in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::database::{Database, UnusableDatabase};
use crate::drainer::Drainer;
use crate::feed::Feed;
use crate::http;
use crate::hub::Hub;
use crate::maintenance::Maintainer;
use crate::metrics::Metrics;
use crate::replayer::Replayer;
use crate::retention::Retention;
use crate::server::Server;
use crate::shutdown::{Drain, Shutdown};
use crate::store::Store;
use crate::subscription::Streams;
use crate::writer::Writer;

/// Groups on their way from the writer to the hub; what does not fit is read from the table.
const OWN_GROUPS: usize = 16;

/// Why an instance could not run, or did not end in good order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address of the database cannot be understood.
    #[error("DATABASE_URL is not a Postgres URL: {0}; write it like postgres://user@host/database")]
    InvalidUrl(sqlx::Error),
    /// The database is there, but not for us.
    #[error(transparent)]
    Database(#[from] UnusableDatabase),
    /// Streams or sends were cut off.
    #[error(
        "the drain was over, by its time or a second signal, before everything had ended; the rest was cut off"
    )]
    CutOff,
}

/// Serves on `listener` until `shutdown`. The database may be away at the start and at any time.
pub async fn run(
    config: Config,
    database_url: &str,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    #[cfg(feature = "mutants")]
    let config = crate::mutant::with_small_bounds(config);
    let metrics = Arc::new(Metrics::new());
    let direct_url = config.direct_database_url.as_deref();
    let store = Store::new(database_url, direct_url).map_err(RunError::InvalidUrl)?;
    let database = Arc::new(Database::new(store, metrics.database_up.clone()));
    let hub = Arc::new(Hub::new(config.limits.ring_bytes, metrics.clone()));
    let clock = config.limits.clock;
    let closing = CancellationToken::new();

    let (to_feed, own_groups) = mpsc::channel(OWN_GROUPS);
    let (writer, sender) = Writer::new(database.clone(), clock, metrics.clone(), to_feed);
    let feed = Feed::new(database.clone(), hub.clone(), clock, metrics.clone(), own_groups);
    let (replayer, replays) = Replayer::new(database.clone(), config.limits.page, metrics.clone());
    let streams = Arc::new(Streams {
        hub,
        replayer,
        database: database.clone(),
        clock,
        heartbeat: config.heartbeat,
        drain: Drain::new(closing.clone(), config.drain),
        metrics: metrics.clone(),
    });
    let leaving = shutdown.graceful.clone();
    let handlers = http::Server::new(config.clone(), sender.clone(), streams.clone(), leaving);
    let router = http::router(handlers.clone());
    let open = metrics.connections.clone();
    let server = Server::new(router, config.max_connections, &config.limits, open);

    let drainer = Drainer::new(database.clone(), clock, metrics.clone());
    let maintainer = Maintainer {
        database: database.clone(),
        retention: Retention { keep: config.retention, clock },
        metrics: metrics.clone(),
    };
    let background = [
        tokio::spawn(feed.run_forever()),
        tokio::spawn(replays),
        tokio::spawn(sender.clone().expire_forever(database.clone())),
        tokio::spawn(handlers.end_stalled_streams_forever()),
        tokio::spawn(drainer.run_forever()),
        tokio::spawn(maintainer.run_forever()),
    ];
    let mut writer = tokio::spawn(writer.run());
    let mut server = tokio::spawn(server.run(listener, closing));

    let prepared = tokio::select! {
        prepared = database.prepare(config.migrate) => prepared,
        () = shutdown.graceful.cancelled() => Ok(()),
    };
    let ended = match prepared {
        Err(error) => Err(error.into()),
        Ok(()) => {
            shutdown.graceful.cancelled().await;
            info!(drain_seconds = config.drain.as_secs_f64(), "shutting down");
            wait_or_hurry(config.drain_delay, &shutdown).await;
            streams.drain.begin();
            let deadline = Instant::now() + config.drain;
            let orderly = timeout_at(deadline, async {
                // Sends come in over the server's connections, so these first.
                let _ = (&mut server).await;
                sender.close();
                let _ = (&mut writer).await;
                // Nobody is left to read for, and their reads would fail on the closed pool.
                background.iter().for_each(|task| task.abort());
                database.store().close().await;
            });
            tokio::select! {
                ended = orderly => ended.map_err(|_| RunError::CutOff),
                () = shutdown.now.cancelled() => Err(RunError::CutOff),
            }
        }
    };
    if let Err(RunError::CutOff) = &ended {
        warn!("cutting off what has not ended");
    }
    server.abort();
    writer.abort();
    background.iter().for_each(|task| task.abort());
    ended
}

async fn wait_or_hurry(delay: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = shutdown.now.cancelled() => {}
    }
}
