//! Proof that the tester can fail: servers that are wrong on purpose (built with the feature `mutants`),
//! each run with what provokes it, and judged every second by the same checker as any other run. The
//! server as it should be, in the same build and the same runs, has to come out clean.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use wire::{Failure, Outcome};

use crate::checker::{self, Findings, Rule};
use crate::faults::Fault;
use crate::history::{self, Entry, Event};
use crate::run::{Options, run};
use crate::{FAULTS, report};

/// The variable by which a server is told which mutant to be.
pub const VARIABLE: &str = "TIDINGS_MUTANT";
/// By then one is caught, or has survived.
const LONGEST: Duration = Duration::from_secs(60);
/// What is left of that is for starting, and for coming to rest.
const FAULTS_FOR: Duration = Duration::from_secs(40);
/// Of a server as it should be: nothing interrupts its run.
const LONGEST_CLEAN: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const INSTANCES: usize = 3;
const SENDERS: usize = 8;

/// A way for a server to be wrong, and how to make that show.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// As the server knows it.
    pub name: &'static str,
    /// What is wrong.
    pub about: &'static str,
    faults: &'static [Fault],
    setting: Setting,
}

/// What a mutant needs beside faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Usual,
    /// A ring and pages that a short run goes beyond.
    SmallBounds,
    /// Only the first server is sent to.
    OneSided,
}

impl Mutant {
    const fn new(name: &'static str, about: &'static str, faults: &'static [Fault]) -> Self {
        Self { name, about, faults, setting: Setting::Usual }
    }

    const fn set(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }
}

const RECONNECTS: &[Fault] = &[Fault::ReconnectAll];
const LOSSES_ALONE: &[Fault] = &[Fault::RestoreBackup, Fault::FailoverAsync];

/// All of them.
pub const MUTANTS: [Mutant; 16] = [
    Mutant::new("ids-before-lane", "positions are issued before the lane is taken", RECONNECTS),
    Mutant::new("notify-is-the-data", "only what a NOTIFY names is dispatched", RECONNECTS),
    Mutant::new("handover-without-id-filter", "going live, all of the ring is sent", RECONNECTS),
    Mutant::new("skip-on-overflow", "who fell off the ring goes on in it", RECONNECTS)
        .set(Setting::SmallBounds),
    Mutant::new(
        "listener-error-ignored",
        "a broken listener is left as it is, and no timer makes up for it",
        &[Fault::ListenerTerminated],
    )
    .set(Setting::OneSided),
    Mutant::new(
        "resend-after-break",
        "an append that broke off is made again at once",
        &[Fault::WriterAnswerLost, Fault::WriterCut],
    ),
    Mutant::new("stale-prev", "the own group is dispatched over a hole", RECONNECTS),
    Mutant::new("page-cursor-is-largest-id", "a page cut short claims all ids", RECONNECTS)
        .set(Setting::SmallBounds),
    Mutant::new("complete-by-sequence", "pages claim what the sequence has issued", RECONNECTS),
    Mutant::new("ping-with-hub-position", "pings name the hub's position", RECONNECTS)
        .set(Setting::SmallBounds),
    Mutant::new("reconnect-without-cursor", "Last-Event-ID is not looked at", RECONNECTS),
    Mutant::new("ring-off-by-one", "the last event to leave the ring is not noted", RECONNECTS)
        .set(Setting::SmallBounds),
    Mutant::new("gap-not-sent", "the stream goes on without its gap", RECONNECTS),
    Mutant::new("cross-app-leak", "dispatched by the audience, in any app", RECONNECTS),
    Mutant::new("key-before-lane", "keys are looked up before the lane", RECONNECTS),
    Mutant::new(
        "restore-unnoticed",
        "a database that went back is taken for the same one",
        LOSSES_ALONE,
    ),
];

/// What became of one.
#[derive(Debug)]
pub struct Hunted {
    /// The mutant, or which bounds the server had that was none.
    pub name: &'static str,
    /// The rules that were broken, beginning with the first to be.
    pub rules: Vec<Rule>,
    /// From the first send to the end.
    pub lasted: Duration,
    /// It is as it should be: a mutant caught, or no mutant and clean.
    pub as_wanted: bool,
    /// Its history, report and logs.
    pub folder: PathBuf,
}

/// Which runs to make: all mutants, or these, and first the server as it should be.
pub fn wanted(names: &[String]) -> Outcome<Vec<Option<Mutant>>> {
    let named = |name: &String| {
        let found = MUTANTS.iter().find(|mutant| mutant.name == name);
        let unknown = || Failure::from(format!("there is no mutant {name}: see `torture list`"));
        found.copied().map(Some).ok_or_else(unknown)
    };
    match names {
        [] => Ok(std::iter::once(None).chain(MUTANTS.map(Some)).collect()),
        names => names.iter().map(named).collect(),
    }
}

/// Builds the mutants in a folder of their own, so that they replace no other build.
pub fn build() -> Outcome<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join("target/mutants");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--package", "tidings", "--features", "mutants"]);
    command.arg("--target-dir").arg(&target).current_dir(&workspace);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("the mutants could not be built: {status}").into());
    }
    Ok(target.join("debug/tidings"))
}

/// The names that a program has in it when it has mutants.
pub fn names() -> Vec<&'static str> {
    MUTANTS.iter().map(|mutant| mutant.name).chain([VARIABLE]).collect()
}

/// Which of these names a program has in it. By grep: without optimisation, going through 200 MB of
/// debugging build for each name would take minutes.
pub fn found_in<'a>(program: &Path, names: &[&'a str]) -> Outcome<Vec<&'a str>> {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["--text", "--only-matching", "--fixed-strings"]);
    grep.args(names.iter().flat_map(|name| ["-e", name])).arg("--").arg(program);
    let output = grep.output().map_err(|error| format!("cannot run grep: {error}"))?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("grep ended with {}: {said}", output.status).into());
    }
    let found = String::from_utf8_lossy(&output.stdout);
    let is_found = |name: &&str| found.lines().any(|line| line == *name);
    Ok(names.iter().copied().filter(is_found).collect())
}

/// Makes the runs of a mutant; of none, one with each kind of bounds.
pub async fn hunt(
    server: &Path,
    mutant: Option<Mutant>,
    seed: u64,
    out: &Path,
) -> Outcome<Vec<Hunted>> {
    let Some(mutant) = mutant else {
        let faults: Vec<Fault> = FAULTS
            .iter()
            .map(|(fault, ..)| *fault)
            .filter(|fault| MUTANTS.iter().any(|mutant| mutant.faults.contains(fault)))
            .collect();
        let mut hunted = Vec::new();
        for (name, setting, faults) in [
            ("none", Setting::Usual, &faults[..]),
            ("none, small bounds", Setting::SmallBounds, &faults),
            ("none, one-sided", Setting::OneSided, &faults),
            ("none, losses", Setting::Usual, LOSSES_ALONE),
        ] {
            let out = out.join(name.replace(", ", "-").replace(' ', "-"));
            let options = options(server, seed, faults, setting, out);
            hunted.push(hunt_one(name, options, false).await?);
        }
        return Ok(hunted);
    };
    let mut options = options(server, seed, mutant.faults, mutant.setting, out.join(mutant.name));
    options.environment.push((VARIABLE.to_owned(), mutant.name.to_owned()));
    Ok(vec![hunt_one(mutant.name, options, true).await?])
}

fn options(server: &Path, seed: u64, faults: &[Fault], setting: Setting, out: PathBuf) -> Options {
    let small = (format!("{VARIABLE}_BOUNDS"), "small".to_owned());
    Options {
        server: server.to_owned(),
        seed,
        length: FAULTS_FOR,
        instances: INSTANCES,
        senders: SENDERS,
        faults: faults.to_vec(),
        one_sided: setting == Setting::OneSided,
        environment: Vec::from_iter((setting == Setting::SmallBounds).then_some(small)),
        out,
    }
}

async fn hunt_one(name: &'static str, options: Options, is_mutant: bool) -> Outcome<Hunted> {
    let folder = options.out.clone();
    let longest = if is_mutant { LONGEST } else { LONGEST_CLEAN };
    run(&options, caught(&folder, longest)).await?;
    report::of_run(&folder)?;
    let entries = history::read(&folder)?;
    let findings = checker::check(&entries);
    let rules = rules(&findings);
    let as_wanted =
        if is_mutant { !rules.is_empty() } else { rules.is_empty() && findings.settled };
    Ok(Hunted { name, rules, lasted: lasted(&entries), as_wanted, folder })
}

/// Returns when the history in `folder` shows a broken rule, or has become too long.
async fn caught(folder: &Path, longest: Duration) {
    let began = Instant::now();
    while began.elapsed() < longest {
        tokio::time::sleep(LOOK_EVERY).await;
        let folder = folder.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            Ok::<_, Failure>(checker::check(&history::read(&folder)?))
        });
        if let Ok(Ok(findings)) = looked.await
            && !findings.violations.is_empty()
        {
            return;
        }
    }
}

/// Each once, in the order in which they were broken.
fn rules(findings: &Findings) -> Vec<Rule> {
    let mut broken: Vec<_> = findings
        .violations
        .iter()
        .map(|violation| (violation.witnesses.iter().max(), violation.rule))
        .collect();
    broken.sort_unstable();
    let mut rules = Vec::new();
    for (_, rule) in broken {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

fn lasted(entries: &[Entry]) -> Duration {
    let sends = |Entry(_, event): &&Entry| matches!(event, Event::Send { .. });
    let first = entries.iter().find(sends).map_or(0, |Entry(at, _)| *at);
    let last = entries.last().map_or(0, |Entry(at, _)| *at);
    Duration::from_micros(last.saturating_sub(first))
}
