//! The shortest history that shows a broken rule: its witnesses in the order of time, with the faults
//! that were on meanwhile.

use std::fmt::Write;

use crate::history::{Entry, Event};

/// Data is recognised by its beginning.
const SHOWN_CHARS: usize = 150;
/// A fault's effects outlast it for a while.
const AROUND: u64 = 2_000_000;

pub(super) fn write(text: &mut String, entries: &[Entry], witnesses: &[usize]) {
    let shown = witnesses.iter().filter_map(|at| entries.get(*at));
    let times: Vec<u64> = shown.filter(|entry| tells_when(entry)).map(|Entry(at, _)| *at).collect();
    let first = times.iter().min().copied().unwrap_or(0);
    let last = times.iter().max().copied().unwrap_or(u64::MAX);
    for (place, entry) in entries.iter().enumerate() {
        let Entry(at, event) = entry;
        let around = *at >= first.saturating_sub(AROUND) && *at <= last.saturating_add(AROUND);
        if witnesses.contains(&place) || (is_fault(event) && around) {
            let _ = writeln!(text, "    {:>11.6} s  {}", *at as f64 / 1e6, line(event));
        }
    }
}

/// The table is read at the end, whenever its rows were written; a connection may be long open.
fn tells_when(Entry(_, event): &Entry) -> bool {
    !matches!(event, Event::Stored { .. } | Event::Open { .. })
}

fn is_fault(event: &Event) -> bool {
    matches!(
        event,
        Event::Inject { .. }
            | Event::Effect { .. }
            | Event::Healed { .. }
            | Event::Recovered { .. }
    )
}

fn line(event: &Event) -> String {
    let text = match event {
        Event::Send { send, sender, app, by, key, rows, .. } => {
            let to: Vec<&str> = rows.iter().map(|(audience, _)| audience.as_str()).collect();
            let key = key.as_ref().map_or("without a key", |key| key);
            format!("sender {sender}: send {send} in {app} by {by:?}, {key}, to {}", to.join(" "))
        }
        Event::Attempt { send, attempt, to } => format!("send {send}, attempt {attempt}: to {to}"),
        Event::Answer { send, attempt, status, ids, problem } => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let problem = problem.as_deref().unwrap_or_default();
            format!("send {send}, attempt {attempt}: {status} {problem}{}", ids.join(" "))
        }
        Event::Broke { send, attempt, how } => format!("send {send}, attempt {attempt}: {how}"),
        Event::Open { client, connection, to, cursor } => {
            let cursor =
                cursor.map_or_else(|| "without a cursor".to_owned(), |id| format!("after {id}"));
            format!("client {client}, connection {connection}: to {to}, {cursor}")
        }
        Event::Frame { client, connection, raw } => {
            format!(
                "client {client}, connection {connection}: {}",
                raw.trim_end().replace('\n', " | ")
            )
        }
        Event::Close { client, connection, how } => {
            format!("client {client}, connection {connection}: {how}")
        }
        Event::Read { reader, ids } => {
            let ends = (ids.first().map(ToString::to_string), ids.last().map(ToString::to_string));
            format!(
                "reader {reader}: {} rows, {} to {}",
                ids.len(),
                ends.0.unwrap_or_default(),
                ends.1.unwrap_or_default()
            )
        }
        Event::Stored { id, app, audience, data, gone, .. } => {
            format!(
                "in the table at the end: {id} for {audience} of {app}{} {data}",
                if *gone { ", gone" } else { "" }
            )
        }
        Event::Inject { fault, name, in_flight } => {
            format!("FAULT {fault}, {name}: {in_flight} sends in flight")
        }
        Event::Effect { fault, observed, connections } => {
            format!("FAULT {fault}: {observed} ({connections} connections)")
        }
        Event::Healed { fault } => format!("FAULT {fault}: healed"),
        Event::Recovered { fault, micros } => {
            format!("FAULT {fault}: recovered after {:.2} s", *micros as f64 / 1e6)
        }
        other => format!("{other:?}"),
    };
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
