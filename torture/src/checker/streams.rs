//! The subscribers' side: each gets exactly the rows it is entitled to, in id order, over all its
//! connections, with the bytes that were sent, or is told of a gap.

mod gaps;

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use ulid::Ulid;

use super::model::{Client, Frame, Model, Row, STATE_ENTRY};
use super::{Findings, Rule, is_lost};
use crate::history::{Entry, Event};

/// In µs. A server may wait 3 s for a connection and 5 s for an answer before it says that the database
/// is away, and a restless client reads nothing for 3 s.
const LATE: u64 = 15_000_000;
pub(super) fn check(model: &Model<'_>, findings: &mut Findings) {
    for (number, client) in &model.clients {
        let mut follower = Follower {
            model,
            number: *number,
            client,
            rows: model.rows_for(client),
            next: 0,
            position: None,
            received: HashMap::new(),
            last_frame: None,
            connection: Connection::default(),
            told: HashSet::new(),
        };
        for at in &client.entries {
            follower.take(*at, findings);
        }
        if model.settled && !client.left {
            follower.end(findings);
        }
    }
}

/// Follows one client.
struct Follower<'m, 'a> {
    model: &'m Model<'a>,
    number: usize,
    client: &'m Client<'a>,
    /// What it is entitled to.
    rows: Vec<(Ulid, &'m Row<'a>)>,
    /// The first of them above the position.
    next: usize,
    /// Everything up to here must have been received.
    position: Option<Ulid>,
    /// With the place of the frame.
    received: HashMap<Ulid, usize>,
    /// The last one with an id.
    last_frame: Option<usize>,
    connection: Connection,
    /// Losses that it was told of.
    told: HashSet<usize>,
}

/// One connection of the client.
#[derive(Default)]
struct Connection {
    opened_at: usize,
    cursor: Option<Ulid>,
    ready: bool,
    live: bool,
    over: bool,
    replayed: u64,
    /// Its cursor is of nothing that ever was, and it was not told so yet.
    lost: bool,
    /// Since when (µs) the stream has been live and has called the database up.
    well_since: Option<u64>,
}

#[derive(Deserialize)]
struct Live {
    replayed: u64,
}

#[derive(Deserialize)]
struct Ping {
    database: String,
}

impl Follower<'_, '_> {
    fn take(&mut self, at: usize, findings: &mut Findings) {
        let Entry(_, event) = &self.model.entries[at];
        match event {
            Event::Open { cursor, .. } => {
                findings.counts.streams += 1;
                let lost = cursor.is_some_and(is_lost);
                self.connection =
                    Connection { opened_at: at, cursor: *cursor, lost, ..Connection::default() };
            }
            Event::Frame { raw, .. } => match Frame::of(raw) {
                Some(frame) => self.frame(at, raw, &frame, findings),
                None => self.broken(Rule::Contract, "a frame cannot be read", at, findings),
            },
            _ => {}
        }
    }

    fn frame(&mut self, at: usize, raw: &str, frame: &Frame, findings: &mut Findings) {
        if self.connection.over {
            self.broken(Rule::Contract, "a frame follows tidings.goodbye", at, findings);
        }
        if frame.id.is_some() && !frame.has_data {
            self.broken(Rule::Contract, "a frame has an id and no data", at, findings);
        }
        // A refused stream is told goodbye and nothing else; pings may come before the start is known.
        let first =
            matches!(frame.event.as_str(), "tidings.ready" | "tidings.goodbye" | "tidings.ping");
        if !self.connection.ready && !first {
            self.broken(Rule::Contract, "a frame comes before tidings.ready", at, findings);
        }
        match frame.event.as_str() {
            "tidings.ready" => self.ready(at, frame, findings),
            "tidings.live" => self.live(at, frame, findings),
            "tidings.ping" => self.ping(at, frame, findings),
            "tidings.gap" => self.gap(at, frame, findings),
            "tidings.goodbye" => self.connection.over = true,
            _ if frame.is_control() => {
                self.broken(Rule::Contract, "a control frame of no known name", at, findings);
            }
            _ => self.notification(at, raw, frame, findings),
        }
        if frame.id.is_some() {
            self.last_frame = Some(at);
        }
    }

    fn ready(&mut self, at: usize, frame: &Frame, findings: &mut Findings) {
        if self.connection.ready {
            self.broken(Rule::Contract, "tidings.ready comes twice", at, findings);
        }
        self.connection.ready = true;
        let Some(id) = frame.id else {
            return self.broken(Rule::Contract, "tidings.ready has no id", at, findings);
        };
        if self.connection.cursor.is_some_and(|cursor| cursor != id) {
            self.broken(Rule::Contract, "the stream does not start at the cursor", at, findings);
        }
        if self.position.is_none() {
            self.position = Some(id);
            self.next = self.rows.partition_point(|(row, _)| *row <= id);
        }
    }

    fn live(&mut self, at: usize, frame: &Frame, findings: &mut Findings) {
        if self.connection.live {
            self.broken(Rule::Contract, "tidings.live comes twice", at, findings);
        }
        self.connection.live = true;
        self.connection.well_since = Some(self.model.entries[at].0);
        self.lost_is_told(at, findings);
        let told = serde_json::from_str(&frame.data).ok().map(|Live { replayed }| replayed);
        let counted = self.connection.replayed;
        if told != Some(counted) {
            let what = format!("{counted} were replayed, and tidings.live says {told:?}");
            self.broken(Rule::ReplayMiscounted, &what, at, findings);
        }
    }

    fn ping(&mut self, at: usize, frame: &Frame, findings: &mut Findings) {
        findings.counts.pings += 1;
        let Some(id) = frame.id else {
            if self.connection.ready {
                self.broken(Rule::Contract, "a ping after tidings.ready has no id", at, findings);
            }
            return;
        };
        if self.position.is_some_and(|position| id < position) {
            self.broken(Rule::Contract, "a ping's id is below what was delivered", at, findings);
        }
        self.losses_are_told(id, at, findings);
        self.passed(id, true, Rule::PingTooFar, at, findings);
        self.position = self.position.max(Some(id));
        self.late(at, frame, findings);
    }

    /// A stream that says that all is well has what was known to be stored a while ago.
    fn late(&mut self, at: usize, frame: &Frame, findings: &mut Findings) {
        let Entry(now, _) = self.model.entries[at];
        let up = serde_json::from_str::<Ping>(&frame.data).is_ok_and(|ping| ping.database == "up");
        if !up || !self.connection.live {
            self.connection.well_since = None;
            return;
        }
        let since = *self.connection.well_since.get_or_insert(now);
        let Some(long_ago) = now.checked_sub(LATE).filter(|long_ago| since <= *long_ago) else {
            return;
        };
        let known = |id| self.model.known.get(id).is_some_and(|known| *known <= long_ago);
        let late = self.rows[self.next..].iter().find(|(id, row)| {
            !row.gone
                && !self.received.contains_key(id)
                && known(id)
                && self.model.losses.that_took(*id).is_none()
        });
        if let Some((id, row)) = late {
            let what = format!("{id} was stored, and had not come {} s later", LATE / 1_000_000);
            self.broken_by(Rule::Late, &what, at, row, findings);
            // Once is enough.
            self.connection.well_since = Some(now);
        }
    }

    fn notification(&mut self, at: usize, raw: &str, frame: &Frame, findings: &mut Findings) {
        self.lost_is_told(at, findings);
        // They tell what became of others, and count as none.
        let is_entry = frame.event == STATE_ENTRY;
        if !is_entry {
            findings.counts.deliveries += 1;
            self.connection.replayed += u64::from(!self.connection.live);
        }
        let Some(id) = frame.id else {
            return self.broken(Rule::Contract, "a notification has no id", at, findings);
        };
        let loss = self.model.losses.that_took(id);
        if loss.is_some_and(|loss| self.told.contains(&loss)) {
            let what = format!("{id} was lost, and comes after the gap that told so");
            self.broken(Rule::Foreign, &what, at, findings);
        }
        match self.model.row(id) {
            // Whether it is stored is known at the end, or never.
            None if is_entry && (!self.model.settled || loss.is_some()) => {}
            None => {
                let what = format!("{id} was delivered, and is not stored");
                self.broken(Rule::Foreign, &what, at, findings);
            }
            Some(row) if !self.client.may_see(row) => {
                let what = format!("{id} is for {} of {}", row.audience, row.app);
                self.broken_by(Rule::Foreign, &what, at, row, findings);
            }
            Some(row) if bytes_of(id, row) != raw => {
                let what = format!("{id} has not the bytes that were sent");
                self.broken_by(Rule::Altered, &what, at, row, findings);
            }
            Some(_) => {}
        }
        if let Some(before) = self.received.insert(id, at) {
            let what = format!("client {} got {id} twice", self.number);
            return findings.add(Rule::Doubled, what, vec![before, self.connection.opened_at, at]);
        }
        if let Some(position) = self.position.filter(|position| id <= *position) {
            let what = format!("{id} came when everything up to {position} had been delivered");
            return self.broken(Rule::Reordered, &what, at, findings);
        }
        self.losses_are_told(id, at, findings);
        self.passed(id, false, Rule::Missing, at, findings);
        self.position = Some(id);
    }

    /// The stream has come to `id`: nothing below may be missing, nor itself if `included`.
    fn passed(&mut self, id: Ulid, included: bool, rule: Rule, at: usize, findings: &mut Findings) {
        while let Some((row_id, row)) = self.rows.get(self.next).copied() {
            if row_id > id || (row_id == id && !included) {
                break;
            }
            self.next += 1;
            let loss = self.model.losses.that_took(row_id);
            let is_due = loss.is_none() || loss == self.model.losses.that_took(id);
            let is_missing = is_due && !row.gone && !self.received.contains_key(&row_id);
            if is_missing && !self.came_back(row_id, row, at) {
                let what = format!("{row_id} was not delivered before the stream went on to {id}");
                self.broken_by(rule, &what, at, row, findings);
            }
        }
    }

    fn end(&mut self, findings: &mut Findings) {
        let last = self.last_frame.unwrap_or(self.connection.opened_at);
        if self.position.is_none() {
            return self.broken(
                Rule::Contract,
                "no stream of this client ever began",
                last,
                findings,
            );
        }
        self.losses_are_told(Ulid(u128::MAX), last, findings);
        let is_lost = |id| self.model.losses.that_took(id).is_some();
        let left: Vec<_> = self.rows[self.next..]
            .iter()
            .filter(|(id, row)| !row.gone && !self.received.contains_key(id) && !is_lost(*id))
            .collect();
        for (id, row) in left {
            let what = format!("{id} was not delivered to the end");
            self.broken_by(Rule::Missing, &what, last, row, findings);
        }
    }

    fn broken(&self, rule: Rule, what: &str, at: usize, findings: &mut Findings) {
        let witnesses =
            self.last_frame.into_iter().chain([self.connection.opened_at, at]).collect();
        findings.add(rule, format!("client {}: {what}", self.number), witnesses);
    }

    fn broken_by(&self, rule: Rule, what: &str, at: usize, row: &Row<'_>, findings: &mut Findings) {
        let mut witnesses = row.send.map_or_else(Vec::new, |send| self.model.story_of(send));
        witnesses.extend(self.last_frame);
        witnesses.extend([row.at, self.connection.opened_at, at]);
        findings.add(rule, format!("client {}: {what}", self.number), witnesses);
    }
}

/// The frame of a row, byte for byte.
fn bytes_of(id: Ulid, row: &Row<'_>) -> String {
    let event = row.event.map_or_else(String::new, |event| format!("event: {event}\n"));
    format!("id: {id}\n{event}data: {}\n\n", row.data)
}
