//! The data folder: what lies where in it, and who may use it.
//!
//! Two locks keep one server on it. `owner.lock` belongs to one Tidings. `server.lock` is handed
//! down to Postgres and all its processes, so it stays taken until the last of them is gone: also
//! after a kill -9, and also when they live in another container and cannot be seen from here.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, process};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::{Error, NAME, Settings, User};

/// The port in the socket's name, the one every client assumes.
pub(super) const PORT: u16 = 5432;

/// `sizeof(sockaddr_un.sun_path)` less the closing NUL.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Decides where the folder is and whether its name will do, without touching the disk.
    pub(super) fn of(settings: &Settings) -> Result<Folder, Error> {
        let chosen = match &settings.data_dir {
            Some(path) => path.clone(),
            None => default_path()?,
        };
        let path = std::path::absolute(&chosen).map_err(|source| Error::folder(&chosen, source))?;
        let folder = Folder { path };
        folder.check_name()?;
        Ok(folder)
    }

    fn check_name(&self) -> Result<(), Error> {
        let wrong = |problem| Err(Error::FolderName { folder: self.path.clone(), problem });
        match self.path.to_str() {
            None => return wrong("has a name that is not UTF-8"),
            // Postgres' clients take a host with a comma for a list of hosts, with no way to quote.
            Some(path) if path.contains(',') => return wrong("has a comma in its name"),
            Some(path) if path.contains('\n') => return wrong("has a line break in its name"),
            Some(_) => {}
        }
        let socket = self.socket();
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(Error::SocketPath { socket, limit: SOCKET_PATH_LIMIT });
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// PGDATA. It appears by a rename, complete, or not at all.
    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// Where `initdb` works before that rename.
    pub(super) fn unfinished_cluster(&self) -> PathBuf {
        self.path.join("postgres.new")
    }

    pub(super) fn sockets(&self) -> PathBuf {
        self.path.join("run")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.sockets().join(format!(".s.PGSQL.{PORT}"))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    pub(super) fn url(&self) -> String {
        let sockets = self.sockets();
        let host: String = sockets.as_os_str().as_encoded_bytes().iter().map(encoded).collect();
        format!("postgres://{NAME}@localhost/{NAME}?host={host}")
    }

    /// The major version that made the database; none if there is no database yet.
    pub(super) fn major(&self) -> Result<Option<u32>, Error> {
        if !self.has_cluster()? {
            return Ok(None);
        }
        let cluster = self.cluster();
        match fs::read_to_string(cluster.join("PG_VERSION")) {
            Ok(text) => match text.trim().parse() {
                Ok(major) => Ok(Some(major)),
                Err(_) => Err(Error::NotADatabase { cluster }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotADatabase { cluster })
            }
            Err(error) => Err(Error::folder(&cluster, error)),
        }
    }

    pub(super) fn has_cluster(&self) -> Result<bool, Error> {
        let cluster = self.cluster();
        cluster.try_exists().map_err(|source| Error::folder(&cluster, source))
    }

    /// Makes the folder itself.
    pub(super) fn create(&self, user: Option<&User>) -> Result<(), Error> {
        // Root's server is somebody else, who must be able to pass through.
        let mode = if user.is_some() { 0o755 } else { 0o700 };
        create_all(&self.path, mode).map_err(|source| Error::folder(&self.path, source))
    }

    /// Makes the socket's folder, the server's alone: with `trust`, whoever can open the socket is
    /// the superuser. Only for the owner, since it may take the folder away from another user.
    pub(super) fn create_sockets(&self, user: Option<&User>) -> Result<(), Error> {
        make_private(&self.sockets(), user)
    }

    /// Takes the folder for this process, or says who has it.
    pub(super) fn own(&self) -> Result<Ownership, Error> {
        let path = self.path.join("owner.lock");
        let failed = |source| Error::folder(&path, source);
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                let pid = text.trim().parse().ok();
                return Err(Error::Owned { folder: self.path.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", process::id()).map_err(failed)?;
        Ok(Ownership { file })
    }

    /// The lock to hand down to the server's processes; not yet taken.
    pub(super) fn server_lock(&self) -> Result<File, Error> {
        open_lock(&self.server_lock_path())
    }

    pub(super) fn server_lock_path(&self) -> PathBuf {
        self.path.join("server.lock")
    }
}

/// The folder is ours as long as this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    file: File,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // Closing would not do: a child forked this instant by another thread still has a copy.
        let _ = self.file.unlock();
    }
}

/// Makes a folder of mode 0700 that belongs to the server's user, or makes it so.
pub(super) fn make_private(path: &Path, user: Option<&User>) -> Result<(), Error> {
    let make = || -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !fs::symlink_metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        if let Some(user) = user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    };
    make().map_err(|source| Error::folder(path, source))
}

/// `create_dir_all`, but what it makes has this mode whatever the umask.
fn create_all(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_all(parent, mode)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        // Somebody else made it meanwhile, and decides how.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Nobody else may open a lock file: being able to read it is enough to take the lock.
fn open_lock(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::folder(path, source))
}

fn default_path() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib").join(NAME));
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .ok_or(Error::NoHome)?;
    Ok(data.join(NAME))
}

fn encoded(byte: &u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

/// Two paths to one folder, compared as the system does.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let folder = fs::metadata(path)?;
    Ok((folder.dev(), folder.ino()))
}
