//! A small disk for a database's tables and WAL, so that it can be filled: a tmpfs. A process that is
//! killed loses nothing on it, as on any other; only a crash of the machine would tell the difference.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use wire::Outcome;

/// Far more than a run needs.
const SIZE: &str = "768m";
/// Within a database's folder; the guard knows it, too.
const MOUNT: &str = "small";
pub(super) const TABLES: &str = "small/tables";
const WAL: &str = "small/wal";

/// Of one database.
pub(crate) struct SmallDisk {
    folder: PathBuf,
    owner: Option<(u32, u32)>,
}

impl SmallDisk {
    pub(super) fn mount(folder: &Path, owner: Option<(u32, u32)>) -> Outcome<Self> {
        mount(&folder.join(MOUNT))?;
        let disk = Self { folder: folder.to_owned(), owner };
        disk.empty()?;
        Ok(disk)
    }

    /// Whether this process may mount anything.
    pub(crate) fn is_possible() -> Outcome<()> {
        let place = std::env::temp_dir().join(format!("tidings-torture-{:08x}", fastrand::u32(..)));
        let mounted = mount(&place);
        if mounted.is_err() {
            std::fs::remove_dir(&place)?;
        }
        mounted?;
        let unmounted = Command::new("umount").arg(&place).status()?;
        if !unmounted.success() {
            return Err(format!("umount {}: {unmounted}", place.display()).into());
        }
        Ok(std::fs::remove_dir(place)?)
    }

    pub(super) fn tables(&self) -> PathBuf {
        self.folder.join(TABLES)
    }

    pub(super) fn wal(&self) -> PathBuf {
        self.folder.join(WAL)
    }

    /// Makes both folders anew.
    pub(super) fn empty(&self) -> Outcome<()> {
        for folder in [self.tables(), self.wal()] {
            super::postgres::remove(&folder)?;
            std::fs::create_dir(&folder)?;
            if let Some((uid, gid)) = self.owner {
                chown(&folder, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }

    /// Leaves not a block; returns how many bytes that took.
    pub(crate) fn fill(&self) -> Outcome<u64> {
        let mut filler = File::create(self.filler())?;
        let mut filled = 0;
        for size in [1 << 20, 1 << 12] {
            let block = vec![0; size];
            while filler.write_all(&block).is_ok() {
                filled += size as u64;
            }
        }
        Ok(filled)
    }

    pub(crate) fn free(&self) -> Outcome<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.folder.join(MOUNT).join("filler")
    }
}

fn mount(place: &Path) -> Outcome<()> {
    std::fs::create_dir(place)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=755"), "tmpfs"]).arg(place);
    let made = mount.output().map_err(|error| format!("cannot run mount: {error}"))?;
    if !made.status.success() {
        return Err(
            format!("no right to mount: {}", String::from_utf8_lossy(&made.stderr).trim()).into()
        );
    }
    Ok(())
}
