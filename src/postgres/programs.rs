//! Finding `initdb` and `postgres`. The order says whom we believe: a setting, what was shipped
//! beside us, the person's PATH, then the places distributions use, newest first. A database that
//! exists already decides the major. Nothing is ever downloaded.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::Error;

/// The first with `detach partition … concurrently`, which the store needs.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// One Postgres on this machine.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Makes a database.
    pub initdb: PathBuf,
    /// Serves it.
    pub postgres: PathBuf,
    /// Their major version.
    pub major: u32,
}

/// Finds the Postgres to run: in `bin_dir` if given, else wherever one is; of this `major` if
/// given, else the first or newest.
pub fn find_programs(bin_dir: Option<&Path>, major: Option<u32>) -> Result<Programs, Error> {
    let (groups, place) = match bin_dir {
        Some(folder) => (vec![vec![folder.to_owned()]], format!("in {}", folder.display())),
        None => (places(), "beside this program, on PATH or in the usual places".to_owned()),
    };
    let mut unusable = Vec::new();
    for group in groups {
        let mut here: Vec<Programs> = group.iter().filter_map(|folder| look_in(folder)).collect();
        here.sort_by_key(|programs| std::cmp::Reverse(programs.major));
        for programs in here {
            let usable = match major {
                Some(major) => programs.major == major,
                None => programs.major >= OLDEST_MAJOR,
            };
            if usable {
                return Ok(programs);
            }
            unusable.push(format!("{} ({})", programs.major, programs.postgres.display()));
        }
    }
    let found = unusable.join(", ");
    match major {
        Some(wanted) if !unusable.is_empty() => Err(Error::WrongMajor { wanted, found }),
        _ if unusable.is_empty() => Err(Error::NoPrograms { place }),
        _ => Err(Error::NoPrograms { place: format!("{place} but {found}, which is too old") }),
    }
}

/// `psql` if the shell finds it by itself, else the one that came with the server.
pub(super) fn psql_beside(programs: &Programs) -> PathBuf {
    let on_path = path_folders().iter().any(|folder| folder.join("psql").is_file());
    let beside = programs.postgres.with_file_name("psql");
    if !on_path && beside.is_file() { beside } else { PathBuf::from("psql") }
}

/// Folders in groups: an earlier group wins, inside a group the newest does.
fn places() -> Vec<Vec<PathBuf>> {
    let mut groups = Vec::new();
    if let Some(folder) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        groups.push(vec![folder.to_owned(), folder.join("postgres/bin")]);
    }
    groups.extend(path_folders().into_iter().map(|folder| vec![folder]));
    groups.push(
        [
            ("/usr/lib/postgresql", "", "bin"), // Debian, Ubuntu
            ("/usr/lib", "postgresql", "bin"),  // openSUSE
            ("/usr/libexec", "postgresql", ""), // Alpine
            ("/usr/libexec", "postgresql", "bin"),
            ("/usr", "pgsql-", "bin"),                  // the PGDG's RPMs
            ("/usr/local", "pgsql", "bin"),             // built from source
            ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew, Apple silicon
            ("/usr/local/opt", "postgresql", "bin"),    // Homebrew, Intel
            ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ]
        .into_iter()
        .flat_map(|(parent, prefix, bin)| folders_like(parent, prefix, bin))
        .collect(),
    );
    groups
}

fn path_folders() -> Vec<PathBuf> {
    // An empty entry means the working directory, where we run nothing from.
    let named = |folder: &PathBuf| folder.is_absolute();
    env::var_os("PATH")
        .map(|path| env::split_paths(&path).filter(named).collect())
        .unwrap_or_default()
}

fn folders_like(parent: &str, prefix: &str, bin: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(bin))
        .collect()
}

fn look_in(folder: &Path) -> Option<Programs> {
    let folder = std::path::absolute(folder).ok()?; // they are run with another working directory
    let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
    if !initdb.is_file() || !postgres.is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Programs { initdb, postgres, major })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, `… 18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_of;

    #[test]
    fn the_major_is_read_from_every_shape_of_version_line() {
        let line = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(major_of(line), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(major_of("something else 15.1"), None);
    }
}
