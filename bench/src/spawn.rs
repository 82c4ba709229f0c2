//! A server of our own: fresh data folder, free port, its own private Postgres. It is stopped and its
//! folder removed when the value is dropped, also when a check failed or ctrl-C came.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::Connection;
use crate::{Outcome, random_name};

const START: Duration = Duration::from_secs(60); // initdb takes seconds on a slow disk
const STOP: Duration = Duration::from_secs(40); // the default drain and the database's stop
const KEPT_LINES: usize = 200;

/// A running server process.
pub(crate) struct Server {
    process: Child,
    pub(crate) program: PathBuf,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    lines: Lines,
}

impl Server {
    /// Starts `program`; with a `database_url` on that database, else on a private one.
    pub(crate) async fn start(program: &Path, database_url: Option<&str>) -> Outcome<Self> {
        let program = std::path::absolute(program)?;
        if !program.is_file() {
            let remedy = "build it with `cargo build --release`, or name it with --spawn";
            return Err(format!("{} is not there: {remedy}", program.display()).into());
        }
        let folder = std::env::temp_dir().join(random_name("tidings-bench"));
        std::fs::create_dir(&folder)?;
        let address = free_address()?;
        let mut command = Command::new(&program);
        // In its own folder, so that no `.env` of the caller's changes what is measured.
        command.current_dir(&folder).args(["--listen", &address.to_string()]);
        command.env("TIDINGS_DATA_DIR", &folder).env("DATABASE_URL", database_url.unwrap_or(""));
        command.env("TIDINGS_DRAIN", "2s"); // nothing is measured in the drain
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let lines = Lines::default();
        lines.follow(process.stdout.take());
        lines.follow(process.stderr.take());
        let mut server = Self { process, program, folder, address, lines };
        server.ready().await?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The private database, through the socket folder in the `psql` line printed at start.
    pub(crate) fn database_url(&self) -> Outcome<String> {
        let found = self.lines.find(|line| socket_folder(line).map(str::to_owned));
        let folder = found.ok_or("the server printed no `psql -h FOLDER …` line at start")?;
        let host = utf8_percent_encode(&folder, NON_ALPHANUMERIC);
        Ok(format!("postgres://tidings@localhost/tidings?host={host}"))
    }

    async fn ready(&mut self) -> Outcome<()> {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Err(format!("the server ended at start ({status}):\n{}", self.lines).into());
            }
            if let Ok(mut connection) = Connection::open(self.address).await
                && let Ok(answer) = connection.call(request.as_bytes()).await
                && answer.status == 200
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the server was not ready within {START:?}:\n{}", self.lines).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!("the server did not stop within {STOP:?} and was killed");
                let _ = self.process.kill();
                let _ = self.process.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Free now; another process may take it first, and then the server's start says so.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// `FOLDER` in `psql -h FOLDER -U tidings tidings`, quoted or not.
fn socket_folder(line: &str) -> Option<&str> {
    let rest = line.split_once("psql -h ")?.1;
    let (folder, _) = match rest.chars().next()? {
        quote @ ('\'' | '"') => rest[1..].split_once(quote)?,
        _ => rest.split_once(' ').unwrap_or((rest, "")),
    };
    Some(folder)
}

/// The last lines the server printed; its pipes are always drained, or it would block on them.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Printed>>);

#[derive(Default)]
struct Printed {
    /// Kept apart: the `psql` line must outlive any amount of logging.
    first: Vec<String>,
    last: VecDeque<String>,
}

impl Lines {
    fn follow(&self, pipe: Option<impl Read + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.push(line);
            }
        });
    }

    fn push(&self, line: String) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.first.len() < KEPT_LINES {
            printed.first.push(line);
            return;
        }
        if printed.last.len() == KEPT_LINES {
            printed.last.pop_front();
        }
        printed.last.push_back(line);
    }

    fn find<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        let printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        printed.first.iter().find_map(|line| wanted(line))
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        printed.first.iter().chain(&printed.last).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_folder_is_found_in_the_psql_line() {
        assert_eq!(socket_folder("  psql -h /tmp/x/run -U tidings tidings"), Some("/tmp/x/run"));
        assert_eq!(socket_folder("try: psql -h '/tmp/a b' -U tidings tidings"), Some("/tmp/a b"));
        assert_eq!(socket_folder("data in /tmp/x"), None);
    }
}
