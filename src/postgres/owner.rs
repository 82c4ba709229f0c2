//! Whom the server runs as. Postgres refuses root, so as root we drop to a user who can do nothing
//! else, and find out before anything is made whether that user can get at the folder.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::folder::Folder;
use super::{Error, Programs, spawn};

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// The id of its group.
    pub gid: u32,
}

/// Whom to run the server as: `name`, else `postgres`, else `nobody`. None when we are not root:
/// then it runs as ourselves.
pub fn unprivileged_user(name: Option<&str>) -> Result<Option<User>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = match name {
        Some(name) => look_up(name).ok_or_else(|| format!("there is no user {name}")),
        None => ["postgres", "nobody"]
            .into_iter()
            .find_map(look_up)
            .ok_or_else(|| "there is neither a user postgres nor a user nobody".to_owned()),
    };
    match user {
        Ok(user) if user.uid == 0 => {
            Err(Error::NoUser { problem: format!("the user {} is root", user.name) })
        }
        Ok(user) => Ok(Some(user)),
        Err(problem) => Err(Error::NoUser { problem }),
    }
}

/// The file first: a small container has no `id`. Then `id`, which knows directories as well.
fn look_up(name: &str) -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd.lines().find_map(|line| in_passwd(line, name)).or_else(|| ask_id(name))
}

fn in_passwd(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next()? != name {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { name: name.to_owned(), uid, gid })
}

fn ask_id(name: &str) -> Option<User> {
    let number = |option| {
        let output = Command::new("id").args([option, "--", name]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    Some(User { name: name.to_owned(), uid: number("-u")?, gid: number("-g")? })
}

/// Fails, saying why, if the server's user could not reach its folder and programs or does not own
/// its database.
pub(super) fn check_access(
    user: Option<&User>,
    folder: &Folder,
    programs: &Programs,
) -> Result<(), Error> {
    check_owner(user, &folder.cluster())?;
    let Some(user) = user else { return Ok(()) };
    // Trying is the only check that knows about access lists, mounts and security modules.
    let mut command = Command::new(&programs.postgres);
    spawn::become_user(&mut command, user);
    command.arg("--version").current_dir(folder.path()).stdout(Stdio::null());
    match command.status() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(explain(user, folder, programs, error))
        }
        Err(source) => Err(Error::Program { program: programs.postgres.clone(), source }),
    }
}

fn check_owner(user: Option<&User>, cluster: &Path) -> Result<(), Error> {
    let Ok(metadata) = fs::metadata(cluster) else { return Ok(()) };
    let (uid, name) = match user {
        Some(user) => (user.uid, user.name.clone()),
        None => {
            let uid = rustix::process::geteuid().as_raw();
            (uid, format!("user id {uid}"))
        }
    };
    if metadata.uid() == uid {
        return Ok(());
    }
    Err(Error::WrongOwner { cluster: cluster.to_owned(), uid: metadata.uid(), user: name })
}

fn explain(user: &User, folder: &Folder, programs: &Programs, error: io::Error) -> Error {
    let data = (folder.path(), "TIDINGS_DATA_DIR");
    let program = (programs.postgres.as_path(), "TIDINGS_POSTGRES_BIN");
    for (path, variable) in [data, program] {
        if let Some(blocking) = blocking_folder(path, user) {
            let (user, path) = (user.name.clone(), path.to_owned());
            return Error::Unreachable { user, path, blocking, variable };
        }
    }
    Error::Program { program: programs.postgres.clone(), source: error }
}

/// The outermost folder on the way to `path` that does not let the user through.
fn blocking_folder(path: &Path, user: &User) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut folders: Vec<&Path> = path.ancestors().filter(|path| path.is_dir()).collect();
    folders.reverse();
    folders.into_iter().find(|folder| !lets_through(folder, user)).map(Path::to_owned)
}

fn lets_through(folder: &Path, user: &User) -> bool {
    let Ok(metadata) = fs::metadata(folder) else { return false };
    let bit = match (metadata.uid() == user.uid, metadata.gid() == user.gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    metadata.permissions().mode() & bit != 0
}
