//! One run of the `postgres` program on the folder: how it is started, and when it is ready.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use super::folder::{self, Folder};
use super::{Error, Programs, User, left_over, log_file, spawn};

pub(super) const PID_FILE: &str = "postmaster.pid";

/// How long a server may take for a clean shutdown before it is told to end at once.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// What it takes to run the server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) folder: Folder,
    pub(super) programs: Programs,
    pub(super) user: Option<User>,
}

impl Server {
    /// Clears away what an earlier run left and starts `postgres`. The caller's thread must live
    /// as long as the server.
    pub(super) fn spawn(&self) -> Result<Child, Error> {
        let lock = left_over::end(&self.folder)?;
        let failed = |source| Error::folder(&self.folder.log(), source);
        let log = log_file::begin(&self.folder.log()).map_err(failed)?;
        let mut command = self.command(&self.programs.postgres, &self.folder.cluster(), &lock)?;
        command.arg("-D").arg(self.folder.cluster());
        for setting in self.fixed_settings() {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        command
            .spawn()
            .map_err(|source| Error::Program { program: self.programs.postgres.clone(), source })
    }

    pub(super) fn command(
        &self,
        program: &Path,
        folder: &Path,
        lock: &File,
    ) -> Result<Command, Error> {
        spawn::command(program, self.user.as_ref(), folder, lock)
            .map_err(|source| Error::folder(&self.folder.server_lock_path(), source))
    }

    /// On the command line, where neither the configuration file nor `alter system` overrides it.
    fn fixed_settings(&self) -> [String; 6] {
        let sockets = self.folder.sockets().to_string_lossy().replace('"', "\"\"");
        [
            "listen_addresses=".to_owned(),
            format!("port={}", folder::PORT),
            format!("unix_socket_directories=\"{sockets}\""),
            "unix_socket_permissions=0700".to_owned(),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
        ]
    }

    /// Whether this very child accepts connections: the file may still be another's.
    pub(super) fn is_ready(&self, child: &Child) -> bool {
        let text = fs::read_to_string(self.folder.cluster().join(PID_FILE)).unwrap_or_default();
        PidFile::parse(&text).is_some_and(|file| file.ready && file.pid == child.id())
    }
}

/// What `postmaster.pid` says: the process on line 1, its state on line 8.
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) ready: bool,
}

impl PidFile {
    pub(super) fn parse(text: &str) -> Option<PidFile> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        Some(PidFile { pid, ready })
    }
}
