//! Says what a history shows: the verdict, the faults with how long recovery took, a picture, and for
//! each broken rule the shortest history that shows it.

mod faults;
mod timeline;
mod witness;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use wire::Outcome;

use crate::checker::{self, Findings, Rule, Violation};
use crate::history::{self, Entry, Event};

use faults::FaultLine;

/// Of one rule; the others are counted.
const SHOWN: usize = 3;
const TEXT: &str = "report.txt";
const PICTURE: &str = "timeline.svg";

/// What was said about one run.
pub struct Report {
    /// Everything, for a person.
    pub text: String,
    /// No rule was broken, and every fault that was injected took effect at least once.
    pub clean: bool,
    /// Faults that took effect at least once, by name.
    pub effective: Vec<String>,
}

/// Judges the run in `folder`, and writes the text and the picture beside its history.
pub fn of_run(folder: &Path) -> Outcome<Report> {
    let entries = history::read(folder)?;
    let findings = checker::check(&entries);
    let lines = faults::lines(&entries);
    let vain: Vec<&FaultLine> = lines.iter().filter(|line| line.effects == 0).collect();
    let vain_losses = findings.counts.losses > 0 && findings.counts.lost == 0;
    let clean =
        findings.violations.is_empty() && vain.is_empty() && !vain_losses && !entries.is_empty();

    let mut text = String::new();
    heading(&mut text, &entries, &findings, clean);
    for line in &vain {
        let _ = writeln!(text, "  {} never took effect: {}", line.name, line.why.join("; "));
    }
    if vain_losses {
        text.push_str("  nothing was lost that anybody knew of, so nothing is shown\n");
    }
    text.push('\n');
    faults::table(&mut text, &lines);
    violations(&mut text, &entries, &findings.violations);

    std::fs::write(folder.join(TEXT), &text)?;
    std::fs::write(folder.join(PICTURE), timeline::picture(&entries))?;
    let _ = writeln!(text, "\nHistory, report and timeline are in {}.", folder.display());
    let effective = lines.iter().filter(|line| line.effects > 0).map(|line| line.name.clone());
    Ok(Report { text, clean, effective: effective.collect() })
}

/// Judges the run in `folder`, or each run in a folder of it.
pub fn of_runs(folder: &Path) -> Outcome<Report> {
    if folder.join(history::FILE).exists() {
        return of_run(folder);
    }
    let mut runs: Vec<PathBuf> =
        std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    runs.retain(|run| run.join(history::FILE).exists());
    runs.sort();
    if runs.is_empty() {
        return Err(format!("there is no run in {}", folder.display()).into());
    }
    let (mut all, mut lines, mut failed) = (String::new(), BTreeMap::new(), 0);
    for run in &runs {
        let report = of_run(run)?;
        failed += usize::from(!report.clean);
        let first = report.text.lines().next().unwrap_or_default().to_owned();
        let _ = writeln!(all, "{first}  ({})", run.display());
        faults::merge(&mut lines, faults::lines(&history::read(run)?));
    }
    let lines: Vec<FaultLine> = lines.into_values().collect();
    let _ = writeln!(all, "\n{} runs, {failed} not clean\n", runs.len());
    faults::table(&mut all, &lines);
    let effective = lines.iter().filter(|line| line.effects > 0).map(|line| line.name.clone());
    Ok(Report { text: all, clean: failed == 0, effective: effective.collect() })
}

fn heading(text: &mut String, entries: &[Entry], findings: &Findings, clean: bool) {
    let seconds = entries.last().map_or(0, |Entry(at, _)| at / 1_000_000);
    let began = entries.first().map(|Entry(_, event)| event);
    if let Some(Event::Began { seed, instances, .. }) = began {
        let verdict = if clean { "CLEAN" } else { "FAILED" };
        let _ = writeln!(text, "{verdict}: seed {seed}, {instances} instances, {seconds} s");
    }
    if !findings.settled {
        text.push_str("  The run was interrupted: what was still to come is not judged.\n");
    }
    let counts = findings.counts;
    let _ = writeln!(
        text,
        "  {} sends, {} acknowledged, {} of unknown outcome; {} rows, {} read by cursor",
        counts.sends, counts.acknowledged, counts.unknown, counts.rows, counts.reads
    );
    let _ = writeln!(
        text,
        "  {} deliveries on {} streams, {} pings; {} rules broken",
        counts.deliveries,
        counts.streams,
        counts.pings,
        findings.violations.len()
    );
    if counts.losses > 0 {
        let _ = writeln!(
            text,
            "  went back {} times: {} rows lost that somebody knew of, {} gaps told",
            counts.losses, counts.lost, counts.told
        );
    }
    for Entry(_, event) in entries {
        if let Event::Skipped { name, why } = event {
            let _ = writeln!(text, "  skipped {name}: {why}");
        }
    }
}

fn violations(text: &mut String, entries: &[Entry], violations: &[Violation]) {
    let mut by_rule: BTreeMap<Rule, Vec<&Violation>> = BTreeMap::new();
    for violation in violations {
        by_rule.entry(violation.rule).or_default().push(violation);
    }
    for (rule, mut broken) in by_rule {
        let _ = writeln!(text, "\n{rule:?}: broken {} times", broken.len());
        // The shortest histories are read first.
        broken.sort_by_key(|violation| violation.witnesses.len());
        for violation in broken.iter().take(SHOWN) {
            let _ = writeln!(text, "\n  {}", violation.what);
            witness::write(text, entries, &violation.witnesses);
        }
    }
}
