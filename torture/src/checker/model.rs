//! What the history says was sent and stored: the sends with what became of their attempts, and the
//! rows in id order, each with the send it came from.

use std::collections::{BTreeMap, HashMap};

use ulid::Ulid;
use wire::sse::Decoder;

use super::losses::Losses;
use crate::history::{Entry, Event, SendNumber, Way};

/// The event name of rows that tell what became of others. The server makes them.
pub(super) const STATE_ENTRY: &str = "tidings.state";

/// Everything the checks look at.
pub(super) struct Model<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) sends: BTreeMap<SendNumber, Send<'a>>,
    pub(super) rows: BTreeMap<Ulid, Row<'a>>,
    /// The times that the database went back.
    pub(super) losses: Losses,
    /// Rows that somebody was told of and that went with them.
    pub(super) lost: BTreeMap<Ulid, Row<'a>>,
    pub(super) clients: BTreeMap<usize, Client<'a>>,
    /// When (µs) a row was first known to anybody but subscribers.
    pub(super) known: HashMap<Ulid, u64>,
    /// The places of the pages of each reader.
    pub(super) readers: BTreeMap<usize, Vec<usize>>,
    /// The run came to its end: the table is known, and everything had time to arrive.
    pub(super) settled: bool,
}

/// One send. Numbers named `at` are places in the history.
pub(super) struct Send<'a> {
    pub(super) at: usize,
    pub(super) sender: usize,
    pub(super) app: &'a str,
    pub(super) way: Way,
    pub(super) key: Option<&'a str>,
    pub(super) event: Option<&'a str>,
    pub(super) rows: &'a [(String, String)],
    pub(super) fleeting: bool,
    pub(super) attempts: BTreeMap<u32, Attempt>,
}

/// One attempt at a send.
pub(super) struct Attempt {
    pub(super) at: usize,
    /// The answer, or the break.
    pub(super) ended_at: Option<usize>,
    pub(super) told: Told,
}

/// What an attempt told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// 201.
    Stored,
    /// Certainly not by this attempt.
    Refused,
    /// Nothing.
    Unknown,
}

/// One stored notification.
pub(super) struct Row<'a> {
    pub(super) app: &'a str,
    pub(super) audience: &'a str,
    pub(super) event: Option<&'a str>,
    pub(super) data: &'a str,
    /// It need not be delivered.
    pub(super) gone: bool,
    pub(super) send: Option<SendNumber>,
    /// Where the history has it first: in the table, an answer, or a frame.
    pub(super) at: usize,
}

/// One subscriber.
pub(super) struct Client<'a> {
    pub(super) app: &'a str,
    pub(super) audiences: Vec<String>,
    /// Everything that it noted.
    pub(super) entries: Vec<usize>,
    /// For good, before the end.
    pub(super) left: bool,
}

impl Client<'_> {
    pub(super) fn may_see(&self, row: &Row<'_>) -> bool {
        row.app == self.app && self.audiences.iter().any(|audience| audience == row.audience)
    }
}

impl<'a> Model<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Self {
        let mut model = Self {
            entries,
            sends: BTreeMap::new(),
            rows: BTreeMap::new(),
            losses: Losses::of(entries),
            lost: BTreeMap::new(),
            clients: BTreeMap::new(),
            known: HashMap::new(),
            readers: BTreeMap::new(),
            settled: entries.iter().any(|Entry(_, event)| matches!(event, Event::Settled { .. })),
        };
        for (at, Entry(when, event)) in entries.iter().enumerate() {
            model.take(at, event);
            if let Event::Answer { ids, .. } | Event::Read { ids, .. } = event {
                ids.iter().for_each(|id| _ = model.known.entry(*id).or_insert(*when));
            }
        }
        if !model.settled || model.losses.count() > 0 {
            let mut told = model.rows_from_answers_and_frames();
            model.lost = model.losses.take_from(&mut told);
            if !model.settled {
                model.rows = told;
            }
        }
        model
    }

    fn take(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Send { send, sender, app, by, key, event, rows, fleeting } => {
                let (key, event) = (key.as_deref(), event.as_deref());
                let (sender, way, fleeting) = (*sender, *by, *fleeting);
                let attempts = BTreeMap::new();
                let sent = Send { at, sender, app, way, key, event, rows, fleeting, attempts };
                self.sends.insert(*send, sent);
            }
            Event::Attempt { send, attempt, .. } => {
                if let Some(send) = self.sends.get_mut(send) {
                    send.attempts
                        .insert(*attempt, Attempt { at, ended_at: None, told: Told::Unknown });
                }
            }
            Event::Answer { send, attempt, status, problem, .. } => {
                let told = match (status, problem.as_deref()) {
                    (201, _) => Told::Stored,
                    (503, Some("outcome-unknown")) | (500, _) => Told::Unknown,
                    _ => Told::Refused,
                };
                self.attempt_ended(*send, *attempt, at, told);
            }
            Event::Broke { send, attempt, how } => {
                // What was never connected has told that it is not stored.
                let connected = !how.starts_with("not connected");
                let told = if connected { Told::Unknown } else { Told::Refused };
                self.attempt_ended(*send, *attempt, at, told);
            }
            Event::Client { client, app, user, topics, .. } => {
                let own = [format!("user:{user}"), "everyone".to_owned()];
                let topics = topics.iter().map(|topic| format!("topic:{topic}"));
                let audiences = own.into_iter().chain(topics).collect();
                self.clients
                    .insert(*client, Client { app, audiences, entries: Vec::new(), left: false });
            }
            Event::Open { client, .. }
            | Event::Frame { client, .. }
            | Event::Close { client, .. } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.entries.push(at);
                }
            }
            Event::Left { client } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.left = true;
                }
            }
            Event::Read { reader, .. } => self.readers.entry(*reader).or_default().push(at),
            Event::Stored { id, app, audience, event, data, gone } => {
                let send = self.send_of(app, audience, data);
                let (event, gone) = (event.as_deref(), *gone);
                self.rows.insert(*id, Row { app, audience, event, data, gone, send, at });
            }
            _ => {}
        }
    }

    fn attempt_ended(&mut self, send: SendNumber, attempt: u32, at: usize, told: Told) {
        let send = self.sends.get_mut(&send);
        let attempt = send.and_then(|send| send.attempts.get_mut(&attempt));
        if let Some(attempt) = attempt {
            attempt.ended_at = Some(at);
            attempt.told = told;
        }
    }

    /// The send that has just this row.
    fn send_of(&self, app: &str, audience: &str, data: &str) -> Option<SendNumber> {
        let number = number_in(data)?;
        let send = self.sends.get(&number)?;
        let has_it = send.rows.iter().any(|(to, what)| to == audience && what == data);
        (send.app == app && has_it).then_some(number)
    }

    /// Without the table, a row is known by whoever was told of it.
    fn rows_from_answers_and_frames(&self) -> BTreeMap<Ulid, Row<'a>> {
        let mut rows = BTreeMap::new();
        for (at, Entry(_, event)) in self.entries.iter().enumerate() {
            match event {
                Event::Answer { send, status: 201, ids, .. } => {
                    let Some(sent) = self.sends.get(send) else { continue };
                    for (id, (audience, data)) in ids.iter().zip(sent.rows) {
                        let (app, event, send) = (sent.app, sent.event, Some(*send));
                        let row = Row { app, audience, event, data, gone: sent.fleeting, send, at };
                        rows.entry(*id).or_insert(row);
                    }
                }
                Event::Frame { client, raw, .. } => {
                    let (Some(client), Some(frame)) = (self.clients.get(client), Frame::of(raw))
                    else {
                        continue;
                    };
                    let Some((id, number, sent)) = self.sender_of(&frame) else { continue };
                    let row = sent.rows.iter().find(|(audience, data)| {
                        *data == frame.data && client.audiences.contains(audience)
                    });
                    if let Some((audience, data)) = row {
                        let (app, event, send) = (sent.app, sent.event, Some(number));
                        let row = Row { app, audience, event, data, gone: sent.fleeting, send, at };
                        rows.entry(id).or_insert(row);
                    }
                }
                _ => {}
            }
        }
        rows
    }

    fn sender_of(&self, frame: &Frame) -> Option<(Ulid, SendNumber, &Send<'a>)> {
        let number = number_in(&frame.data)?;
        Some((frame.id?, number, self.sends.get(&number)?))
    }

    /// The rows that a client has to get, in id order, the lost ones among them.
    pub(super) fn rows_for(&self, client: &Client<'_>) -> Vec<(Ulid, &Row<'a>)> {
        let all = self.rows.iter().chain(&self.lost);
        let mut rows: Vec<_> =
            all.filter(|(_, row)| client.may_see(row)).map(|(id, row)| (*id, row)).collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        rows
    }

    /// In the table, or lost.
    pub(super) fn row(&self, id: Ulid) -> Option<&Row<'a>> {
        self.rows.get(&id).or_else(|| self.lost.get(&id))
    }

    /// Places in the history that tell of a send: its first attempt and its last two. One that is
    /// repeated while the database is away has hundreds of the same kind.
    pub(super) fn story_of(&self, send: SendNumber) -> Vec<usize> {
        let Some(send) = self.sends.get(&send) else { return Vec::new() };
        let last = send.attempts.values().rev().take(2);
        let told = send.attempts.values().take(1).chain(last);
        let places = told.flat_map(|attempt| [Some(attempt.at), attempt.ended_at]);
        std::iter::once(send.at).chain(places.flatten()).collect()
    }

    /// The rows of each send.
    pub(super) fn rows_of_sends(&self) -> HashMap<SendNumber, Vec<(Ulid, &Row<'a>)>> {
        let mut rows: HashMap<SendNumber, Vec<(Ulid, &Row<'a>)>> = HashMap::new();
        for (id, row) in &self.rows {
            if let Some(send) = row.send {
                rows.entry(send).or_default().push((*id, row));
            }
        }
        rows
    }
}

/// A received frame.
pub(super) struct Frame {
    pub(super) id: Option<Ulid>,
    pub(super) event: String,
    pub(super) data: String,
    pub(super) has_data: bool,
}

impl Frame {
    /// `None`: these bytes are not one frame with a readable id.
    pub(super) fn of(raw: &str) -> Option<Self> {
        let mut decoder = Decoder::default();
        decoder.room().extend_from_slice(raw.as_bytes());
        let frame = decoder.next_frame()?;
        let id = match frame.id {
            Some(id) => Some(Ulid::from_string(str::from_utf8(id).ok()?).ok()?),
            None => None,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let has_data = frame.data.is_some();
        let data = text(frame.data.as_deref().unwrap_or_default());
        Some(Self { id, event: text(frame.event), data, has_data })
    }

    pub(super) fn is_control(&self) -> bool {
        self.event.starts_with("tidings.") && self.event != STATE_ENTRY
    }
}

/// The number of its send, which begins every row's data.
fn number_in(data: &str) -> Option<SendNumber> {
    data.strip_prefix(r#"{"n":"#)?.split(',').next()?.parse().ok()
}
