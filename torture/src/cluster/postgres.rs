//! A Postgres with production settings in a folder of its own. It is started and ended in every way
//! that there is, and what it says is kept in a log beside the history.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Mutex;
use wire::Outcome;

use super::clock::Clock;
use super::disk::SmallDisk;
use super::free_address;
use super::guard::{Guard, Process};

const START: Duration = Duration::from_secs(60); // after a crash it replays what was written
const STOP: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// In the places that distributions put them, the newest first.
const PROGRAMS: [&str; 3] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/usr/pgsql"];

/// One database server.
pub(crate) struct Postgres {
    folder: PathBuf,
    log: PathBuf,
    owner: Option<Owner>,
    guard: Arc<Guard>,
    pub(crate) address: SocketAddr,
    /// What makes its clock go wrong, if it can be made to.
    clock: Option<Clock>,
    /// What tables and WAL are on, if it can be filled.
    disk: Option<SmallDisk>,
    process: Mutex<Option<Process>>,
}

/// What some faults need of a database from the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The library that moves its clock.
    pub(crate) faketime: Option<PathBuf>,
    /// A small file system for tables and WAL.
    pub(crate) small_disk: bool,
    /// A second database, the first one's synchronous standby.
    pub(crate) standby: bool,
}

/// Postgres does not run as root.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Makes a database server in `folder`, which must exist, and starts it.
    pub(crate) async fn create(
        folder: &Path,
        log: &Path,
        guard: &Arc<Guard>,
        needs: &Needs,
    ) -> Outcome<Self> {
        let postgres = Self::in_folder(folder, log, guard, needs)?;
        let mut initdb = postgres.command("initdb")?;
        initdb.args([
            "--username=tidings",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        initdb.args(postgres.disk.iter().map(|disk| format!("--waldir={}", disk.wal().display())));
        initdb.arg("-D").arg(postgres.data());
        postgres.finish(initdb).await?;
        postgres.start().await?;
        let mut connection = postgres.connect_to("postgres").await?;
        for statement in postgres.disk.as_ref().map_or(CREATE.to_vec(), |_| CREATE_ON_DISK.to_vec())
        {
            let folder = folder.join(super::disk::TABLES).display().to_string();
            let statement = statement.replace("FOLDER", &folder);
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Ok(postgres)
    }

    /// A place for a database that is yet to be copied there.
    pub(crate) fn in_folder(
        folder: &Path,
        log: &Path,
        guard: &Arc<Guard>,
        needs: &Needs,
    ) -> Outcome<Self> {
        let owner = Owner::needed()?;
        if let Some(Owner { uid, gid }) = owner {
            chown(folder, Some(uid), Some(gid))?;
        }
        let ids = owner.map(|owner| (owner.uid, owner.gid));
        let clock =
            needs.faketime.as_ref().map(|library| Clock::new(library, folder)).transpose()?;
        let disk = needs.small_disk.then(|| SmallDisk::mount(folder, ids)).transpose()?;
        Ok(Self {
            folder: folder.to_owned(),
            log: log.to_owned(),
            owner,
            guard: guard.clone(),
            address: free_address()?,
            clock,
            disk,
            process: Mutex::new(None),
        })
    }

    /// Runs one of Postgres' programs to its end.
    async fn finish(&self, mut program: Command) -> Outcome<()> {
        let status = self.guard.spawn(&mut program)?.ended(START).await?;
        if !status.success() {
            let name = program.get_program().display().to_string();
            return Err(format!("{name} failed: see {}", self.log.display()).into());
        }
        Ok(())
    }

    /// Becomes a standby of `primary`: whatever was here before is forgotten.
    pub(crate) async fn follow(&self, primary: &Self) -> Outcome<()> {
        remove(&self.data())?;
        let mut copy = self.copy_of(primary, &self.data())?;
        copy.arg("--write-recovery-conf");
        if let (Some(own), Some(others)) = (&self.disk, &primary.disk) {
            own.empty()?;
            copy.arg(format!("--waldir={}", own.wal().display()));
            copy.arg(format!(
                "--tablespace-mapping={}={}",
                others.tables().display(),
                own.tables().display()
            ));
        }
        self.finish(copy).await?;
        self.start().await
    }

    /// Copies its files while it runs.
    pub(crate) async fn back_up(&self) -> Outcome<()> {
        remove(&self.backup())?;
        self.finish(self.copy_of(self, &self.backup())?).await
    }

    /// Goes on from the copy instead of its data. It must not run.
    pub(crate) async fn restore(&self) -> Outcome<()> {
        remove(&self.data())?;
        std::fs::rename(self.backup(), self.data())?;
        self.start().await
    }

    fn copy_of(&self, primary: &Self, to: &Path) -> Outcome<Command> {
        let mut copy = self.command("pg_basebackup")?;
        copy.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        copy.arg("-h").arg(&primary.folder).args(["-p", &primary.address.port().to_string()]);
        copy.args(["-U", "tidings"]).arg("-D").arg(to);
        Ok(copy)
    }

    pub(crate) fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref()
    }

    pub(crate) fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn backup(&self) -> PathBuf {
        self.folder.join("backup")
    }

    /// One of Postgres' programs, run as the owner of the data.
    pub(crate) fn command(&self, program: &str) -> Outcome<Command> {
        let mut command = Command::new(find(program)?);
        command.current_dir(&self.folder).env_clear().env("LC_ALL", "C");
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.stdout(log.try_clone()?).stderr(log);
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    /// Starts it and waits until it lets us in. Everything is durable: no setting is weaker than
    /// the default.
    pub(crate) async fn start(&self) -> Outcome<()> {
        let began = Instant::now();
        let mut process = self.process.lock().await;
        while began.elapsed() < START {
            if process.as_mut().map(Process::has_ended).transpose()?.flatten().is_some() {
                *process = None;
            }
            // Processes of a killed postmaster have to be gone first; until then a new one refuses.
            if process.is_none() {
                *process = Some(self.guard.spawn(&mut self.server()?)?);
            }
            if self.connect_to("postgres").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("Postgres did not start within {START:?}: see {}", self.log.display()).into())
    }

    fn server(&self) -> Outcome<Command> {
        let mut command = self.command("postgres")?;
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder);
        let port = format!("port={}", self.address.port());
        for setting in ["listen_addresses=127.0.0.1", &port, "log_line_prefix=%m [%p] %a "] {
            command.args(["-c", setting]);
        }
        // A standby that catches up while every commit waits for it confirms that at its next report,
        // by default 10 s later: Postgres' recovery, which would hide that of the servers.
        command.args(["-c", "wal_receiver_status_interval=1s"]);
        if self.disk.is_some() {
            command.args(["-c", "max_wal_size=128MB"]); // a small part of it
        }
        if let Some(clock) = &self.clock {
            clock.set_for(&mut command);
        }
        Ok(command)
    }

    /// Sends the postmaster a signal and waits until it is gone.
    pub(crate) async fn end(&self, signal: Signal) -> Outcome<ExitStatus> {
        let mut process = self.process.lock().await;
        let running = process.as_mut().ok_or("Postgres does not run")?;
        running.signal(signal)?;
        let status = running.ended(STOP).await?;
        *process = None;
        Ok(status)
    }

    /// A connection past everything that faults are made with.
    pub(crate) async fn connect(&self) -> Outcome<PgConnection> {
        self.connect_to("tidings").await
    }

    async fn connect_to(&self, database: &str) -> Outcome<PgConnection> {
        let folder = self.folder.to_str().ok_or("the folder's name is not UTF-8")?;
        let host = utf8_percent_encode(folder, NON_ALPHANUMERIC);
        let port = self.address.port();
        let url = format!(
            "postgres://tidings@localhost:{port}/{database}?host={host}&application_name=torture"
        );
        let connected = tokio::time::timeout(CONNECT, PgConnection::connect(&url)).await;
        Ok(connected.map_err(|_| format!("Postgres did not let us in within {CONNECT:?}"))??)
    }

    /// Waits until it lets us in again.
    pub(crate) async fn is_back(&self) -> Outcome<()> {
        let began = Instant::now();
        while began.elapsed() < START {
            if let Ok(mut connection) = self.connect().await
                && sqlx::raw_sql("select 1").execute(&mut connection).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("Postgres was not back within {START:?}").into())
    }

    /// Commits wait for these standbys (`synchronous_standby_names`) from now on. If for any, one has
    /// to be there.
    pub(crate) async fn wait_for_standbys(&self, names: &str) -> Outcome<()> {
        let mut connection = self.connect_to("postgres").await?;
        let set = format!("alter system set synchronous_standby_names = '{names}'");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut connection).await?;
        let state = if names.is_empty() {
            "select current_setting('synchronous_standby_names') = ''"
        } else {
            IN_SYNC
        };
        self.becomes_true(state).await
    }

    /// A standby becomes a primary that waits for none.
    pub(crate) async fn promote(&self) -> Outcome<()> {
        let mut connection = self.connect_to("postgres").await?;
        sqlx::raw_sql("select pg_promote()").execute(&mut connection).await?;
        self.wait_for_standbys("").await
    }

    /// Waits until a query says true.
    pub(crate) async fn becomes_true(&self, query: &'static str) -> Outcome<()> {
        let began = Instant::now();
        while began.elapsed() < START {
            if let Ok(mut connection) = self.connect_to("postgres").await
                && let Ok(true) = sqlx::query_scalar(query).fetch_one(&mut connection).await
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("not true within {START:?}: {query}").into())
    }

    /// The arguments that lead one of Postgres' programs to the database.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let host = self.folder.display().to_string();
        ["-h", &host, "-p", &self.address.port().to_string(), "-U", "tidings", "-d", "tidings"]
            .map(str::to_owned)
            .into()
    }
}

/// A synchronous standby is there and has caught up.
pub(crate) const IN_SYNC: &str =
    "select exists (select from pg_stat_replication where sync_state = 'sync')";

/// The database, where the cluster is.
const CREATE: [&str; 1] = ["create database tidings"];
/// The same, with its tables on the small disk.
const CREATE_ON_DISK: [&str; 2] =
    ["create tablespace small location 'FOLDER'", "create database tidings tablespace small"];

pub(super) fn remove(folder: &Path) -> Outcome<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

impl Owner {
    /// Nobody special needs to be found unless we are root.
    fn needed() -> Outcome<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd")?;
        let owner = ["postgres", "nobody"].into_iter().find_map(|name| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        });
        Ok(Some(owner.ok_or("there is neither a user postgres nor nobody to run Postgres as")?))
    }
}

fn find(program: &str) -> Outcome<PathBuf> {
    let mut folders: Vec<PathBuf> = PROGRAMS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path().join("bin")))
        .collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let found = folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file());
    Ok(found
        .ok_or_else(|| format!("{program} is not there: install the distribution's PostgreSQL"))?)
}

fn version(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}
