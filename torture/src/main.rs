//! `torture run`, `torture losses`, `torture report`, `torture mutants`, `torture list`.
#![expect(clippy::print_stdout, reason = "verdicts are what this program is for")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use torture::mutants::{self, MUTANTS, Mutant};
use torture::{BESIDE_LOSSES, FAULTS, Fault, LOSSES, Options, report};
use wire::Outcome;

/// Breaks a Tidings cluster in every way it knows, and checks that nobody noticed.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a run, then judge it.
    Run(RunArguments),
    /// Make a run in which acknowledged rows are lost, then judge whether everybody was told.
    Losses(Common),
    /// Judge a run again, or every run in a folder.
    Report {
        /// The folder of a run, or one with such folders.
        folder: PathBuf,
    },
    /// Prove that the checker notices: run servers that are wrong on purpose.
    Mutants(MutantsArguments),
    /// Name the faults, those that lose something, and the mutants.
    List,
}

#[derive(clap::Args)]
struct MutantsArguments {
    /// Only these, and not the server as it should be.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Of every run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where histories, reports and logs go; it must have none yet.
    #[arg(long, value_name = "DIR", default_value = "torture-runs/mutants")]
    out: PathBuf,
    /// A server program built with the feature `mutants`, instead of building one.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArguments {
    #[command(flatten)]
    common: Common,
    /// Only these, by name, with commas between them.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
}

#[derive(clap::Args)]
struct Common {
    /// Decides what is sent, who is cut, and which fault comes when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long faults are injected (a fraction is fine); longer if one of them had no turn yet.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Servers on the one database.
    #[arg(long, default_value_t = 3)]
    instances: usize,
    /// Concurrent senders.
    #[arg(long, default_value_t = 8)]
    senders: usize,
    /// Where history, report and logs go. Default: torture-runs/seed-N, or losses-N.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The server program. Default: `tidings` beside this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Run(arguments) => run(arguments).await,
        Command::Losses(arguments) => losses(arguments).await,
        Command::Report { folder } => report::of_runs(&folder).map(|report| print(&report)),
        Command::Mutants(arguments) => hunt(arguments).await,
        Command::List => {
            for (_, name, about) in FAULTS {
                println!("{name:<28}{about}");
            }
            println!();
            for (_, name, about) in LOSSES {
                println!("{name:<28}{about}");
            }
            println!();
            for Mutant { name, about, .. } in MUTANTS {
                println!("{name:<28}{about}");
            }
            Ok(ExitCode::SUCCESS)
        }
    };
    ended.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(2)
    })
}

async fn run(arguments: RunArguments) -> Outcome<ExitCode> {
    let RunArguments { common, faults } = arguments;
    let faults = match faults.is_empty() {
        true => FAULTS.iter().map(|(fault, ..)| *fault).collect(),
        false => faults.iter().map(|name| Fault::named(name)).collect::<Outcome<_>>()?,
    };
    let out = torture::default_folder(common.seed);
    make(common, faults, out).await
}

async fn losses(common: Common) -> Outcome<ExitCode> {
    let losses = LOSSES.iter().map(|(fault, ..)| *fault);
    let faults = losses.chain(BESIDE_LOSSES).collect();
    let out =
        torture::default_folder(common.seed).with_file_name(format!("losses-{}", common.seed));
    make(common, faults, out).await
}

/// Also an interrupted run is judged, as far as it came.
async fn make(common: Common, faults: Vec<Fault>, default_out: PathBuf) -> Outcome<ExitCode> {
    let Common { seed, minutes, instances, senders, out, server } = common;
    let server = match server {
        Some(server) => server,
        None => std::env::current_exe()?.with_file_name("tidings"),
    };
    let out = out.unwrap_or(default_out);
    let length = Duration::try_from_secs_f64(minutes * 60.0)?;
    let options = Options {
        server,
        seed,
        length,
        instances,
        senders,
        faults,
        one_sided: false,
        environment: Vec::new(),
        out: out.clone(),
    };
    torture::run(&options, interrupted()).await?;
    Ok(print(&report::of_run(&out)?))
}

/// One after the other; each line is printed as soon as it is known.
async fn hunt(arguments: MutantsArguments) -> Outcome<ExitCode> {
    let MutantsArguments { names, seed, out, server } = arguments;
    let wanted = mutants::wanted(&names)?;
    let server = server.map_or_else(mutants::build, Ok)?;
    let (names, found) = (mutants::names(), mutants::found_in(&server, &mutants::names())?);
    if let Some(missing) = names.iter().find(|name| !found.contains(name)) {
        return Err(format!("{} has no {missing} in it", server.display()).into());
    }
    println!("seed {seed}\n{:<28}{:<40}{:>9}", "mutant", "caught by", "after");
    let mut as_wanted = true;
    for mutant in wanted {
        for hunted in mutants::hunt(&server, mutant, seed, &out).await? {
            let rules: Vec<String> = hunted.rules.iter().map(|rule| format!("{rule:?}")).collect();
            let rules = if rules.is_empty() { "nothing".to_owned() } else { rules.join(", ") };
            let (name, after) = (hunted.name, hunted.lasted.as_secs_f64());
            let wrong = if hunted.as_wanted { "" } else { "  WRONG: see its folder" };
            println!("{name:<28}{rules:<40}{after:>7.1} s{wrong}");
            as_wanted &= hunted.as_wanted;
        }
    }
    println!("histories and reports are in {}", out.display());
    Ok(if as_wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// ctrl-C, or what a machine sends.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn print(report: &report::Report) -> ExitCode {
    print!("{}", report.text);
    if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
