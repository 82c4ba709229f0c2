//! Configuration: one struct, read once at start, from flags, the environment and `.env`.
//!
//! A flag beats the environment, which beats `.env` in the working directory; an empty value is an
//! unset one. Nothing else in the crate reads the environment, and nothing here writes to it. A bad
//! value stops the start with one sentence that names the variable and the remedy.

mod flags;
mod layers;
mod open_files;
mod values;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::clock::Clock;
use crate::replayer::PageSize;

pub use flags::{DatabaseFlags, Flags, LogFlags, RetentionFlags, ServerFlags};
pub use layers::{Invalid, Layers};
pub use open_files::raise_open_file_limit;

use open_files::connections_within_open_files;

/// How one Tidings server runs. `Config::default()` has the documented defaults.
#[derive(Clone)]
pub struct Config {
    /// `DATABASE_URL`: the PostgreSQL that keeps everything. None: the private one.
    pub database_url: Option<String>,
    /// `TIDINGS_DIRECT_DATABASE_URL`: the same database without the pooler, for LISTEN and the
    /// writer, which need a session of their own.
    pub direct_database_url: Option<String>,
    /// `TIDINGS_DATA_DIR`, `TIDINGS_POSTGRES_BIN`, `TIDINGS_POSTGRES_USER`: the private Postgres.
    pub private_postgres: crate::postgres::Settings,
    /// `TIDINGS_LISTEN`: the address to accept connections on.
    pub listen: SocketAddr,
    /// `TIDINGS_CORS_ORIGINS`: the web pages' origins that may send and subscribe from a browser.
    pub cors_origins: CorsOrigins,
    /// `TIDINGS_HEARTBEAT`: the time between two pings of one stream.
    pub heartbeat: Duration,
    /// `TIDINGS_DRAIN`: how long streams and sends in flight may take to end at shutdown.
    pub drain: Duration,
    /// `TIDINGS_DRAIN_DELAY`: how long the listener stays open after `/readyz` turned 503, so that
    /// a load balancer notices first.
    pub drain_delay: Duration,
    /// `TIDINGS_MAX_CONNECTIONS`: streams held at once.
    pub max_connections: usize,
    /// `TIDINGS_MAX_DATA`: bytes of one notification's compact data.
    pub max_data: usize,
    /// `TIDINGS_MAX_BODY`: bytes of one request's body.
    pub max_body: usize,
    /// `TIDINGS_RETENTION`: how long notifications are kept.
    pub retention: Duration,
    /// `TIDINGS_MIGRATE`: whether the server brings the schema up to date when it starts.
    pub migrate: bool,
    /// `TIDINGS_ALLOW_UNAUTHENTICATED`: whether it may listen beyond loopback, where everyone who
    /// reaches it can read and send everything.
    pub allow_unauthenticated: bool,
    /// `TIDINGS_LOG`: which log lines are written, in the syntax of `tracing`'s filters.
    pub log: String,
    /// `TIDINGS_LOG_FORMAT`: text for people, JSON for machines.
    pub log_format: LogFormat,
    /// Bounds that nobody sets from outside; tests make them small.
    pub limits: Limits,
}

/// Which origins' pages may use the API from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// `*`: every page.
    Any,
    /// Only these, compared byte for byte; none when empty.
    Exactly(Vec<String>),
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

/// Bounds that no variable sets: their values are measured, and only tests have a reason to differ.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Events that the hub keeps for subscriptions that are a little behind, in bytes.
    pub ring_bytes: usize,
    /// How large one page of a replay may be.
    pub page: PageSize,
    /// For the first byte of a request, and for the rest of its head.
    pub header_timeout: Duration,
    /// A client that takes no byte for this long is gone or stalled; it comes back with its cursor.
    pub stalled_after: Duration,
    /// Where this instance takes its time from.
    pub clock: Clock,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 20,
            page: PageSize { rows: 500, bytes: 256 << 10 },
            header_timeout: Duration::from_secs(30),
            stalled_after: Duration::from_secs(60),
            clock: Clock::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: None,
            direct_database_url: None,
            private_postgres: crate::postgres::Settings::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            cors_origins: CorsOrigins::Exactly(Vec::new()),
            heartbeat: Duration::from_secs(10), // under the 30 to 60 s idle cut of common proxies
            drain: Duration::from_secs(20),     // under the 30 s after which orchestrators kill
            drain_delay: Duration::ZERO,
            max_connections: connections_within_open_files(),
            max_data: 64 * 1024,
            max_body: 8 * 1024 * 1024,
            retention: Duration::from_secs(30 * 24 * 60 * 60),
            migrate: true,
            allow_unauthenticated: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads every setting. The second part of the answer is sentences to warn with: unknown names,
    /// parameters of the database's address that nothing reads, and a connection limit that the open
    /// files cannot carry.
    pub fn load(flags: &Flags, layers: &Layers) -> Result<(Self, Vec<String>), Invalid> {
        let mut config = Self::default();
        config.read_database(&flags.database, layers)?;
        config.read_retention(&flags.retention, layers)?;
        config.read_log(&flags.log, layers)?;
        config.read_server(&flags.server, layers)?;
        config.check()?;
        let mut warnings = layers.unknown_names();
        warnings.extend(config.ignored_parameters());
        warnings.extend(config.too_many_connections());
        Ok((config, warnings))
    }

    fn read_database(&mut self, flags: &DatabaseFlags, layers: &Layers) -> Result<(), Invalid> {
        let plain = |value: &str| Ok(value.to_owned());
        let folder = |value: &str| Ok(PathBuf::from(value));
        self.database_url =
            layers.read("DATABASE_URL", &flags.database_url, values::database_url)?;
        self.direct_database_url = layers.read(
            "TIDINGS_DIRECT_DATABASE_URL",
            &flags.direct_database_url,
            values::database_url,
        )?;
        let private = &mut self.private_postgres;
        private.data_dir = layers.read("TIDINGS_DATA_DIR", &flags.data_dir, folder)?;
        private.bin_dir = layers.read("TIDINGS_POSTGRES_BIN", &flags.postgres_bin, folder)?;
        private.user = layers.read("TIDINGS_POSTGRES_USER", &flags.postgres_user, plain)?;
        Ok(())
    }

    fn read_retention(&mut self, flags: &RetentionFlags, layers: &Layers) -> Result<(), Invalid> {
        layers.set(&mut self.retention, "TIDINGS_RETENTION", &flags.retention, values::retention)
    }

    fn read_log(&mut self, flags: &LogFlags, layers: &Layers) -> Result<(), Invalid> {
        layers.set(&mut self.log, "TIDINGS_LOG", &flags.log, values::log_filter)?;
        layers.set(
            &mut self.log_format,
            "TIDINGS_LOG_FORMAT",
            &flags.log_format,
            values::log_format,
        )
    }

    fn read_server(&mut self, flags: &ServerFlags, layers: &Layers) -> Result<(), Invalid> {
        use values::{address, connections, duration, heartbeat, origins, size, switch};
        layers.set(&mut self.listen, "TIDINGS_LISTEN", &flags.listen, address)?;
        layers.set(&mut self.cors_origins, "TIDINGS_CORS_ORIGINS", &flags.cors_origins, origins)?;
        layers.set(&mut self.heartbeat, "TIDINGS_HEARTBEAT", &flags.heartbeat, heartbeat)?;
        layers.set(&mut self.drain, "TIDINGS_DRAIN", &flags.drain, duration)?;
        layers.set(&mut self.drain_delay, "TIDINGS_DRAIN_DELAY", &flags.drain_delay, duration)?;
        layers.set(
            &mut self.max_connections,
            "TIDINGS_MAX_CONNECTIONS",
            &flags.max_connections,
            connections,
        )?;
        layers.set(&mut self.max_data, "TIDINGS_MAX_DATA", &flags.max_data, size)?;
        layers.set(&mut self.max_body, "TIDINGS_MAX_BODY", &flags.max_body, size)?;
        layers.set(&mut self.migrate, "TIDINGS_MIGRATE", &flags.migrate, switch)?;
        layers.set(
            &mut self.allow_unauthenticated,
            "TIDINGS_ALLOW_UNAUTHENTICATED",
            &flags.allow_unauthenticated,
            switch,
        )
    }

    /// Only programs of this machine can connect. `::ffff:127.0.0.1` is loopback too.
    pub(crate) fn on_loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// What no single value shows.
    fn check(&self) -> Result<(), Invalid> {
        if self.direct_database_url.is_some() && self.database_url.is_none() {
            return Err(Invalid(
                "TIDINGS_DIRECT_DATABASE_URL (--direct-database-url) is set without DATABASE_URL \
                 (--database-url): set both, or for a database without a pooler DATABASE_URL alone"
                    .to_owned(),
            ));
        }
        if !self.on_loopback() && !self.allow_unauthenticated {
            return Err(Invalid(format!(
                "TIDINGS_LISTEN (--listen) is {}, which others can reach, and Tidings does not \
                 authenticate anyone yet: listen on 127.0.0.1 or [::1], or, where only trusted \
                 programs can connect, set TIDINGS_ALLOW_UNAUTHENTICATED=1 \
                 (--allow-unauthenticated)",
                self.listen
            )));
        }
        Ok(())
    }

    fn ignored_parameters(&self) -> Vec<String> {
        let urls = [
            ("DATABASE_URL", &self.database_url),
            ("TIDINGS_DIRECT_DATABASE_URL", &self.direct_database_url),
        ];
        let ignored = |(variable, url): (_, &Option<String>)| {
            let names = values::ignored_parameters(url.as_deref().unwrap_or_default());
            names.into_iter().map(move |name| {
                format!("{variable} has the parameter {name}, which is ignored: take it out")
            })
        };
        urls.into_iter().flat_map(ignored).collect()
    }

    fn too_many_connections(&self) -> Option<String> {
        let room = connections_within_open_files();
        (self.max_connections > room).then(|| {
            format!(
                "TIDINGS_MAX_CONNECTIONS is {}, but the limit on open files leaves room for {room}: \
                 raise that limit (ulimit -n, or LimitNOFILE= of the service)",
                self.max_connections
            )
        })
    }
}

/// The server that the client commands speak to: `TIDINGS_URL`, `--url`.
pub fn server_url(flag: &Option<String>, layers: &Layers) -> Result<Url, Invalid> {
    let default = "http://127.0.0.1:8080";
    let url = layers.read("TIDINGS_URL", flag, values::http_url)?;
    Ok(url.unwrap_or_else(|| Url::parse(default).expect("the default address is well formed")))
}

impl fmt::Debug for Config {
    /// By hand, so that no log line and no test failure prints a password. The destructuring makes
    /// the compiler ask about every new field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            database_url,
            direct_database_url,
            private_postgres,
            listen,
            cors_origins,
            heartbeat,
            drain,
            drain_delay,
            max_connections,
            max_data,
            max_body,
            retention,
            migrate,
            allow_unauthenticated,
            log,
            log_format,
            limits,
        } = self;
        let hidden = |url: &Option<String>| url.as_ref().map(|_| "(hidden)");
        f.debug_struct("Config")
            .field("database_url", &hidden(database_url))
            .field("direct_database_url", &hidden(direct_database_url))
            .field("private_postgres", private_postgres)
            .field("listen", listen)
            .field("cors_origins", cors_origins)
            .field("heartbeat", heartbeat)
            .field("drain", drain)
            .field("drain_delay", drain_delay)
            .field("max_connections", max_connections)
            .field("max_data", max_data)
            .field("max_body", max_body)
            .field("retention", retention)
            .field("migrate", migrate)
            .field("allow_unauthenticated", allow_unauthenticated)
            .field("log", log)
            .field("log_format", log_format)
            .field("limits", limits)
            .finish()
    }
}

#[cfg(test)]
mod tests;
