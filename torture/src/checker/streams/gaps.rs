//! Gaps: who has to be told of one, and who must not be.

use std::ops::Bound::{Excluded, Unbounded};

use serde::Deserialize;
use ulid::Ulid;

use super::Follower;
use crate::checker::losses::Loss;
use crate::checker::model::{Frame, Row};
use crate::checker::{Findings, Rule};

#[derive(Deserialize)]
struct Gap {
    after: Option<Ulid>,
    resumes_after: Ulid,
    reason: String,
}

impl Follower<'_, '_> {
    pub(super) fn gap(&mut self, at: usize, frame: &Frame, findings: &mut Findings) {
        let told = serde_json::from_str::<Gap>(&frame.data).ok();
        let Some(gap) = told.filter(|gap| Some(gap.resumes_after) == frame.id) else {
            return self.broken(Rule::Contract, "a gap's id is not where it resumes", at, findings);
        };
        let of_nothing = std::mem::take(&mut self.connection.lost);
        let loss = gap.after.and_then(|after| self.model.losses.that_took(after));
        if let Some(number) = loss {
            self.gap_of_a_loss(number, &gap, at, findings);
        } else {
            if !of_nothing {
                let what = format!("nothing can be lost, and a gap is told: {}", frame.data);
                self.broken(Rule::NeedlessGap, &what, at, findings);
            }
            // Downwards: what was received above may come again.
            self.received.retain(|id, _| *id <= gap.resumes_after);
        }
        self.position = Some(gap.resumes_after);
        self.next = self.rows.partition_point(|(row, _)| *row <= gap.resumes_after);
        // Told after the loss, it resumes where the copy ended: nothing of what was lost is seen from there.
        let loss = self.model.losses.that_took(gap.resumes_after);
        self.told.extend(loss.filter(|number| self.model.losses.get(*number).at < at));
    }

    /// The stream stood at something that was lost. It goes on where the copy ended, so nothing that is
    /// stored comes again, or is passed over.
    fn gap_of_a_loss(&mut self, number: usize, gap: &Gap, at: usize, findings: &mut Findings) {
        findings.counts.told += 1;
        let loss = self.model.losses.get(number);
        if !self.needs_to_be_told(number, loss, at) {
            let what = format!("nothing that it can have seen is lost, and a gap is told: {gap}");
            self.broken(Rule::NeedlessGap, &what, at, findings);
        }
        let resumes_after = gap.resumes_after;
        let resumes_right = match gap.reason.as_str() {
            "restored" => resumes_after >= loss.kept && Some(resumes_after) < gap.after,
            // Nothing was appended yet, and so nothing shows that the database is another one.
            "ahead" => resumes_after == loss.kept,
            _ => false,
        };
        if !resumes_right || self.rows_follow(loss, resumes_after) {
            let what =
                format!("what was kept ended at {}, and this gap says otherwise: {gap}", loss.kept);
            self.broken(Rule::Contract, &what, at, findings);
        }
        self.passed(loss.kept, true, Rule::Missing, at, findings);
        self.told.insert(number);
    }

    /// Between the end of the copy and where the stream goes on there are rows.
    fn rows_follow(&self, loss: &Loss, resumes_after: Ulid) -> bool {
        let next = self.model.rows.range((Excluded(loss.kept), Unbounded)).next();
        next.is_some_and(|(id, _)| *id <= resumes_after)
    }

    /// It has not been told yet, and has come past what was kept: by what it was sent, or on a stream that
    /// has been open since, for which that can be known to the server alone.
    fn needs_to_be_told(&self, number: usize, loss: &Loss, at: usize) -> bool {
        let stands_in_it = self.position.is_some_and(|position| loss.took(position));
        let has_been_open = self.connection.opened_at < loss.at;
        loss.at < at && !self.told.contains(&number) && (stands_in_it || has_been_open)
    }

    /// It was kept and may have been replaced by something that was not: then it is there again, and was
    /// not there for a stream that went past it in between.
    pub(super) fn came_back(&self, id: Ulid, row: &Row<'_>, at: usize) -> bool {
        let send = row.send.and_then(|send| self.model.sends.get(&send));
        send.is_some_and(|send| send.fleeting)
            && self.model.losses.all().enumerate().any(|(number, loss)| {
                id <= loss.kept
                    && self.model.entries[at].0 >= loss.complete
                    && self.connection.opened_at < loss.at
                    && !self.told.contains(&number)
            })
    }

    /// The stream has come to `id`. If it had stood at something that was lost by then, and that is from
    /// after, it had to be told in between.
    pub(super) fn losses_are_told(&mut self, id: Ulid, at: usize, findings: &mut Findings) {
        let Some(position) = self.position else { return };
        let Some(number) = self.model.losses.that_took(position) else { return };
        let loss = self.model.losses.get(number);
        if id >= loss.until && self.told.insert(number) {
            let what = format!("it stood at {position}, which was lost, and is not told of a gap");
            let witnesses = [loss.at, self.connection.opened_at, at];
            let witnesses = witnesses.into_iter().chain(self.last_frame).collect();
            findings.add(Rule::UntoldGap, format!("client {}: {what}", self.number), witnesses);
        }
    }

    /// Whose cursor is of nothing that ever was must be told of a gap before anything else.
    pub(super) fn lost_is_told(&mut self, at: usize, findings: &mut Findings) {
        if std::mem::take(&mut self.connection.lost) {
            let what = "the cursor is of nothing that ever was, and no gap is told";
            self.broken(Rule::UntoldGap, what, at, findings);
        }
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { after, resumes_after, reason } = self;
        let after = after.map_or_else(|| "nothing".to_owned(), |after| after.to_string());
        write!(f, "{reason}, from {after} to {resumes_after}")
    }
}
