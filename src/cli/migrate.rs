//! `tidings migrate`: the arguments. The work is the library's.

use clap::Args;

use crate::config::{DatabaseFlags, Flags, LogFlags};

const EXAMPLES: &str = "\
Without DATABASE_URL this migrates the private PostgreSQL, through the running server if one runs.

Examples:
  tidings migrate
  DATABASE_URL=postgres://… tidings migrate";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Migrate {
    /// After the database was restored from a copy of its files, or into the same cluster, which leaves
    /// no trace: clients that have seen what is lost are told so. Stop the servers before the restore
    #[arg(long)]
    pub(super) after_restore: bool,
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(flatten)]
    log: LogFlags,
}

impl Migrate {
    pub(super) fn flags(self) -> Flags {
        Flags { database: self.database, log: self.log, ..Flags::default() }
    }
}
