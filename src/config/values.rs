//! The text of one setting, read. A complaint continues the sentence "VARIABLE (--flag) …" and
//! ends with the remedy.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use super::{CorsOrigins, LogFormat};

/// Longer than this is a mistake, and adding it to a time could overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A faster heartbeat would be traffic without use.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// Partitions are days.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("is {text:?}: write a whole number and a unit, as in 500ms, 10s or 5m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let length = Duration::from_millis(number.saturating_mul(milliseconds));
    if length > LONGEST {
        return Err(format!("is {text:?}: write at most 365d"));
    }
    Ok(length)
}

pub(super) fn heartbeat(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < SHORTEST_HEARTBEAT {
        return Err(format!("is {text:?}: write at least 100ms"));
    }
    Ok(length)
}

pub(super) fn retention(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < SHORTEST_RETENTION {
        return Err(format!(
            "is {text:?}: write at least 1d; single apps can keep theirs for less, see \
             tidings.app_setting in docs/operations.md"
        ));
    }
    Ok(length)
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    positive(text)
        .ok_or_else(|| format!("is {text:?}: write a number of bytes above 0, as in 65536"))
}

pub(super) fn connections(text: &str) -> Result<usize, String> {
    positive(text).ok_or_else(|| format!("is {text:?}: write a number above 0, as in 10000"))
}

fn positive(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| *number > 0)
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "1" | "true" | "yes" => Ok(true),
        "off" | "0" | "false" | "no" => Ok(false),
        _ => Err(format!("is {text:?}: write on or off")),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("is {text:?}: write an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080")
    })
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("is {text:?}: write text or json")),
    }
}

/// `tracing` takes a word that is no level for a module's name and then logs nothing, so a bare
/// word must be a level here.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let bare = text.split(',').filter(|part| !part.contains(['=', '[', ']']));
    if !bare.into_iter().all(is_level) || EnvFilter::builder().parse(text).is_err() {
        return Err(format!(
            "is {text:?}: write off, error, warn, info, debug or trace, for parts of the program \
             as in info,sqlx=warn"
        ));
    }
    Ok(text.to_owned())
}

/// What sqlx reads of a connection URL beside `options[…]`. It ignores the rest.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// The parameters of a database's address that change nothing, by their names alone: a value may be a
/// secret.
pub(super) fn ignored_parameters(url: &str) -> Vec<String> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    let names = url.query_pairs().map(|(name, _)| name.into_owned());
    names
        .filter(|name| !PARAMETERS.contains(&name.as_str()) && !name.starts_with("options["))
        .collect()
}

/// Never repeats the text: it may hold a password.
pub(super) fn database_url(text: &str) -> Result<String, String> {
    let known = text.starts_with("postgres://") || text.starts_with("postgresql://");
    // A ? in a password makes a parameter of the rest.
    let torn = ignored_parameters(text).iter().any(|name| name.contains(['@', ':', '/']));
    if !known || torn || PgConnectOptions::from_str(text).is_err() {
        return Err("is not the address of a PostgreSQL database: write it as in \
                    postgres://user:password@host:5432/database, with %-escapes for / ? # @ : \
                    inside the password"
            .to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let wrong = || format!("is {text:?}: write the server's address, as in http://127.0.0.1:8080");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let fit = matches!(url.scheme(), "http" | "https")
        && url.query().is_none()
        && url.fragment().is_none();
    if fit { Ok(url) } else { Err(wrong()) }
}

pub(super) fn origins(text: &str) -> Result<CorsOrigins, String> {
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if parts == ["*"] {
        return Ok(CorsOrigins::Any);
    }
    parts.into_iter().map(origin).collect::<Result<_, _>>().map(CorsOrigins::Exactly)
}

/// Origins are compared byte for byte with what browsers send, so only that spelling may stand
/// here: anything else would never match, and nobody would see why.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Err("has * beside other origins: write * alone for all, or leave it out".to_owned());
    }
    let wrong = || {
        format!("has {text:?}: write scheme://host or scheme://host:port, without path or final /")
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let (_, authority) = text.split_once("://").ok_or_else(wrong)?;
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(wrong());
    }
    let origin = url.origin();
    let sent = if origin.is_tuple() { origin.ascii_serialization() } else { url.to_string() };
    if sent != text {
        return Err(format!("has {text:?}: write {sent}, which is what browsers send"));
    }
    Ok(sent)
}
