//! Why the private Postgres could not be had. Every message is one sentence that names the thing
//! and the remedy, since it is what a person sees when `tidings` does not start.

use std::io;
use std::path::{Path, PathBuf};

use super::programs::OLDEST_MAJOR;

/// Why the private Postgres could not be started or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither a setting nor the environment says where to keep data.
    #[error(
        "there is no home folder to keep the database in: set TIDINGS_DATA_DIR to a folder, or \
         DATABASE_URL to a database of your own"
    )]
    NoHome,

    /// The folder's name cannot be used for a socket.
    #[error("the data folder {} {problem}: set TIDINGS_DATA_DIR to another folder", folder.display())]
    FolderName {
        /// The data folder.
        folder: PathBuf,
        /// What is wrong with its name.
        problem: &'static str,
    },

    /// The socket's path would not fit the operating system's limit.
    #[error(
        "the path of the database's socket, {}, has {} bytes and the system allows {limit}: set \
         TIDINGS_DATA_DIR to a folder with a shorter path",
        socket.display(), socket.as_os_str().len()
    )]
    SocketPath {
        /// The path that is too long.
        socket: PathBuf,
        /// How many bytes are allowed.
        limit: usize,
    },

    /// The folder, or something in it, cannot be made, read or written.
    #[error(
        "cannot use {}: {source} (run Tidings as a user who may, or set TIDINGS_DATA_DIR to \
         another folder)",
        path.display()
    )]
    Folder {
        /// What could not be used.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// Another process owns the folder.
    #[error(
        "{} already runs on the data folder {}: stop it first, or set TIDINGS_DATA_DIR to another \
         folder",
        match pid { Some(pid) => format!("another Tidings (process {pid})"), None => "another Tidings".to_owned() },
        folder.display()
    )]
    Owned {
        /// The data folder.
        folder: PathBuf,
        /// The other process, if it has left its number.
        pid: Option<u32>,
    },

    /// The data folder has a `postgres` folder that holds no database.
    #[error(
        "{} is not a Postgres database (its PG_VERSION is missing or unreadable): restore it from \
         a backup, or move it away to begin with an empty one",
        cluster.display()
    )]
    NotADatabase {
        /// The folder.
        cluster: PathBuf,
    },

    /// There is no Postgres to run.
    #[error(
        "no Postgres found {place}: install PostgreSQL {OLDEST_MAJOR} or newer, or set \
         TIDINGS_POSTGRES_BIN to the folder of its `initdb` and `postgres`, or DATABASE_URL to a \
         database of your own"
    )]
    NoPrograms {
        /// Where it was looked for, and what was too old to use.
        place: String,
    },

    /// Only another major version than the one that made the database is there.
    #[error(
        "the database was made by Postgres {wanted} and only {found} is here: install Postgres \
         {wanted}, or set TIDINGS_POSTGRES_BIN to the folder of its programs"
    )]
    WrongMajor {
        /// The major in the database's PG_VERSION.
        wanted: u32,
        /// What was found instead, with where.
        found: String,
    },

    /// As root, no user could be found to run Postgres as.
    #[error(
        "Postgres does not run as root and {problem}: set TIDINGS_POSTGRES_USER to an unprivileged \
         user, or run Tidings as one"
    )]
    NoUser {
        /// What is wrong with the user asked for.
        problem: String,
    },

    /// As root, the unprivileged user cannot get to what it needs.
    #[error(
        "the user {user}, whom Postgres runs as, cannot reach {} because of {}: allow it with \
         `chmod o+x` on that folder, or set {variable} to a folder elsewhere",
        path.display(), blocking.display()
    )]
    Unreachable {
        /// Whom Postgres would run as.
        user: String,
        /// What that user needs.
        path: PathBuf,
        /// The folder that does not let it through.
        blocking: PathBuf,
        /// The variable that moves it.
        variable: &'static str,
    },

    /// The database belongs to somebody else than the user it would run as.
    #[error(
        "the database {} belongs to user id {uid}, but Postgres would run as {user}: run Tidings \
         or set TIDINGS_POSTGRES_USER as before, or give it away with `chown -R` on that folder",
        cluster.display()
    )]
    WrongOwner {
        /// The database's folder.
        cluster: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whom Postgres would run as.
        user: String,
    },

    /// A server of an earlier run does not end.
    #[error(
        "a Postgres of an earlier run still uses {} and does not stop ({who}): end it, then start \
         Tidings again",
        cluster.display()
    )]
    LeftOver {
        /// The database's folder.
        cluster: PathBuf,
        /// Which processes, or how to find them.
        who: String,
    },

    /// A program of Postgres could not be run at all.
    #[error(
        "cannot run {}: {source} (set TIDINGS_POSTGRES_BIN to the folder of a Postgres that works)",
        program.display()
    )]
    Program {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// `initdb`, or making the database after it, failed.
    #[error("{} could not make the database in {} ({status}): {tail}", program.display(), cluster.display())]
    Initdb {
        /// The program that failed.
        program: PathBuf,
        /// Where it was to make the database.
        cluster: PathBuf,
        /// How it ended.
        status: String,
        /// The last lines it printed.
        tail: String,
    },

    /// The server ended before it accepted connections.
    #[error("Postgres did not start ({status}); the end of its log {}: {tail}", log.display())]
    Start {
        /// How it ended.
        status: String,
        /// The whole log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

impl Error {
    pub(super) fn folder(path: &Path, source: io::Error) -> Error {
        Error::Folder { path: path.to_owned(), source }
    }
}
