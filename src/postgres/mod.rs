//! The private Postgres: the database that runs when no `DATABASE_URL` is given.
//!
//! It is a plain server with its durability left on, made by the machine's own `initdb` and run as
//! a child of this process, reachable through a socket in its folder and by nothing else. Its life
//! is tied to ours: stopped when we stop, shut down by the kernel when we are killed (on Linux),
//! started again when it dies alone. One folder has one owner at a time: see `folder.rs`.

mod cluster;
mod error;
mod folder;
mod left_over;
mod log_file;
mod owner;
mod programs;
mod server;
mod spawn;
mod supervisor;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, io};

use self::folder::Folder;
use self::server::Server;
use self::supervisor::Supervisor;

pub use self::error::Error;
pub use self::owner::{User, unprivileged_user};
pub use self::programs::{Programs, find_programs};

/// Name of the superuser role and of the database.
const NAME: &str = "tidings";

/// Where the private Postgres lives and what it runs as; all of it has a default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder that holds everything (`TIDINGS_DATA_DIR`).
    pub data_dir: Option<PathBuf>,
    /// The folder of `initdb` and `postgres` (`TIDINGS_POSTGRES_BIN`).
    pub bin_dir: Option<PathBuf>,
    /// Whom the server runs as when we are root (`TIDINGS_POSTGRES_USER`).
    pub user: Option<String>,
}

/// A running private Postgres. Dropping it stops the server and waits for that.
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: Folder,
    psql_program: PathBuf,
    supervisor: Supervisor,
}

impl PrivatePostgres {
    /// Starts the server, making its database first if the folder is new, and returns when it
    /// accepts connections. Blocking: seconds for a new folder, longer for a crash recovery.
    pub fn start(settings: &Settings) -> Result<PrivatePostgres, Error> {
        let folder = Folder::of(settings)?;
        let user = owner::unprivileged_user(settings.user.as_deref())?;
        let programs = find_programs(settings.bin_dir.as_deref(), folder.major()?)?;
        let psql_program = programs::psql_beside(&programs);

        folder.create(user.as_ref())?;
        let ownership = folder.own()?;
        owner::check_access(user.as_ref(), &folder, &programs)?;
        folder.create_sockets(user.as_ref())?;
        let server = Server { folder: folder.clone(), programs, user };
        if !folder.has_cluster()? {
            cluster::create(&server)?;
        }
        let supervisor = Supervisor::start(server, ownership)?;
        Ok(PrivatePostgres { folder, psql_program, supervisor })
    }

    /// The database's URL, over the socket.
    pub fn url(&self) -> String {
        self.folder.url()
    }

    /// The line that opens the database in a shell: for root, and for the user Tidings runs as.
    pub fn psql(&self) -> String {
        let program = shell_quoted(&self.psql_program.to_string_lossy());
        let sockets = shell_quoted(&self.folder.sockets().to_string_lossy());
        format!("{program} -h {sockets} -U {NAME} {NAME}")
    }

    /// The folder that holds everything.
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the server and waits until it is gone: cleanly, or after a grace of ten seconds at
    /// once (nothing acknowledged is lost; the next start recovers). Further calls do nothing.
    pub fn stop(&self) {
        self.supervisor.stop();
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The URL of the database if a server already runs on this folder: for commands that want to
/// talk to it rather than to start one.
pub fn running_url(settings: &Settings) -> Result<Option<String>, Error> {
    let folder = Folder::of(settings)?;
    let unreadable = |source: io::Error| Error::folder(&folder.cluster(), source);
    match fs::read_to_string(folder.cluster().join(server::PID_FILE)) {
        Ok(text) if server::PidFile::parse(&text).is_some_and(|file| file.ready) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    // The file outlives a kill -9; a socket that somebody listens on does not.
    match UnixStream::connect(folder.socket()) {
        Ok(_) => Ok(Some(folder.url())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(unreadable(error)),
        Err(_) => Ok(None),
    }
}

/// Whether there is a database in the folder: for commands that have no reason to make one.
pub fn exists(settings: &Settings) -> Result<bool, Error> {
    Folder::of(settings)?.has_cluster()
}

fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
