//! The settings as flags. Every value stays text here: `Config` reads it, so that a bad one gets
//! the same sentence whether it came from a flag, the environment or `.env`.

use clap::Args;

/// Every setting of `tidings serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    #[command(flatten)]
    /// How the server listens and what it bounds.
    pub server: ServerFlags,
    #[command(flatten)]
    /// Which database keeps everything.
    pub database: DatabaseFlags,
    #[command(flatten)]
    /// How long it is kept.
    pub retention: RetentionFlags,
    #[command(flatten)]
    /// What is logged, and how.
    pub log: LogFlags,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
/// How the server listens and what it bounds.
pub struct ServerFlags {
    /// Address and port to listen on [env: TIDINGS_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Allow listening beyond loopback: whoever can connect can read and send everything
    /// [env: TIDINGS_ALLOW_UNAUTHENTICATED] [default: off]
    #[arg(long, value_name = "ON|OFF", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub allow_unauthenticated: Option<String>,
    /// Origins whose web pages may send and subscribe, such as `https://app.example`, separated by
    /// commas; * for all; none by default [env: TIDINGS_CORS_ORIGINS]
    #[arg(long, value_name = "ORIGINS")]
    pub cors_origins: Option<String>,
    /// Time between the pings of a stream [env: TIDINGS_HEARTBEAT] [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<String>,
    /// Time that streams and sends in flight get to end at shutdown [env: TIDINGS_DRAIN]
    /// [default: 20s]
    #[arg(long, value_name = "TIME")]
    pub drain: Option<String>,
    /// Time the listener stays open at shutdown after /readyz turned 503, for load balancers to
    /// notice [env: TIDINGS_DRAIN_DELAY] [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub drain_delay: Option<String>,
    /// Streams held at once; by default the limit on open files, which the server raises to
    /// its hard limit, less 200 for its own use [env: TIDINGS_MAX_CONNECTIONS]
    #[arg(long, value_name = "COUNT")]
    pub max_connections: Option<String>,
    /// Largest data of one notification, in bytes [env: TIDINGS_MAX_DATA] [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub max_data: Option<String>,
    /// Largest body of one request, in bytes [env: TIDINGS_MAX_BODY] [default: 8388608]
    #[arg(long, value_name = "BYTES")]
    pub max_body: Option<String>,
    /// Bring the database's schema up to date at start [env: TIDINGS_MIGRATE] [default: on]
    #[arg(long, value_name = "ON|OFF")]
    pub migrate: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Database")]
/// Which database keeps everything.
pub struct DatabaseFlags {
    /// PostgreSQL to keep everything in; without it Tidings runs a private one. Other users of the
    /// machine can read a flag, so put a password in the variable [env: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// The same database not through the pooler, when --database-url goes through one
    /// [env: TIDINGS_DIRECT_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub direct_database_url: Option<String>,
    /// Folder of the private PostgreSQL's data; by default tidings in the user's data folder, as
    /// root /var/lib/tidings [env: TIDINGS_DATA_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Folder of the programs initdb and postgres; by default they are looked for
    /// [env: TIDINGS_POSTGRES_BIN]
    #[arg(long, value_name = "FOLDER")]
    pub postgres_bin: Option<String>,
    /// User that the private PostgreSQL runs as when Tidings runs as root; by default postgres,
    /// else nobody [env: TIDINGS_POSTGRES_USER]
    #[arg(long, value_name = "USER")]
    pub postgres_user: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Database")]
/// How long notifications are kept.
pub struct RetentionFlags {
    /// Time that notifications are kept, 1d to 365d; removed are whole days
    /// [env: TIDINGS_RETENTION] [default: 30d]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
/// What is logged, and how.
pub struct LogFlags {
    /// What to log: off, error, warn, info, debug or trace, for parts as in info,sqlx=warn
    /// [env: TIDINGS_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines are written, text or json [env: TIDINGS_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}
