//! The model of Postgres: what is committed, what a snapshot sees, what was issued. The queries are those
//! of `store/feed.rs` and `store/replay.sql`, in a few lines each.

use std::hash::{Hash, Hasher};

use uuid::Uuid;

use crate::address::{App, Audience, User};
use crate::event_id::EventId;
use crate::notification::Notification;
use crate::store::replay::QueryRow;
use crate::store::{FeedPage, Head, NewEpoch, ReplayRequest};

/// Rows of one read of the feed, at most.
const FEED_ROWS: usize = 2;

/// Whom a row is for, seen from the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum To {
    /// The subscriber.
    Ada,
    /// Everyone in the subscriber's app.
    Everyone,
    /// Somebody else there.
    Bob,
    /// Somebody of the same name in another app.
    OtherApp,
}

impl To {
    pub(super) fn is_for_us(self) -> bool {
        matches!(self, To::Ada | To::Everyone)
    }

    fn app(self) -> &'static str {
        if self == To::OtherApp { "other" } else { "shop" }
    }

    fn audience(self) -> Audience {
        let user = |name| Audience::User(User::try_from(name).unwrap());
        match self {
            To::Ada | To::OtherApp => user("ada"),
            To::Everyone => Audience::Everyone,
            To::Bob => user("bob"),
        }
    }
}

/// What our subscriber covers.
pub(super) fn app() -> App {
    App::try_from(To::Ada.app()).unwrap()
}

/// See [`app`].
pub(super) fn audiences() -> [Audience; 2] {
    [To::Ada.audience(), To::Everyone.audience()]
}

/// A row that was committed once.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: EventId,
    pub(super) to: To,
    pub(super) data: String,
    /// Expired, withdrawn or replaced.
    pub(super) gone: bool,
    /// By retention, so it is at or below an edge.
    pub(super) removed: bool,
    /// By a restore: as if it had never been.
    pub(super) lost: bool,
}

/// Its data goes with its id, and can be long.
impl Hash for Row {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.id, self.to, self.gone, self.removed, self.lost).hash(into);
    }
}

impl Row {
    pub(super) fn is_there(&self) -> bool {
        !self.removed && !self.lost
    }

    fn notification(&self) -> Notification {
        Notification {
            id: self.id,
            app: self.to.app().to_owned(),
            audience: self.to.audience().to_sql(),
            event: None,
            data: self.data.clone(),
            created_at: chrono::DateTime::UNIX_EPOCH,
            expires_at: None,
        }
    }
}

/// The feed.
#[derive(Clone, Debug, Hash)]
pub(super) struct Table {
    /// All that were ever committed, in id order.
    pub(super) rows: Vec<Row>,
    /// Every edge there ever was for our app; the last one counts.
    pub(super) edges: Vec<EventId>,
    other_edge: EventId,
    /// The sequence.
    pub(super) last_position: i64,
    /// Where the epoch before ended, of each epoch.
    pub(super) previous_ends: Vec<i64>,
    /// By a backup, and no connection that can append has noticed yet.
    replaced: bool,
}

/// In which an id was made.
fn epoch_of(id: EventId) -> usize {
    (Uuid::from(id).as_u128() >> 48) as u16 as usize
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            rows: Vec::new(),
            edges: vec![EventId::ZERO],
            other_edge: EventId::ZERO,
            last_position: 0,
            previous_ends: vec![0],
            replaced: false,
        }
    }

    pub(super) fn epoch(&self) -> i32 {
        self.previous_ends.len() as i32 - 1
    }

    pub(super) fn edge(&self) -> EventId {
        self.edges[self.edges.len() - 1]
    }

    fn there(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.rows.iter().filter(|row| row.is_there())
    }

    fn newest(&self) -> EventId {
        self.there().next_back().map_or(EventId::ZERO, |row| row.id)
    }

    /// The query of [`crate::store::Store::head`], but for the epoch.
    pub(super) fn head_id(&self) -> EventId {
        self.newest().max(self.edge())
    }

    /// What pages say: above rows of another app that are gone, too.
    pub(super) fn page_head(&self) -> EventId {
        self.head_id().max(self.other_edge)
    }

    pub(super) fn head(&self) -> Head {
        Head { id: self.head_id(), epoch: self.epoch() }
    }

    /// Commits a row. Its data tells it from all others, also where a restore gave its position again.
    pub(super) fn append(&mut self, to: To, padding: usize) -> Notification {
        let (number, epoch) = (self.rows.len() as u64, self.epoch() as u16);
        self.last_position += 1;
        let id = EventId::at(self.last_position, epoch, number);
        let data = format!("\"{number}{:padding$}\"", "");
        let row = Row { id, to, data, gone: false, removed: false, lost: false };
        let notification = row.notification();
        let place = self.rows.partition_point(|other| other.id < id);
        self.rows.insert(place, row);
        notification
    }

    /// An append that failed: the sequence is not taken back.
    pub(super) fn burn(&mut self) {
        self.last_position += 1;
    }

    /// Commits an edge for all apps and removes what is there up to it: the oldest row, or all.
    pub(super) fn move_edge(&mut self, all: bool) {
        let oldest = self.there().next().map(|row| row.id);
        let Some(edge) = oldest.map(|oldest| if all { self.newest() } else { oldest }) else {
            return;
        };
        self.edges.push(edge);
        self.rows.iter_mut().filter(|row| row.id <= edge).for_each(|row| row.removed = true);
    }

    /// The same, of the other app alone.
    pub(super) fn move_other_edge(&mut self) {
        for row in self.rows.iter_mut().filter(|row| row.to == To::OtherApp && row.is_there()) {
            self.other_edge = row.id;
            row.removed = true;
        }
    }

    pub(super) fn has_rows_of_the_other_app(&self) -> bool {
        self.there().any(|row| row.to == To::OtherApp)
    }

    pub(super) fn has_rows(&self) -> bool {
        self.there().next().is_some()
    }

    /// The newest row that is deliverable, made undeliverable.
    pub(super) fn withdraw(&mut self) {
        let newest = self.rows.iter_mut().rev().find(|row| row.is_there() && !row.gone);
        newest.into_iter().for_each(|row| row.gone = true);
    }

    /// A backup without the two newest rows takes the place of the database: with two lost, the id of a
    /// new one can be below a cursor.
    pub(super) fn restore(&mut self) {
        let newest = self.rows.iter_mut().rev().filter(|row| row.is_there()).take(2);
        newest.for_each(|row| row.lost = true);
        // The backup has its edges, and so the sequence of then or later.
        self.last_position = self.page_head().position();
        self.replaced = true;
    }

    /// What every connection that can append does first. True: an epoch was opened.
    pub(super) fn check_epoch(&mut self) -> bool {
        let is_another = std::mem::take(&mut self.replaced);
        if is_another {
            let last_end = self.previous_ends.iter().copied().max().unwrap_or_default();
            self.previous_ends.push(self.head_id().position().max(last_end));
        }
        is_another
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.replaced
    }

    pub(super) fn was_restored(&self) -> bool {
        self.replaced || self.previous_ends.len() > 1
    }

    /// Never issued, or by a database that was restored since.
    pub(super) fn is_or_was_ahead(&self, cursor: EventId) -> bool {
        self.was_restored() || cursor.position() > self.last_position
    }

    /// The query of [`crate::store::Store::read_feed`].
    pub(super) fn read_feed(&self, after: EventId, known_epoch: i32) -> FeedPage {
        let mut rows: Vec<_> =
            self.there().filter(|row| row.id > after).map(Row::notification).collect();
        rows.truncate(FEED_ROWS);
        let opened = &self.previous_ends[known_epoch as usize + 1..];
        let new_epoch = opened.iter().min();
        FeedPage {
            more: rows.len() == FEED_ROWS,
            rows,
            new_epoch: new_epoch.map(|end| NewEpoch { number: self.epoch(), cut_off_at: *end }),
            edge: self.edge().max(self.other_edge),
        }
    }

    /// `store/replay.sql`, for one client.
    pub(super) fn replay(&self, request: &ReplayRequest<'_>, page_bytes: usize) -> Vec<QueryRow> {
        let facts = self.facts(request.after);
        let looked_at = self.look_at(request);
        let (mut page, mut stored_bytes, mut bytes) = (Vec::new(), 0, 0);
        for (row, source, number) in &looked_at {
            stored_bytes += row.data.len();
            if !row.gone {
                bytes += row.data.len() + request.row_overhead;
            }
            if stored_bytes.max(bytes) > page_bytes && !page.is_empty() {
                break;
            }
            page.push(QueryRow {
                source: Some(*source as i64),
                number: Some(*number as i64),
                looked_at: Some(looked_at.len() as i64),
                id: Some(row.id.into()),
                created_at: Some(chrono::DateTime::UNIX_EPOCH),
                data: (!row.gone).then(|| row.data.clone()),
                ..facts.clone()
            });
            // Behind the last one that was looked at, rows of its audience may be missing.
            if *number == request.depth {
                break;
            }
        }
        if page.is_empty() { vec![facts] } else { page }
    }

    /// The first rows of each audience, with the number of each there, in id order.
    fn look_at(&self, request: &ReplayRequest<'_>) -> Vec<(&Row, usize, usize)> {
        let Some(after) = request.after else { return Vec::new() };
        let of = |(place, audience): (usize, &Audience)| {
            let sql = audience.to_sql();
            let rows = self.there().filter(move |row| {
                row.id > after
                    && row.to.app() == request.app.as_str()
                    && row.to.audience().to_sql() == sql
            });
            let number = move |(number, row)| (row, place + 1, number + 1);
            rows.take(request.depth).enumerate().map(number).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> = request.audiences.iter().enumerate().flat_map(of).collect();
        rows.sort_by_key(|(row, ..)| row.id);
        rows
    }

    fn facts(&self, after: Option<EventId>) -> QueryRow {
        QueryRow {
            waiter: 1,
            head: Uuid::from(self.page_head()),
            edge: self.edge().into(),
            last_position: self.last_position,
            cut_off_at: after.and_then(|after| self.cut_off_at(after)),
            source: None,
            number: None,
            looked_at: None,
            id: None,
            event: None,
            created_at: None,
            data: None,
        }
    }

    /// Where a restore or failover ended the epoch of a cursor below it.
    pub(super) fn cut_off_at(&self, cursor: EventId) -> Option<i64> {
        let later = self.previous_ends.iter().skip(epoch_of(cursor) + 1);
        later.copied().filter(|end| *end < cursor.position()).min()
    }
}
