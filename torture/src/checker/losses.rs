//! What may be lost: the database went back to a copy of itself. The history says up to when the copy is
//! complete, which row was the last in it, and which ids were given until it took over. So what was lost
//! is known row by row, and nothing else may be missing.

use std::collections::BTreeMap;

use ulid::Ulid;

use super::model::{Attempt, Model, Row, Send, Told};
use super::{Findings, Rule};
use crate::history::{Entry, Event};

/// One time that the database went back. Times are in µs.
pub(super) struct Loss {
    /// Where the history tells of it.
    pub(super) at: usize,
    /// What was known before is in the copy.
    pub(super) complete: u64,
    /// What was asked for from then on is of the time after.
    gone: u64,
    /// The last row of the copy.
    pub(super) kept: Ulid,
    /// Below every id of the time after.
    pub(super) until: Ulid,
}

impl Loss {
    pub(super) fn took(&self, id: Ulid) -> bool {
        self.kept < id && id < self.until
    }

    /// The acknowledgement came when its rows were in no copy yet, to a request of before.
    fn may_have_taken(&self, attempt: &Attempt, entries: &[Entry]) -> bool {
        let Some(Entry(answered, Event::Answer { ids, .. })) =
            attempt.ended_at.map(|at| &entries[at])
        else {
            return false;
        };
        let Entry(asked, _) = entries[attempt.at];
        *answered >= self.complete && asked <= self.gone && ids.iter().all(|id| self.took(*id))
    }
}

/// All of them, in the order of time.
#[derive(Default)]
pub(super) struct Losses(Vec<Loss>);

impl Losses {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let (mut losses, mut copied) = (Vec::new(), None);
        for (at, Entry(_, event)) in entries.iter().enumerate() {
            match event {
                Event::Copied { complete } => copied = Some(*complete),
                Event::WentBack { gone, kept, until } => {
                    let (gone, kept, until) = (*gone, *kept, *until);
                    // Without a copy nothing may be lost.
                    let complete = copied.take().unwrap_or(gone);
                    losses.push(Loss { at, complete, gone, kept, until });
                }
                _ => {}
            }
        }
        Self(losses)
    }

    /// Their number.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Which of them took the row of this id, if it is in the table no more.
    pub(super) fn that_took(&self, id: Ulid) -> Option<usize> {
        self.0.iter().position(|loss| loss.took(id))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Loss> {
        self.0.iter()
    }

    pub(super) fn get(&self, number: usize) -> &Loss {
        &self.0[number]
    }

    /// Takes the lost ones out of these.
    pub(super) fn take_from<'a>(
        &self,
        rows: &mut BTreeMap<Ulid, Row<'a>>,
    ) -> BTreeMap<Ulid, Row<'a>> {
        rows.extract_if(.., |id, _| self.that_took(*id).is_some()).collect()
    }

    /// Every acknowledgement of the send is one that went with the same loss.
    pub(super) fn may_have_taken(&self, send: &Send<'_>, entries: &[Entry]) -> bool {
        self.0.iter().any(|loss| {
            let mut acknowledged =
                send.attempts.values().filter(|attempt| attempt.told == Told::Stored);
            acknowledged.all(|attempt| loss.may_have_taken(attempt, entries))
        })
    }
}

pub(super) fn check(model: &Model<'_>, findings: &mut Findings) {
    findings.counts.losses = model.losses.count();
    findings.counts.lost = model.lost.len();
    kept_is_kept(model, findings);
    lost_is_lost(model, findings);
}

/// What was known when the copy was complete is not among what it lacks.
fn kept_is_kept(model: &Model<'_>, findings: &mut Findings) {
    for (at, Entry(when, event)) in model.entries.iter().enumerate() {
        let (Event::Answer { ids, .. } | Event::Read { ids, .. }) = event else { continue };
        for id in ids {
            let loss = model.losses.that_took(*id).map(|number| model.losses.get(number));
            match loss {
                Some(loss) if *when < loss.complete => {
                    let what = format!("{id} was known when the copy was complete, and is lost");
                    findings.add(Rule::Lost, what, vec![at, loss.at]);
                }
                None if model.settled
                    && matches!(event, Event::Read { .. })
                    && !model.rows.contains_key(id) =>
                {
                    findings.add(Rule::Lost, format!("{id} was read, and is not stored"), vec![at]);
                }
                _ => {}
            }
        }
    }
    for (id, row) in &model.lost {
        let loss = model.losses.that_took(*id).map(|number| model.losses.get(number));
        if let Some(loss) = loss.filter(|loss| model.entries[row.at].0 < loss.complete) {
            let what = format!("{id} was delivered when the copy was complete, and is lost");
            findings.add(Rule::Lost, what, vec![row.at, loss.at]);
        }
    }
}

/// No id of the time before is given, or told, anew.
fn lost_is_lost(model: &Model<'_>, findings: &mut Findings) {
    for (at, Entry(_, event)) in model.entries.iter().enumerate() {
        let Event::Answer { send, attempt, ids, .. } = event else { continue };
        let loss = ids.first().and_then(|id| model.losses.that_took(*id));
        let attempt = model.sends.get(send).and_then(|send| send.attempts.get(attempt));
        let (Some(number), Some(attempt)) = (loss, attempt) else { continue };
        let loss = model.losses.get(number);
        if model.entries[attempt.at].0 > loss.gone {
            let what = format!("send {send} was acknowledged with ids that had been lost before");
            findings.add(Rule::Lost, what, vec![loss.at, attempt.at, at]);
        }
    }
    if !model.settled {
        return;
    }
    for (id, row) in &model.rows {
        if let Some(number) = model.losses.that_took(*id) {
            let what = format!("the row {id} has an id from before the database went back");
            findings.add(Rule::OutOfOrder, what, vec![row.at, model.losses.get(number).at]);
        }
    }
}
