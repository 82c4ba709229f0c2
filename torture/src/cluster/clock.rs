//! Postgres' clock, and nobody else's: libfaketime in its processes reads from a file how far it is off.

use std::path::{Path, PathBuf};
use std::process::Command;

use wire::Outcome;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Of one database.
pub(crate) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    pub(super) fn new(library: &Path, folder: &Path) -> Outcome<Self> {
        let clock = Self { library: library.to_owned(), offset: folder.join("clock-offset") };
        clock.move_by(0)?;
        Ok(clock)
    }

    /// Where the distribution has put the library.
    pub(crate) fn library() -> Outcome<PathBuf> {
        let folders = std::fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
        let found = folders.map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
        Ok(found.ok_or("libfaketime is not installed (Debian: faketime)")?)
    }

    /// Seconds from the true time; every process notices within a second.
    pub(crate) fn move_by(&self, seconds: i64) -> Outcome<()> {
        Ok(std::fs::write(&self.offset, format!("{seconds:+}s\n"))?)
    }

    pub(super) fn set_for(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        // Only what the clock says: neither how long something takes, nor when a file was changed.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        command.env("NO_FAKE_STAT", "1").env("FAKETIME_CACHE_DURATION", "1");
    }
}
