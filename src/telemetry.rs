//! Where the program's own words go: to stderr, as text or as JSON, so that stdout stays data.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::fmt;

use crate::config::{Config, LogFormat};

/// Starts logging as configured. A second call in one process (tests) changes nothing.
pub fn init(config: &Config) {
    // sqlx warns of every connection that ends with its server, passes Postgres' notices on, and quotes
    // what it ignores of a database's address, be it a secret; we say what each means to us.
    let filter = EnvFilter::new(format!(
        "sqlx_core=error,sqlx_postgres::options=error,sqlx::postgres::notice=warn,{}",
        config.log
    ));
    // A log that cannot be written, to a full disk or a closed pipe, ends nothing: by default that would
    // be complained about on stderr too, with a panic of whoever had something to say.
    let builder = fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    // `try_init` fails only if logging already runs, which is what the caller wants.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
