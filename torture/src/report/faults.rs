//! The table of faults: how often, what they hit, how long recovery took.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::history::{Entry, Event};

/// All injections of one fault.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultLine {
    pub(super) name: String,
    pub(super) injected: usize,
    pub(super) effects: usize,
    pub(super) why: Vec<String>,
    connections: usize,
    in_flight: usize,
    /// Microseconds.
    recoveries: Vec<u64>,
}

pub(super) fn lines(entries: &[Entry]) -> Vec<FaultLine> {
    let mut names = BTreeMap::new();
    let mut lines: BTreeMap<&str, FaultLine> = BTreeMap::new();
    for Entry(_, event) in entries {
        if let Event::Inject { fault, name, in_flight } = event {
            names.insert(*fault, name.as_str());
            let line = lines.entry(name).or_default();
            line.name.clone_from(name);
            line.injected += 1;
            line.in_flight += in_flight;
        }
        let (Event::Effect { fault, .. }
        | Event::NoEffect { fault, .. }
        | Event::Recovered { fault, .. }) = event
        else {
            continue;
        };
        let Some(line) = names.get(fault).and_then(|name| lines.get_mut(name)) else { continue };
        match event {
            Event::Effect { connections, .. } => {
                line.effects += 1;
                line.connections += connections;
            }
            Event::NoEffect { why, .. } => line.why.push(why.clone()),
            Event::Recovered { micros, .. } => line.recoveries.push(*micros),
            _ => {}
        }
    }
    lines.into_values().collect()
}

pub(super) fn merge(all: &mut BTreeMap<String, FaultLine>, more: Vec<FaultLine>) {
    for line in more {
        let sum = all.entry(line.name.clone()).or_default();
        sum.name = line.name;
        sum.injected += line.injected;
        sum.effects += line.effects;
        sum.connections += line.connections;
        sum.in_flight += line.in_flight;
        sum.why.extend(line.why);
        sum.recoveries.extend(line.recoveries);
    }
}

pub(super) fn table(text: &mut String, lines: &[FaultLine]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "  {:<22}{:>9}{:>9}{:>13}{:>11}{:>14}{:>14}",
        "fault", "injected", "effect", "connections", "in flight", "recovery, med", "longest"
    );
    for line in lines {
        let mut sorted = line.recoveries.clone();
        sorted.sort_unstable();
        let seconds = |micros: Option<&u64>| {
            micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.2} s", *micros as f64 / 1e6))
        };
        let _ = writeln!(
            text,
            "  {:<22}{:>9}{:>9}{:>13}{:>11}{:>14}{:>14}",
            line.name,
            line.injected,
            line.effects,
            line.connections,
            line.in_flight,
            seconds(sorted.get(sorted.len() / 2)),
            seconds(sorted.last())
        );
    }
}
