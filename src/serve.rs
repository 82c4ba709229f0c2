//! `tidings serve`: the database, the listener, what a new user has to know, and the instance.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;

use crate::config::{Config, raise_open_file_limit};
use crate::instance::{self, RunError};
use crate::postgres::{self, PrivatePostgres};
use crate::server;
use crate::shutdown::Shutdown;
use crate::store::{SchemaError, Store};

/// Why the server did not start, or did not end in good order. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else has the port, or it is not ours to take.
    #[error(
        "{address} cannot be listened on: {error}; stop what uses it or choose another with TIDINGS_LISTEN"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The private Postgres.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The instance itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The schema could not be brought up to date.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Signals, threads, standard output.
    #[error("the system refuses what a server needs: {0}")]
    System(#[from] io::Error),
}

/// Runs the server until a signal ends it.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let open_files = raise_open_file_limit();
    let shutdown = Shutdown::on_signals()?;
    // First the port, which is quick to find taken, then a database that may take seconds.
    let address = config.listen;
    let listener =
        server::listen(address).map_err(|error| ServeError::Listen { address, error })?;
    let address = listener.local_addr()?;
    let private = match config.database_url {
        Some(_) => None,
        None => Some(start_private(config.private_postgres.clone()).await?),
    };
    let url = match (&private, &config.database_url) {
        (Some(private), _) => private.url(),
        (None, url) => url.clone().unwrap_or_default(),
    };
    announce(&config, address, private.as_deref(), open_files)?;
    let ended = instance::run(config, &url, listener, shutdown).await;
    if let Some(private) = private {
        tokio::task::spawn_blocking(move || private.stop()).await.map_err(io::Error::other)?;
    }
    Ok(ended?)
}

/// Brings the schema of the configured database up to date. Returns how many migrations that took.
pub async fn migrate(config: &Config) -> Result<usize, ServeError> {
    by_hand(config, async |store| Ok(store.migrate().await?)).await
}

/// Brings the schema up to date after a restore, and opens an epoch: what clients have seen of rows that
/// are not there any more is told as lost. Returns the number of migrations, and that of the epoch.
pub async fn migrate_after_restore(config: &Config) -> Result<(usize, i32), ServeError> {
    by_hand(config, async |store| {
        Ok((store.migrate().await?, store.open_epoch().await.map_err(SchemaError::from)?))
    })
    .await
}

/// Does something to the configured database; to the private one through a server that runs on it, else
/// by starting it for as long as this takes.
pub(crate) async fn by_hand<T, E>(
    config: &Config,
    work: impl AsyncFnOnce(&Store) -> Result<T, E>,
) -> Result<T, E>
where
    E: From<ServeError>,
{
    let settings = config.private_postgres.clone();
    let mut private = None;
    let url = match config.direct_database_url.as_ref().or(config.database_url.as_ref()) {
        Some(url) => url.clone(),
        None => match postgres::running_url(&settings).map_err(ServeError::from)? {
            Some(url) => url,
            None => private.insert(start_private(settings).await?).url(),
        },
    };
    let store =
        Store::new(&url, None).map_err(|error| ServeError::from(RunError::InvalidUrl(error)))?;
    let done = work(&store).await;
    store.close().await;
    if let Some(private) = private {
        let stopped = tokio::task::spawn_blocking(move || private.stop()).await;
        stopped.map_err(|error| ServeError::from(io::Error::other(error)))?;
    }
    done
}

async fn start_private(settings: postgres::Settings) -> Result<Arc<PrivatePostgres>, ServeError> {
    let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(&settings)).await;
    Ok(Arc::new(started.map_err(io::Error::other)??))
}

/// What a person needs for the first minute, on standard output; a URL's password is not in it.
fn announce(
    config: &Config,
    address: SocketAddr,
    private: Option<&PrivatePostgres>,
    open_files: u64,
) -> io::Result<()> {
    let (data, psql) = match private {
        Some(private) => {
            (format!("{} (a private Postgres)", private.data_dir().display()), private.psql())
        }
        None => {
            let options =
                config.database_url.as_deref().and_then(|url| PgConnectOptions::from_str(url).ok());
            let place = options.map(|o| {
                let host = o
                    .get_socket()
                    .map_or_else(|| o.get_host().to_owned(), |dir| dir.display().to_string());
                format!("database {} on {host}", o.get_database().unwrap_or(o.get_username()))
            });
            (place.unwrap_or_default(), "psql \"$DATABASE_URL\"".to_owned())
        }
    };
    let api = format!("http://{address}/api/notifications");
    let max_connections = config.max_connections;
    let text = format!(
        "Tidings {version} listens on http://{address} (documentation: http://{address}/docs)\n\
         Data: {data}\n\
         SQL: {psql}\n\
         Up to {max_connections} streams at once ({open_files} open files)\n\
         \n\
         Subscribe, send, and look back:\n  \
         curl -N {api}/subscribe/shop/ada\n  \
         curl -d 'Your parcel is on its way' -H 'content-type: text/plain' {api}/send/shop/ada\n  \
         curl {api}/history/shop/ada\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    let mut stdout = io::stdout().lock();
    // Nobody needs to be listening.
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
