//! The senders' side: what was acknowledged is stored, once, in order, and nothing else is.

use std::collections::HashMap;

use ulid::Ulid;

use super::model::{Model, Row, STATE_ENTRY, Send, Told};
use super::{Findings, Rule, is_lost};
use crate::history::{Entry, Event, SendNumber, Way};

const UNAVAILABLE: [&str; 4] =
    ["overloaded", "database-unreachable", "draining", "outcome-unknown"];

pub(super) fn check(model: &Model<'_>, findings: &mut Findings) {
    let rows = model.rows_of_sends();
    for (number, send) in &model.sends {
        let rows = rows.get(number).map_or(&[][..], Vec::as_slice);
        count(send, findings);
        outcome(model, *number, send, rows, findings);
        contiguous(model, *number, send, rows, findings);
    }
    answers(model, findings);
    for (id, row) in &model.rows {
        let from_us = row.send.and_then(|send| model.sends.get(&send));
        if row.event != Some(STATE_ENTRY) && from_us.is_none_or(|send| send.event != row.event) {
            findings.add(Rule::NotSent, format!("nobody sent the row {id} as it is"), vec![row.at]);
        }
    }
    findings.counts.rows = model.rows.len();
    order(model, &rows, findings);
    sessions(model, &rows, findings);
    readers(model, findings);
}

fn count(send: &Send<'_>, findings: &mut Findings) {
    findings.counts.sends += 1;
    if send.was(Told::Stored) {
        findings.counts.acknowledged += 1;
    } else if send.was(Told::Unknown) {
        findings.counts.unknown += 1;
    }
}

impl Send<'_> {
    fn was(&self, told: Told) -> bool {
        self.attempts.values().any(|attempt| attempt.told == told)
    }
}

fn outcome(
    model: &Model<'_>,
    number: SendNumber,
    send: &Send<'_>,
    rows: &[(Ulid, &Row<'_>)],
    findings: &mut Findings,
) {
    let mut story = model.story_of(number);
    story.extend(rows.iter().map(|(_, row)| row.at));
    let expected = send.rows.len();
    if rows.len() > expected {
        let ids: Vec<String> = rows.iter().map(|(id, _)| id.to_string()).collect();
        let what = format!("send {number} is stored more than once: {}", ids.join(", "));
        findings.add(Rule::StoredTwice, what, story);
    } else if send.was(Told::Stored) {
        let lost = rows.is_empty() && model.losses.may_have_taken(send, model.entries);
        if model.settled && rows.len() < expected && !lost {
            let what = format!(
                "send {number} was acknowledged, and {} of its {expected} rows are stored",
                rows.len()
            );
            findings.add(Rule::Lost, what, story);
        }
    } else if !rows.is_empty() && !send.was(Told::Unknown) {
        findings.add(
            Rule::RefusedButStored,
            format!("send {number} was refused and is stored"),
            story,
        );
    } else if !rows.is_empty() && model.settled && rows.len() < expected {
        let what = format!("of send {number} only {} of {expected} rows are stored", rows.len());
        findings.add(Rule::Scattered, what, story);
    } else if send.key.is_some() && model.settled {
        findings.add(
            Rule::NeverAnswered,
            format!("send {number} has a key and was never answered"),
            story,
        );
    }
}

/// The ids of one request follow each other, with no other row between them.
fn contiguous(
    model: &Model<'_>,
    number: SendNumber,
    send: &Send<'_>,
    rows: &[(Ulid, &Row<'_>)],
    findings: &mut Findings,
) {
    let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { return };
    if !model.settled || rows.len() != send.rows.len() {
        return;
    }
    let in_order = rows
        .iter()
        .zip(send.rows)
        .all(|((_, row), (audience, data))| row.audience == audience && row.data == data);
    let between = model.rows.range(*first..=*last).count();
    // What comes by SQL is moved into the feed together with what others sent.
    if !in_order || (between != rows.len() && send.way != Way::Sql) {
        let what =
            format!("the rows of send {number} are not stored one after the other in its order");
        let mut story = model.story_of(number);
        story.extend(model.rows.range(*first..=*last).map(|(_, row)| row.at));
        findings.add(Rule::Scattered, what, story);
    }
}

/// What an answer may say: these requests are all good, so none is refused for what it is.
fn is_of_the_contract(way: Way, status: u16, problem: Option<&str>) -> bool {
    match status {
        201 => true,
        503 => problem.is_some_and(|problem| UNAVAILABLE.contains(&problem)),
        _ => way == Way::Sql,
    }
}

/// What an answer says is what is stored.
fn answers(model: &Model<'_>, findings: &mut Findings) {
    let mut first_answers: HashMap<SendNumber, (usize, &[Ulid])> = HashMap::new();
    let loss_of = |ids: &[Ulid]| ids.first().and_then(|id| model.losses.that_took(*id));
    for (at, Entry(_, event)) in model.entries.iter().enumerate() {
        let Event::Answer { send, status, ids, problem, .. } = event else { continue };
        let Some(sent) = model.sends.get(send) else { continue };
        if !is_of_the_contract(sent.way, *status, problem.as_deref()) {
            let problem = problem.as_deref().unwrap_or("without a problem");
            let what = format!("send {send} was answered {status}, {problem}");
            findings.add(Rule::Contract, what, vec![sent.at, at]);
        }
        if *status != 201 {
            continue;
        }
        let loss = loss_of(ids);
        // What was lost is carried out again if it is repeated: its key is lost, too.
        let earlier = first_answers
            .remove(send)
            .filter(|(_, earlier)| loss_of(earlier).is_none_or(|other| Some(other) == loss));
        let (first_at, first) = earlier.unwrap_or((at, ids));
        first_answers.insert(*send, (first_at, first));
        if first != ids.as_slice() {
            findings.add(
                Rule::AnswersDiffer,
                format!("send {send} was acknowledged with other ids the second time"),
                vec![first_at, at],
            );
        }
        if sent.way == Way::Sql {
            continue;
        }
        let told_right = ids.len() == sent.rows.len()
            && ids.iter().zip(sent.rows).all(|(id, (audience, data))| {
                // Absent rows are told of as lost.
                model.rows.get(id).is_none_or(|row| row.audience == audience && row.data == data)
            });
        // Whether the loss can have taken it is judged by the whole send.
        let known = loss.is_some() || ids.iter().any(|id| model.rows.contains_key(id));
        if !told_right || (model.settled && !known) {
            let mut story = model.story_of(*send);
            story.extend(ids.iter().filter_map(|id| model.rows.get(id)).map(|row| row.at));
            let what = format!("send {send} was acknowledged with ids that its rows do not have");
            findings.add(Rule::Lost, what, story);
        }
    }
}

/// Real time: a send that began after an id was known to anybody gets larger ones.
fn order(
    model: &Model<'_>,
    rows: &HashMap<SendNumber, Vec<(Ulid, &Row<'_>)>>,
    findings: &mut Findings,
) {
    let mut known = (Ulid::nil(), 0);
    for (at, Entry(_, event)) in model.entries.iter().enumerate() {
        let told = match event {
            Event::Answer { ids, .. } | Event::Read { ids, .. } => ids.iter().copied().max(),
            // A lost cursor comes back in `tidings.ready`.
            Event::Frame { raw, .. } => id_in(raw).filter(|id| !is_lost(*id)),
            Event::Send { send, .. } => {
                let stored = rows.get(send).map_or(&[][..], Vec::as_slice);
                for (id, row) in stored.iter().filter(|(id, _)| *id < known.0) {
                    let what =
                        format!("the row {id} of send {send} is below {}, known before", known.0);
                    findings.add(Rule::OutOfOrder, what, vec![known.1, at, row.at]);
                }
                None
            }
            _ => None,
        };
        if let Some(id) = told.filter(|id| *id > known.0) {
            known = (id, at);
        }
    }
}

/// What one session sends by SQL is stored in the order of its commits.
fn sessions(
    model: &Model<'_>,
    rows: &HashMap<SendNumber, Vec<(Ulid, &Row<'_>)>>,
    findings: &mut Findings,
) {
    let mut last: HashMap<usize, (Ulid, &Row<'_>)> = HashMap::new();
    for (number, send) in model.sends.iter().filter(|(_, send)| send.way == Way::Sql) {
        for (id, row) in rows.get(number).map_or(&[][..], Vec::as_slice) {
            let before = last.insert(send.sender, (*id, *row));
            if let Some((before, other)) = before.filter(|(before, _)| before > id) {
                let sender = send.sender;
                let what = format!("session {sender} sent {before} before {id}");
                findings.add(Rule::OutOfOrder, what, vec![send.at, other.at, row.at]);
            }
        }
    }
}

fn id_in(raw: &str) -> Option<Ulid> {
    let line = raw.lines().find_map(|line| line.strip_prefix("id: "))?;
    Ulid::from_string(line).ok()
}

/// Commit order is id order: a reader by cursor misses nothing.
fn readers(model: &Model<'_>, findings: &mut Findings) {
    for (reader, pages) in &model.readers {
        let mut position = Ulid::nil();
        for at in pages {
            let Entry(_, Event::Read { ids, .. }) = &model.entries[*at] else { continue };
            findings.counts.reads += ids.len();
            for id in ids {
                if *id <= position {
                    let what = format!("reader {reader} read {id} after {position}");
                    findings.add(Rule::ReaderMissed, what, vec![*at]);
                    continue;
                }
                let between = (std::ops::Bound::Excluded(position), std::ops::Bound::Excluded(*id));
                for (missed, row) in model.rows.range(between) {
                    let what = format!(
                        "reader {reader} went from {position} to {id} and never saw {missed}"
                    );
                    findings.add(Rule::ReaderMissed, what, vec![*at, row.at]);
                }
                position = *id;
            }
        }
        if model.settled
            && let Some((last, row)) = model.rows.last_key_value()
            && *last > position
        {
            let what = format!("reader {reader} ended at {position} and never saw {last}");
            findings.add(Rule::ReaderMissed, what, vec![row.at]);
        }
    }
}
