//! Judges a history. A pure function: whatever it says can be said again from the file. It knows the
//! contract and nothing of how the server keeps it.

mod losses;
mod model;
mod sends;
mod streams;
#[cfg(test)]
mod tests;

use std::fmt;

use ulid::Ulid;

use crate::history::{Entry, Event};

use model::Model;

/// Cursors from this time on (Unix ms, in the year 2286) are of nothing that ever was.
pub(crate) const FIRST_LOST_MS: u64 = 10_000_000_000_000;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was acknowledged is in the table at the end, if no loss can have taken it.
    Lost,
    /// No send is stored twice.
    StoredTwice,
    /// What was refused for certain is not stored.
    RefusedButStored,
    /// Every answer to a repeated send names the same ids.
    AnswersDiffer,
    /// The rows of one send follow each other in its order.
    Scattered,
    /// A send with a key is answered in the end.
    NeverAnswered,
    /// The table has what was sent and nothing else.
    NotSent,
    /// An id is larger than every id that was known before its send began.
    OutOfOrder,
    /// A reader by cursor sees every row once, in id order.
    ReaderMissed,
    /// A subscriber gets every row it is entitled to, or is told of a gap.
    Missing,
    /// ... once.
    Doubled,
    /// ... in id order.
    Reordered,
    /// ... and nothing else, nor anything that it was told is lost.
    Foreign,
    /// ... with the bytes that were sent.
    Altered,
    /// Nobody is told of a gap where nothing can have been lost.
    NeedlessGap,
    /// A client whose cursor is of nothing that ever was, or of what was lost, is told of a gap.
    UntoldGap,
    /// What is known to be stored arrives soon, on a stream that says that all is well.
    Late,
    /// A ping's id is never ahead of what was delivered.
    PingTooFar,
    /// `tidings.live` names the number replayed.
    ReplayMiscounted,
    /// Frames come as the contract says.
    Contract,
    /// After a fault everything arrives within a minute.
    NotRecovered,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, in a sentence.
    pub what: String,
    /// Places in the history that show it.
    pub witnesses: Vec<usize>,
}

/// What was looked at, so that a clean verdict on nothing is seen to be one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Sends, whatever became of them.
    pub sends: usize,
    /// Of them answered 201.
    pub acknowledged: usize,
    /// Of them of unknown outcome to the end.
    pub unknown: usize,
    /// Notifications in the table.
    pub rows: usize,
    /// Notifications received by subscribers.
    pub deliveries: usize,
    /// Streams.
    pub streams: usize,
    /// Pings.
    pub pings: usize,
    /// Rows read by cursor.
    pub reads: usize,
    /// Times that the database went back.
    pub losses: usize,
    /// Notifications that went with it, as far as anybody was told of them.
    pub lost: usize,
    /// Times that a subscriber was told so.
    pub told: usize,
}

/// The verdict.
#[derive(Debug, Default)]
pub struct Findings {
    /// What was broken; nothing in a clean history.
    pub violations: Vec<Violation>,
    /// What was looked at.
    pub counts: Counts,
    /// The history ends in good order; else it says nothing of what was still to come.
    pub settled: bool,
}

/// Of nothing that ever was.
fn is_lost(cursor: Ulid) -> bool {
    cursor.timestamp_ms() >= FIRST_LOST_MS
}

/// Checks a history.
pub fn check(entries: &[Entry]) -> Findings {
    let model = Model::of(entries);
    let mut findings = Findings { settled: model.settled, ..Findings::default() };
    sends::check(&model, &mut findings);
    losses::check(&model, &mut findings);
    streams::check(&model, &mut findings);
    for (at, Entry(_, event)) in entries.iter().enumerate() {
        if let Event::NotRecovered { fault, missing } = event {
            let what =
                format!("after fault {fault} the clients {missing:?} did not get everything");
            findings.add(Rule::NotRecovered, what, vec![at]);
        }
    }
    findings
}

impl Findings {
    fn add(&mut self, rule: Rule, what: impl fmt::Display, mut witnesses: Vec<usize>) {
        witnesses.sort_unstable();
        witnesses.dedup();
        self.violations.push(Violation { rule, what: what.to_string(), witnesses });
    }
}
