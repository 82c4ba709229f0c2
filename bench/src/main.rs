//! Black-box benchmarks of a Tidings server. It shares no code with the server, and every command
//! checks what it measures: a result that is lost, doubled, altered or out of order ends it with
//! exit code 1. Each command is a file; the README says what each one measures.
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use wire::{Failure, Outcome, http, sse, stream, timely};

use crate::report::{Figures, Report};
use crate::target::{Source, Target};

mod abuse;
mod check;
mod cut_client;
mod cuts;
mod database;
mod dump;
#[cfg(test)]
mod fake_server;
mod fanout;
mod follower;
mod idle;
mod latency;
mod live;
mod machine;
mod old_partition;
mod outbox;
mod payload;
mod proxy;
mod reconnect;
mod report;
mod retention;
mod sender;
mod senders_order;
mod sends;
mod spawn;
mod states;
mod stats;
mod subscriber;
mod target;

/// Measures a Tidings server from outside, and checks every result.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// A running server to measure, instead of one started for each run.
    #[arg(long, global = true, conflicts_with = "spawn", value_name = "http://HOST:PORT")]
    url: Option<String>,
    /// The server program to start for each run, on a free port, with a fresh data folder.
    /// Default: `tidings` beside this program.
    #[arg(long, global = true, value_name = "PROGRAM")]
    spawn: Option<PathBuf>,
    /// The server's database: a started server uses it instead of a private one, and what is
    /// checked against the table is read there.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// How often to measure.
    #[arg(long, global = true, default_value_t = 3)]
    runs: usize,
    /// Threads of the generator; one is cheapest when it shares few cores with the server.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Durable sends a second, each delivered to a live subscriber.
    Sends(sends::Options),
    /// Latency from send to delivery at a constant rate.
    Latency(latency::Options),
    /// Memory of the server for each idle stream.
    Idle(idle::Options),
    /// One notification to many subscribers of one user, or to everyone in an app.
    Fanout(fanout::Options),
    /// Exactly once and in order for clients that are cut again and again.
    Cuts(cuts::Options),
    /// Many clients that come back at once, and what everybody else notices of it.
    Reconnect(reconnect::Options),
    /// Slow and bad clients: the server's memory, and what everybody else notices of them.
    Abuse(abuse::Options),
    /// The p99 of sends while a partition is removed, alone and beside a running pg_dump.
    Retention(retention::Options),
    /// Changes of inbox state a second, and what they cost sends beside them.
    States(states::Options),
    /// Delay of others while one app sends a million from SQL.
    Outbox(outbox::Options),
    /// Order across two servers on one database, and throughput under an old snapshot.
    SendersOrder(senders_order::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{}", machine::line());
    let ended = runtime(arguments.threads).and_then(|runtime| {
        let ended = runtime.block_on(until_interrupted(measure(arguments)));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments) -> Outcome<()> {
    raise_open_files()?;
    let Arguments { command, url, spawn, database_url, runs, .. } = arguments;
    let source = Source::new(url.as_deref(), spawn, database_url)?;
    let mut report = Report::default();
    for _ in 0..runs {
        report.add(command.run(&source).await?);
    }
    report.print_median();
    Ok(())
}

impl Command {
    async fn run(&self, source: &Source) -> Outcome<Figures> {
        if let Self::SendersOrder(options) = self {
            return senders_order::run(options, source).await;
        }
        let target = source.open().await?;
        let figures = self.measure(&target).await;
        // Streams are closed by the runtime, not by this task: time for that, or the server would
        // be stopped with all of them open and would drain them first.
        tokio::time::sleep(CLOSING).await;
        figures
    }

    async fn measure(&self, target: &Target) -> Outcome<Figures> {
        match self {
            Self::Sends(options) => sends::run(options, target).await,
            Self::Latency(options) => latency::run(options, target).await,
            Self::Idle(options) => idle::run(options, target).await,
            Self::Fanout(options) => fanout::run(options, target).await,
            Self::Cuts(options) => cuts::run(options, target).await,
            Self::Reconnect(options) => reconnect::run(options, target).await,
            Self::Abuse(options) => abuse::run(options, target).await,
            Self::Retention(options) => retention::run(options, target).await,
            Self::States(options) => states::run(options, target).await,
            Self::Outbox(options) => outbox::run(options, target).await,
            Self::SendersOrder(_) => unreachable!("it starts servers of its own"),
        }
    }
}

fn runtime(threads: usize) -> Outcome<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(threads.max(1)).enable_all().build()?)
}

/// A signal ends the measurement by dropping it, so that the servers it started are stopped.
async fn until_interrupted(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => Err("terminated".into()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

/// Ten thousand streams need ten thousand open files, here and in the server.
fn raise_open_files() -> Outcome<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}

const CLOSING: Duration = Duration::from_millis(200);

/// A name nobody else has, so that a server with other notifications can be measured too.
fn random_name(prefix: impl fmt::Display) -> String {
    format!("{prefix}-{:012x}", fastrand::u64(..) >> 16)
}

/// `count` users of one app.
fn users(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user-{number}")).collect()
}
