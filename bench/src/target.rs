//! The server under measurement: one that already runs, or one started for each run.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::spawn::Server;
use crate::{Failure, Outcome};

const API: &str = "/api/notifications";

/// Where servers come from.
pub(crate) enum Source {
    Running { address: SocketAddr, database_url: Option<String> },
    Program { path: PathBuf, database_url: Option<String> },
}

/// One server to measure.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) server: Option<Server>,
    database_url: Option<String>,
}

impl Source {
    pub(crate) fn new(
        url: Option<&str>,
        program: Option<PathBuf>,
        database_url: Option<String>,
    ) -> Outcome<Self> {
        if let Some(url) = url {
            return Ok(Self::Running { address: address_of(url)?, database_url });
        }
        let path = match program {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name("tidings"),
        };
        Ok(Self::Program { path, database_url })
    }

    pub(crate) async fn open(&self) -> Outcome<Target> {
        let (address, server, database_url) = match self {
            Self::Running { address, database_url } => (*address, None, database_url),
            Self::Program { path, database_url } => {
                let server = Server::start(path, database_url.as_deref()).await?;
                (server.address, Some(server), database_url)
            }
        };
        Ok(Target { address, server, database_url: database_url.clone() })
    }
}

impl Target {
    /// The database behind the server, if it can be known.
    pub(crate) fn database_url(&self) -> Outcome<Option<String>> {
        match (&self.database_url, &self.server) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(server)) => server.database_url().map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The request that changes a user's state with a body of `length` bytes, up to the body.
pub(crate) fn state_head(address: SocketAddr, app: &str, user: &str, length: usize) -> String {
    format!(
        "POST {API}/state/{app}/{user} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// The request that sends a body of `length` bytes to `app/user` or to an app, up to the body.
pub(crate) fn send_head(address: SocketAddr, to: &str, length: usize) -> String {
    format!(
        "POST {API}/send/{to} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A request that sends one notification each to many users of an app.
pub(crate) fn send_to_many(address: SocketAddr, app: &str, users: &[String], data: &str) -> String {
    let users = serde_json::json!(users);
    let body = format!("{{\"to\":{{\"users\":{users}}},\"data\":{data}}}");
    post(address, &format!("send/{app}"), &body)
}

/// A request that sends a batch to one user.
pub(crate) fn send_batch(address: SocketAddr, app: &str, user: &str, datas: &[String]) -> String {
    let entry = |data| format!("{{\"to\":{{\"user\":\"{user}\"}},\"data\":{data}}}");
    let entries: Vec<String> = datas.iter().map(entry).collect();
    let body = format!("{{\"notifications\":[{}]}}", entries.join(","));
    post(address, &format!("batch/{app}"), &body)
}

fn post(address: SocketAddr, route: &str, body: &str) -> String {
    format!(
        "POST {API}/{route} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The request that opens a stream, after a cursor if there is one.
pub(crate) fn subscribe_head(
    address: SocketAddr,
    app: &str,
    user: &str,
    cursor: Option<ulid::Ulid>,
) -> String {
    let cursor = cursor.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
    format!(
        "GET {API}/subscribe/{app}/{user} HTTP/1.1\r\nHost: {address}\r\n\
         Accept: text/event-stream\r\n{cursor}\r\n"
    )
}

fn address_of(url: &str) -> Outcome<SocketAddr> {
    let wrong = || Failure::from(format!("--url is not of the form http://HOST:PORT: {url}"));
    let host = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
    let mut addresses = host.to_socket_addrs().map_err(|_| wrong())?;
    addresses.next().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        assert_eq!(address_of("http://127.0.0.1:8080/").unwrap(), ([127, 0, 0, 1], 8080).into());
        assert!(address_of("https://127.0.0.1:8080").is_err());
        assert!(address_of("http://127.0.0.1").is_err());
    }
}
