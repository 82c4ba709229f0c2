//! The server's log: a plain file that it appends to, so that nothing of ours has to keep up with
//! it, cut by us so that it never fills the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// There are at most two files of about this size.
const LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// How much of the end of a log an error message quotes.
const QUOTED_LINES: usize = 8;
const QUOTED_BYTES: u64 = 4096;

/// Keeps the last run's log as `postgres.log.old` and opens an empty one.
pub(super) fn begin(log: &Path) -> io::Result<File> {
    match fs::rename(log, old(log)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(log)
}

/// Sets a log aside that has grown too long. The server goes on writing to the same file, so it is
/// copied and emptied; a line written between the two is lost, which a log can bear.
pub(super) fn trim(log: &Path) -> io::Result<()> {
    trim_to(log, LIMIT_BYTES)
}

fn trim_to(log: &Path, limit: u64) -> io::Result<()> {
    if fs::metadata(log)?.len() <= limit {
        return Ok(());
    }
    // Only as much as fits: one burst may have written far more than the disk has room to copy.
    let mut from = File::open(log)?;
    from.seek(SeekFrom::End(-i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut to =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(old(log))?;
    io::copy(&mut from.take(limit), &mut to)?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

/// The end of a log, as part of a sentence.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(QUOTED_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => last_lines(&text),
        Err(error) => format!("(unreadable: {error})"),
    }
}

pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "(it printed nothing)".to_owned();
    }
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join(" | ")
}

fn old(log: &Path) -> PathBuf {
    log.with_extension("log.old")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_grows_too_long_is_set_aside_while_the_server_goes_on_writing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("postgres.log");
        let mut server = begin(&log).unwrap();
        server.write_all(b"old line\nlast line").unwrap();

        trim_to(&log, 9).unwrap();
        server.write_all(b"next").unwrap();

        assert_eq!(fs::read_to_string(&log).unwrap(), "next");
        assert_eq!(fs::read_to_string(old(&log)).unwrap(), "last line");
    }

    #[test]
    fn a_new_run_begins_an_empty_log_and_keeps_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("postgres.log");
        begin(&log).unwrap().write_all(b"first").unwrap();

        begin(&log).unwrap().write_all(b"second").unwrap();

        assert_eq!(fs::read_to_string(&log).unwrap(), "second");
        assert_eq!(fs::read_to_string(old(&log)).unwrap(), "first");
    }

    #[test]
    fn only_the_end_of_a_log_is_quoted() {
        let lines: Vec<String> = (1..=20).map(|n| format!("line {n}\n")).collect();
        assert!(last_lines(&lines.concat()).starts_with("line 13 | line 14"));
        assert_eq!(last_lines("\n"), "(it printed nothing)");
    }
}
