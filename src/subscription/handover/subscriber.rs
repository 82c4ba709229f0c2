//! The client, and what it may rely on. It reads the bytes of the stream as any client would and knows
//! nothing of the server's states: only what was committed, what it was sent, and its cursor.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use super::row::Row;
use super::table::Table;
use crate::event_id::EventId;
use crate::subscription::Start;

/// What a stream did that it may not do, in a sentence.
pub(super) type Broken = String;

/// One client over all its connections.
#[derive(Clone, Debug, Hash)]
pub(super) struct Subscriber {
    /// The id of the last frame that had one.
    cursor: Option<EventId>,
    delivered: BTreeSet<EventId>,
    /// Of the gaps: what follows the first up to the second may be missing. Also what came before the
    /// first start, where that was the head.
    holes: Vec<(EventId, EventId)>,
    connection: Connection,
}

/// Since the client connected last.
#[derive(Clone, Debug, Hash)]
struct Connection {
    /// The cursor it came with.
    came_with: Option<EventId>,
    /// The head then.
    head: EventId,
    /// That old rows are gone is no surprise, until something has come.
    earliest: bool,
    ready: bool,
    live: bool,
    rows: u64,
}

impl Connection {
    fn new(start: Start, head: EventId) -> Connection {
        let came_with = match start {
            Start::After(cursor) => Some(cursor),
            Start::Earliest => Some(EventId::ZERO),
            Start::Head | Start::Since(_) | Start::BadCursor => None,
        };
        let earliest = start == Start::Earliest;
        Connection { came_with, head, earliest, ready: false, live: false, rows: 0 }
    }
}

/// One frame, read as WHATWG HTML 9.2.6 says.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    id: Option<EventId>,
    event: Option<String>,
    data: String,
}

/// A row's id stands for its data, which can be long.
impl Hash for Frame {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.id, &self.event, self.data.len()).hash(into);
    }
}

impl Frame {
    /// The frames of a chunk, which are whole.
    pub(super) fn read_all(chunk: &[u8]) -> Result<Vec<Frame>, Broken> {
        let text = std::str::from_utf8(chunk).map_err(|error| error.to_string())?;
        let Some(frames) = text.strip_suffix("\n\n") else {
            return Err(format!("a chunk does not end with a frame: {text:?}"));
        };
        frames.split("\n\n").map(Frame::read).collect()
    }

    fn read(text: &str) -> Result<Frame, Broken> {
        let mut frame = Frame::default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => frame.id = Some(parse(id)?),
                Some(("event", event)) => frame.event = Some(event.to_owned()),
                Some(("data", data)) => data.clone_into(&mut frame.data),
                Some(("retry", _)) => {}
                _ => return Err(format!("no field of an event stream: {line:?}")),
            }
        }
        Ok(frame)
    }

    /// A member of the data of a control event.
    fn member(&self, name: &str) -> Result<serde_json::Value, Broken> {
        let data: serde_json::Value =
            serde_json::from_str(&self.data).map_err(|error| error.to_string())?;
        data.get(name).cloned().ok_or_else(|| format!("no {name} in {data}"))
    }
}

fn parse(id: &str) -> Result<EventId, Broken> {
    id.parse().map_err(|_| format!("no id: {id}"))
}

fn ensure(holds: bool, broken: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}

impl Subscriber {
    pub(super) fn new() -> Subscriber {
        Subscriber {
            cursor: None,
            delivered: BTreeSet::new(),
            holes: Vec::new(),
            connection: Connection::new(Start::Head, EventId::ZERO),
        }
    }

    /// Connects, for the first time as it likes, then with its cursor if it has one.
    pub(super) fn connect(&mut self, first: Start, table: &Table) -> Start {
        let start = self.cursor.map_or(first, Start::After);
        self.connection = Connection::new(start, table.head_id());
        start
    }

    pub(super) fn is_live(&self) -> bool {
        self.connection.live
    }

    /// Receives one frame.
    pub(super) fn receive(&mut self, frame: &Frame, table: &Table) -> Result<(), Broken> {
        let name = frame.event.as_deref();
        let ready = name == Some("tidings.ready");
        let ping_before_the_start = name == Some("tidings.ping") && frame.id.is_none();
        ensure(ready != self.connection.ready || ping_before_the_start, || {
            format!("ready comes first and once, not {frame:?}")
        })?;
        // A ping may come before the first page.
        let has_begun = !ready && frame.id != Some(EventId::ZERO);
        if has_begun && std::mem::take(&mut self.connection.earliest) {
            self.holes.push((EventId::ZERO, table.highest_edge_ever()));
        }
        match name {
            Some("tidings.ready") => self.receive_ready(frame, table)?,
            Some("tidings.live") => self.receive_live(frame)?,
            Some("tidings.ping") => {
                let Some(id) = frame.id else { return Ok(()) };
                ensure(self.cursor <= Some(id), || format!("a ping took the cursor back to {id}"))?;
                self.pass_over(id, table)?;
            }
            Some("tidings.gap") => self.receive_gap(frame, table)?,
            Some(other) => return Err(format!("no event of ours: {other}")),
            None => self.receive_row(frame, table)?,
        }
        self.cursor = frame.id.or(self.cursor);
        Ok(())
    }

    fn receive_ready(&mut self, frame: &Frame, table: &Table) -> Result<(), Broken> {
        let id = frame.id.ok_or("ready has no id")?;
        ensure(frame.member("cursor")? == id.to_string(), || format!("{frame:?}"))?;
        match self.connection.came_with {
            Some(cursor) => {
                ensure(id == cursor, || format!("ready says {id} to a client with {cursor}"))?;
            }
            None => {
                // What was there before does not come; what comes later does.
                let heads = self.connection.head..=table.page_head();
                ensure(table.was_restored() || heads.contains(&id), || {
                    format!("the stream starts at {id}, not at the head")
                })?;
                self.holes.push((EventId::ZERO, id));
            }
        }
        self.connection.ready = true;
        Ok(())
    }

    fn receive_live(&mut self, frame: &Frame) -> Result<(), Broken> {
        ensure(!self.connection.live, || "live comes once".to_owned())?;
        let rows = self.connection.rows;
        ensure(frame.member("replayed")? == rows, || format!("{rows} were replayed: {frame:?}"))?;
        self.connection.live = true;
        Ok(())
    }

    fn receive_gap(&mut self, frame: &Frame, table: &Table) -> Result<(), Broken> {
        let text = |name: &str| frame.member(name).map(|value| value.as_str().map(str::to_owned));
        let after = text("after")?.map(|id| parse(&id)).transpose()?;
        let resumes = text("resumes_after")?.ok_or("a gap ends nowhere")?;
        let resumes = parse(&resumes)?;
        ensure(frame.id == Some(resumes), || format!("the gap's id is not its end: {frame:?}"))?;
        let position = self.cursor.ok_or("a gap before ready")?;
        let reason = text("reason")?.unwrap_or_default();
        // Where the stream stands; above the last frame's id where rows were for others.
        if let Some(after) = after {
            ensure(after >= position, || format!("a gap begins at {after}, below {position}"))?;
            self.pass_over(after.min(resumes), table)?;
        }
        let from = after.unwrap_or(EventId::ZERO);
        let justified = match reason.as_str() {
            "expired" => resumes > from && table.was_edge(resumes),
            "restored" => table.was_cut_off_at(from, resumes.position()) && resumes < from,
            "ahead" => from > resumes && table.is_or_was_ahead(from),
            "bad-cursor" => after.is_none(),
            _ => false,
        };
        ensure(justified, || format!("a gap without its reason: {frame:?}"))?;
        self.holes.push((from.min(resumes), resumes));
        if matches!(reason.as_str(), "ahead" | "bad-cursor") {
            // A cursor of another feed: nothing before is known to have come.
            self.holes.push((EventId::ZERO, resumes));
        }
        Ok(())
    }

    fn receive_row(&mut self, frame: &Frame, table: &Table) -> Result<(), Broken> {
        let id = frame.id.ok_or("a row without an id")?;
        ensure(self.cursor < Some(id), || format!("{id} comes after {:?}", self.cursor))?;
        let row = table.rows.iter().find(|row| row.id == id);
        let row = row.ok_or_else(|| format!("{id} was never committed"))?;
        ensure(row.to.is_for_us() && row.data == frame.data, || {
            format!("{frame:?} is not what was sent to us")
        })?;
        ensure(self.delivered.insert(id), || format!("{id} comes twice"))?;
        self.connection.rows += 1;
        self.pass_over(id, table)
    }

    /// The cursor goes up to `to`: what we are owed up to there will never come any more. But for a
    /// cursor of before a restore, which the server takes back.
    fn pass_over(&self, to: EventId, table: &Table) -> Result<(), Broken> {
        let to = table.cut_off_at(to).map_or(to, |end| to.moved_to(end));
        let lost = table
            .rows
            .iter()
            .find(|row| row.id <= to && Some(row.id) > self.cursor && self.is_owed(row));
        lost.map_or(Ok(()), |row| Err(format!("{to} passes over {}, which did not come", row.id)))
    }

    fn is_owed(&self, row: &Row) -> bool {
        let excused = |(from, to): &(EventId, EventId)| *from < row.id && row.id <= *to;
        row.to.is_for_us()
            && !row.gone
            && !row.lost
            && !self.delivered.contains(&row.id)
            && !self.holes.iter().any(excused)
    }

    /// What should come yet.
    pub(super) fn owed<'a>(&'a self, table: &'a Table) -> Option<&'a Row> {
        table.rows.iter().find(|row| self.is_owed(row))
    }
}
