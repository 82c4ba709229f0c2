//! The limit on open files, which bounds the connections: each one is a file descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for everything that is not a client's connection: the database's connections
/// and the private Postgres' files and pipes, the listener, stdio, the runtime, name lookups.
const RESERVED: u64 = 200;

/// What `unlimited` is taken for; also the highest limit Linux grants by default (fs.nr_open).
const HIGHEST: u64 = 1 << 20;

/// Raises this process's limit on open files as far as it may go, and returns what it is now.
pub fn raise_open_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = reachable(limit);
    let current = limit.current.unwrap_or(HIGHEST);
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current, // macOS refuses more than kern.maxfilesperproc: live with what there is
    }
}

/// The connections that fit once the limit is raised.
pub(super) fn connections_within_open_files() -> usize {
    usize::try_from(connections_within(reachable(getrlimit(Resource::Nofile))))
        .unwrap_or(usize::MAX)
}

/// A soft limit that is already higher stays: raising must never lower.
fn reachable(limit: Rlimit) -> u64 {
    let hard = limit.maximum.unwrap_or(HIGHEST).min(HIGHEST);
    hard.max(limit.current.unwrap_or(HIGHEST))
}

/// Half of a limit too small to keep the reserve free.
fn connections_within(open_files: u64) -> u64 {
    open_files.saturating_sub(RESERVED).max(open_files / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_reserve_free() {
        assert_eq!(connections_within(1024), 824);
        assert_eq!(connections_within(64), 32);
        assert_eq!(connections_within(0), 1);
    }

    #[test]
    fn raising_reaches_the_hard_limit_and_never_lowers() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(reachable(limit(Some(1024), Some(4096))), 4096);
        assert_eq!(reachable(limit(Some(1024), None)), HIGHEST);
        assert_eq!(reachable(limit(Some(2 * HIGHEST), Some(2 * HIGHEST))), 2 * HIGHEST);
        assert!(raise_open_file_limit() >= getrlimit(Resource::Nofile).current.unwrap_or(HIGHEST));
    }
}
