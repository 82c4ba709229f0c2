//! The command line: what `tidings` accepts, and what its exit codes mean.
//!
//! `serve`, `migrate` and `prune` run the library; `send`, `tail` and `history` are clients that speak HTTP
//! to a running server. Only data goes to stdout, so that it can be piped; all words go to stderr.

mod backoff;
mod client;
mod history;
mod migrate;
mod print;
mod prune;
mod send;
mod tail;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use crate::config::{Config, Flags, Invalid, Layers, server_url};
use crate::event_id::EventId;
use crate::serve::ServeError;
use crate::store::{SchemaError, StoreError};
use crate::telemetry;

const EXIT_CODES: &str = "\
Without a command, tidings serves.

Settings are read from flags, then from the environment, then from .env in the working directory;
an empty one counts as unset.

Examples:
  tidings                                        serve on 127.0.0.1:8080, with a private PostgreSQL
  DATABASE_URL=postgres://… tidings serve        serve from a PostgreSQL of your own
  tidings send shop ada '{\"order\": 17}'          send a notification to the user ada of the app shop
  tidings tail shop ada                          print what ada gets, as it comes

Exit codes:
  0    done
  1    failed
  2    wrong usage or configuration
  3    refused by the server (a 4xx answer)
  4    the server, or the database, cannot be reached
  130  interrupted (tail)";

/// Tidings, a persistent notification service: send once, and each client gets it once, in order,
/// however often it drops
#[derive(Parser, Debug)]
#[command(name = "tidings", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Box<Flags>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server (as without a command)
    Serve(Box<Flags>),
    /// Send one notification and print its id
    Send(send::Send),
    /// Print a user's notifications as they come, over any number of reconnects
    Tail(tail::Tail),
    /// Print a user's past notifications
    History(history::History),
    /// Bring the database's schema up to date and exit
    Migrate(migrate::Migrate),
    /// Remove notifications that are older than the retention, as the server does every hour
    Prune(prune::Prune),
}

/// The server that a client command speaks to.
#[derive(Args, Debug)]
struct Server {
    /// Address of the server [env: TIDINGS_URL] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Server {
    fn address(&self) -> Result<Url, Ending> {
        Ok(server_url(&self.url, &Layers::of_this_process()?)?)
    }
}

/// An id among the arguments. Checked here, since the server would name a parameter that nobody typed.
fn id(text: &str) -> Result<String, String> {
    match text.parse::<EventId>() {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(format!("{why}: give the id of a notification")),
    }
}

/// Why a command ended other than done. Each has its own exit code.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
    /// Ctrl-C is how a person ends `tail`: nothing to say.
    #[error("interrupted")]
    Interrupted,
    /// The reader of stdout had enough (`tidings history … | head`): nothing is wrong.
    #[error("stdout was closed")]
    OutputClosed,
}

impl Ending {
    fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Invalid> for Ending {
    fn from(invalid: Invalid) -> Self {
        Self::Usage(invalid.to_string())
    }
}

/// Errors of our own stdin and stdout; the network's become endings in `client`.
impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("cannot read or write: {error}")),
        }
    }
}

impl Cli {
    /// Runs the command. What went wrong is printed here, once.
    pub async fn run(self) -> ExitCode {
        let done = match self.command {
            None => serve(&self.flags).await,
            Some(Command::Serve(flags)) => serve(&flags).await,
            Some(Command::Send(send)) => send.run().await,
            Some(Command::Tail(tail)) => tail.run().await,
            Some(Command::History(history)) => history.run().await,
            Some(Command::Migrate(arguments)) => {
                migrate(arguments.after_restore, &arguments.flags()).await
            }
            Some(Command::Prune(prune)) => prune.run().await,
        };
        let Err(ending) = done else { return ExitCode::SUCCESS };
        if !matches!(ending, Ending::Interrupted | Ending::OutputClosed) {
            say(format_args!("tidings: {ending}"));
        }
        ExitCode::from(ending.code())
    }
}

async fn serve(flags: &Flags) -> Result<(), Ending> {
    let config = configure(flags)?;
    crate::serve(config).await.map_err(|error| Ending::Failed(error.to_string()))
}

async fn migrate(after_restore: bool, flags: &Flags) -> Result<(), Ending> {
    let config = configure(flags)?;
    let failed = |error| match error {
        ServeError::Schema(SchemaError::Store(error)) if error.is_unreachable() => {
            no_database(&error)
        }
        other => Ending::Failed(other.to_string()),
    };
    let (applied, epoch) = match after_restore {
        false => (crate::migrate(&config).await.map_err(failed)?, None),
        true => {
            let (applied, epoch) = crate::migrate_after_restore(&config).await.map_err(failed)?;
            (applied, Some(epoch))
        }
    };
    if let Some(epoch) = epoch {
        say(format_args!(
            "tidings: opened epoch {epoch}: what the restore lost is told to clients that saw it"
        ));
    }
    match applied {
        0 => say("tidings: the schema is up to date"),
        1 => say("tidings: applied 1 migration"),
        count => say(format_args!("tidings: applied {count} migrations")),
    }
    Ok(())
}

fn no_database(error: &StoreError) -> Ending {
    Ending::Unreachable(format!("the database cannot be reached: {}", error.summary()))
}

/// Words for a person, on stderr. Nobody needs to be able to hear them: `eprintln!` would panic.
fn say(words: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// Logging starts as configured, so the warnings about the configuration wait for it.
fn configure(flags: &Flags) -> Result<Config, Ending> {
    let (config, warnings) = Config::load(flags, &Layers::of_this_process()?)?;
    telemetry::init(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_parser_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_serves_with_the_same_flags() {
        let cli = parse("tidings --listen 127.0.0.1:0 --allow-unauthenticated").unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.flags.server.listen.as_deref(), Some("127.0.0.1:0"));
        assert_eq!(cli.flags.server.allow_unauthenticated.as_deref(), Some("on"));
        let cli = parse("tidings serve --allow-unauthenticated=off").unwrap();
        let Some(Command::Serve(flags)) = cli.command else { panic!("not serve") };
        assert_eq!(flags.server.allow_unauthenticated.as_deref(), Some("off"));
    }

    #[test]
    fn data_may_begin_with_a_minus() {
        for line in ["tidings send shop ada -5", "tidings send shop ada -"] {
            assert!(matches!(parse(line).unwrap().command, Some(Command::Send(_))), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2_and_a_closed_stdout_is_none() {
        assert_eq!(parse("tidings send shop").unwrap_err().exit_code(), 2);
        assert_eq!(parse("tidings prune --dry").unwrap_err().exit_code(), 2);
        for no_id in
            ["tail shop ada --after xyz", "tail shop ada --after ", "history shop ada --before 1"]
        {
            let error = parse(&format!("tidings {no_id}")).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(
                error.to_string().contains("not a ULID: give the id of a notification"),
                "{error}"
            );
        }
        assert!(parse("tidings tail shop ada --after earliest").is_ok());
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Ending::from(closed).code(), 0);
        assert_eq!(Ending::from(io::Error::other("disk full")).code(), 1);
    }
}
