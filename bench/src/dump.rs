//! A pg_dump that runs for as long as it is wanted: read slowly, so that it keeps its snapshot and its
//! locks, and takes the same small share of the machine all the time.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::Outcome;

const EVERY: Duration = Duration::from_millis(20);
const PIECE: usize = 64 << 10; // 3 MiB/s: a minute and more for a million rows

/// A running dump.
pub(crate) struct Dump {
    process: Child,
    reading: JoinHandle<std::io::Result<ChildStdout>>,
    enough: tokio::sync::oneshot::Sender<()>,
}

impl Dump {
    /// Starts it, and returns when it has its snapshot and writes data.
    pub(crate) async fn start(database_url: &str) -> Outcome<Self> {
        let folder = std::env::var("TIDINGS_POSTGRES_BIN").unwrap_or_default();
        let program =
            if folder.is_empty() { "pg_dump".into() } else { format!("{folder}/pg_dump") };
        let mut process = Command::new(&program)
            .args(["--schema", "tidings", "--dbname", database_url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let mut stdout = process.stdout.take().ok_or("pg_dump has no standard output")?;
        let mut piece = vec![0; PIECE];
        // The schema alone is not that long.
        for _ in 0..16 {
            stdout.read_exact(&mut piece).await?;
        }
        let (enough, mut stop) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn(async move {
            while stop.try_recv().is_err() {
                if stdout.read(&mut piece).await? == 0 {
                    break;
                }
                tokio::time::sleep(EVERY).await;
            }
            Ok(stdout)
        });
        Ok(Self { process, reading, enough })
    }

    /// Fails if it has ended.
    pub(crate) fn still_runs(&self) -> Outcome<()> {
        match self.reading.is_finished() {
            true => Err("pg_dump ended before the sends did: use more rows".into()),
            false => Ok(()),
        }
    }

    /// Lets it run to its end, which must be a good one.
    pub(crate) async fn finish(mut self) -> Outcome<()> {
        let _ = self.enough.send(());
        let mut stdout = self.reading.await??;
        tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
        let ended = self.process.wait().await?;
        if ended.success() { Ok(()) } else { Err(format!("pg_dump failed: {ended}").into()) }
    }
}
