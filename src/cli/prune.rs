//! `tidings prune`: the arguments, and what was or would be removed, a line each.

use std::io::Write;

use clap::Args;

use super::{Ending, configure, no_database, say};
use crate::config::{DatabaseFlags, Flags, LogFlags, RetentionFlags};
use crate::prune::PruneError;
use crate::retention::Removal;
use crate::store::Partition;

const EXAMPLES: &str = "\
Without DATABASE_URL this is about the private PostgreSQL, through the running server if one runs.
Clients whose cursors lie in what is removed are told with a gap. It can run beside servers.

Examples:
  tidings prune --dry-run
  tidings prune --retention 7d
  DATABASE_URL=postgres://… tidings prune";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Prune {
    /// Print what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionFlags,
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl Prune {
    pub(super) async fn run(self) -> Result<(), Ending> {
        let Prune { dry_run, retention, database, log } = self;
        let config = configure(&Flags { retention, database, log, ..Flags::default() })?;
        let (mut partitions, mut rows) = (0, 0);
        let mut printed = Ok(());
        let pruned = crate::prune(&config, dry_run, |removal| {
            match &removal {
                Removal::Partition(_) => partitions += 1,
                Removal::AppRows { rows: more, .. } => rows += more,
            }
            if printed.is_ok() {
                printed = writeln!(std::io::stdout().lock(), "{}", line(&removal));
            }
        })
        .await
        .map_err(ending)?;
        for app in pruned.idle {
            let (app, retention) = (app.app, app.retention);
            say(format_args!(
                "tidings: the app {app} keeps its notifications for {retention}, which has no effect: for all it is less"
            ));
        }
        let done = if dry_run { "would remove" } else { "removed" };
        let s = if partitions == 1 { "" } else { "s" };
        say(format_args!(
            "tidings: {done} {partitions} partition{s}, and {rows} rows of apps that keep theirs for a \
             shorter time"
        ));
        printed?;
        match pruned.in_use {
            None => Ok(()),
            Some(partition) => Err(Ending::Failed(format!(
                "{} is in use, by a dump or another long query: its removal and what follows wait \
                 for that to end; a running server goes on by itself, or run `tidings prune` again",
                partition.name
            ))),
        }
    }
}

fn line(removal: &Removal) -> String {
    match removal {
        Removal::Partition(partition) => format!(
            "partition {}  {}  about {} rows  {} bytes",
            partition.name,
            days(partition),
            partition.rows_estimate,
            partition.bytes
        ),
        Removal::AppRows { app, rows } => {
            format!("app {}  {rows} rows older than {}", app.app, app.retention)
        }
    }
}

/// Its bounds are whole days, in UTC.
fn days(partition: &Partition) -> String {
    let day = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%d").to_string();
    let to = partition.to().map(day).unwrap_or_default();
    match partition.from() {
        Some(from) => format!("{} to {to}", day(from)),
        None => format!("before {to}"),
    }
}

fn ending(error: PruneError) -> Ending {
    match error {
        PruneError::Store(error) if error.is_unreachable() => no_database(&error),
        other => Ending::Failed(other.to_string()),
    }
}
