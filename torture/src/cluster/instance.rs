//! One server process, always on the same port.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::Mutex;
use wire::Outcome;
use wire::http::Connection;

use super::free_address;
use super::guard::{Guard, Process};

const START: Duration = Duration::from_secs(60);
/// Streams and sends get so long at shutdown. What is cut off at its end counts against the server, so
/// that a busy machine has to be fast enough too.
const DRAIN: &str = "8s";
const STOP: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(1); // for one answer

/// A Tidings server.
pub(crate) struct Instance {
    program: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    database_url: String,
    environment: Vec<(String, String)>,
    guard: Arc<Guard>,
    pub(crate) address: SocketAddr,
    process: Mutex<Option<Process>>,
}

impl Instance {
    pub(crate) fn new(
        program: &Path,
        folder: &Path,
        log: &Path,
        database: SocketAddr,
        guard: &Arc<Guard>,
    ) -> Outcome<Self> {
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            log: log.to_owned(),
            database_url: format!("postgres://tidings@{database}/tidings?sslmode=disable"),
            environment: Vec::new(),
            guard: guard.clone(),
            address: free_address()?,
            process: Mutex::new(None),
        })
    }

    pub(crate) fn with_environment(mut self, more: &[(String, String)]) -> Self {
        self.environment.extend_from_slice(more);
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&self) -> Outcome<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        // Nothing of the caller's settings, and no `.env`.
        command.env_clear().current_dir(&self.folder).stdout(log.try_clone()?).stderr(log);
        command.args(["serve", "--listen", &self.address.to_string()]);
        command.env("DATABASE_URL", &self.database_url);
        command.env("TIDINGS_HEARTBEAT", "1s").env("TIDINGS_DRAIN", DRAIN);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        *self.process.lock().await = Some(self.guard.spawn(&mut command)?);
        self.is_ready_soon().await
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready_soon(&self) -> Outcome<()> {
        let began = Instant::now();
        while began.elapsed() < START {
            if let Some(process) = &mut *self.process.lock().await
                && let Some(status) = process.has_ended()?
            {
                return Err(
                    format!("the server ended ({status}): see {}", self.log.display()).into()
                );
            }
            if is_ready(self.address).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(format!("the server was not ready within {START:?}: see {}", self.log.display()).into())
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, signal: Signal) -> Outcome<u32> {
        let process = self.process.lock().await;
        let running = process.as_ref().ok_or("the server does not run")?;
        running.signal(signal)?;
        Ok(running.pid())
    }

    /// Waits until it is gone.
    pub(crate) async fn ended(&self) -> Outcome<ExitStatus> {
        let mut process = self.process.lock().await;
        let status = process.as_mut().ok_or("the server does not run")?.ended(STOP).await?;
        *process = None;
        Ok(status)
    }
}

/// Whether a balancer would send it clients.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let asked = async {
        let mut connection = Connection::open(address).await?;
        let answer = connection.call(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        Ok::<_, wire::Failure>(answer.status == 200)
    };
    matches!(tokio::time::timeout(READY, asked).await, Ok(Ok(true)))
}
