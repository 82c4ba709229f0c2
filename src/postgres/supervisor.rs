//! The thread that owns the server. The kernel ties a child to the *thread* that started it, so
//! this one lives as long as the server should; and since it alone starts, signals and reaps the
//! child, a signal can never reach a process that merely got its number.

use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::folder::Ownership;
use super::server::{STOP_GRACE, Server};
use super::{Error, left_over, log_file};

const READY_POLL: Duration = Duration::from_millis(10);
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// A recovery after a crash may take long, and interrupting it only makes it begin again: so there
/// is no deadline, but a word now and then.
const STILL_STARTING: Duration = Duration::from_secs(15);

/// A server that dies again within this time is started again ever more slowly.
const STEADY: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Supervisor {
    events: Sender<Event>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Event {
    Exited,
    Stop,
}

/// Why a start ended without a running server.
enum NotRunning {
    Failed(Error),
    Stopped,
}

impl Supervisor {
    /// Starts the server and returns when it is ready.
    pub(super) fn start(server: Server, ownership: Ownership) -> Result<Supervisor, Error> {
        say_what_is_missing_here();
        let (events, inbox) = mpsc::channel();
        let (report, first_start) = mpsc::channel();
        let watch = Watch { server, inbox, events: events.clone() };
        let folder = watch.server.folder.path().to_owned();
        let thread = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || {
                watch.run(&report);
                drop(ownership); // only now may another Tidings have the folder
            })
            .map_err(|source| Error::folder(&folder, source))?;
        let supervisor = Supervisor { events, thread: Mutex::new(Some(thread)) };
        let started = first_start.recv().expect("the supervisor reports before it ends");
        if started.is_err() {
            supervisor.stop(); // waits until the folder is free again
        }
        started.map(|()| supervisor)
    }

    /// Returns when the server is gone, also to a second caller.
    pub(super) fn stop(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = self.events.send(Event::Stop);
            let _ = thread.join();
        }
    }
}

struct Watch {
    server: Server,
    inbox: Receiver<Event>,
    /// For the threads that wait for a child to end.
    events: Sender<Event>,
}

impl Watch {
    fn run(&self, report: &Sender<Result<(), Error>>) {
        let mut child = match self.boot() {
            Ok(child) => child,
            Err(NotRunning::Failed(error)) => return drop(report.send(Err(error))),
            Err(NotRunning::Stopped) => return,
        };
        let _ = report.send(Ok(()));
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let Some(status) = self.watch(&mut child) else { return };
            tracing::error!(%status, log = %self.server.folder.log().display(),
                "the private Postgres ended by itself, starting it again");
            if began.elapsed() > STEADY {
                pause = Duration::ZERO;
            }
            match self.boot_again(&mut pause) {
                Some(again) => child = again,
                None => return,
            }
            tracing::info!("the private Postgres runs again");
        }
    }

    /// Until the server ends by itself (how) or was stopped (none).
    fn watch(&self, child: &mut Child) -> Option<String> {
        loop {
            match self.inbox.recv_timeout(HOUSEKEEPING) {
                Ok(Event::Exited) => return Some(reap(child)),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.stop(child);
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => self.keep_house(child),
            }
        }
    }

    fn keep_house(&self, child: &Child) {
        left_over::reap_orphans(Some(child.id()));
        if let Err(error) = log_file::trim(&self.server.folder.log()) {
            tracing::warn!(%error, "cannot cut the log of the private Postgres");
        }
    }

    /// For ever, since a full disk may be emptied again; none when told to stop.
    fn boot_again(&self, pause: &mut Duration) -> Option<Child> {
        loop {
            if !pause.is_zero() && self.inbox.recv_timeout(*pause).is_ok() {
                return None; // no child, so it can only be a stop
            }
            *pause = (*pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
            match self.boot() {
                Ok(child) => return Some(child),
                Err(NotRunning::Stopped) => return None,
                Err(NotRunning::Failed(error)) => {
                    tracing::error!(%error, "the private Postgres is down, trying again");
                }
            }
        }
    }

    fn boot(&self) -> Result<Child, NotRunning> {
        let mut child = self.server.spawn().map_err(NotRunning::Failed)?;
        self.report_the_end_of(&child);
        let mut began = Instant::now();
        while !self.server.is_ready(&child) {
            match self.inbox.recv_timeout(READY_POLL) {
                Ok(Event::Exited) => {
                    let log = self.server.folder.log();
                    let (status, tail) = (reap(&mut child), log_file::tail(&log));
                    return Err(NotRunning::Failed(Error::Start { status, log, tail }));
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.stop(&mut child);
                    return Err(NotRunning::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() > STILL_STARTING => {
                    began = Instant::now();
                    tracing::warn!(log = %self.server.folder.log().display(),
                        "the private Postgres is still starting, perhaps recovering from a crash");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(child)
    }

    /// Waits without reaping, so that the child's number stays its own until the supervisor is done
    /// with it.
    fn report_the_end_of(&self, child: &Child) {
        let (pid, events) = (Pid::from_child(child), self.events.clone());
        let wait = move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
            let _ = events.send(Event::Exited);
        };
        thread::spawn(wait);
    }

    fn stop(&self, child: &mut Child) {
        for (kind, word) in [(Signal::INT, "fast"), (Signal::QUIT, "immediate")] {
            tracing::debug!(shutdown = word, "stopping the private Postgres");
            left_over::signal(child.id(), kind);
            if self.exits_within(STOP_GRACE) {
                let status = reap(child);
                tracing::debug!(%status, "the private Postgres has stopped");
                return;
            }
        }
        tracing::error!(pid = child.id(), "the private Postgres does not stop, leaving it behind");
    }

    fn exits_within(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Event::Exited) => return true,
                Ok(Event::Stop) => {}
                Err(_) => return false,
            }
        }
    }
}

fn reap(child: &mut Child) -> String {
    match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

fn say_what_is_missing_here() {
    if cfg!(not(target_os = "linux")) {
        tracing::warn!(
            "on this system the private Postgres goes on running if Tidings is killed with kill -9: \
             end it by hand before the next start"
        );
    }
}
