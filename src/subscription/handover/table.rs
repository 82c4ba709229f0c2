//! The model of Postgres: what is committed, what a snapshot sees, what was issued. The queries are those
//! of `store/feed.rs` and `store/replay.sql`, in a few lines each.

use uuid::Uuid;

use super::row::{Row, To};
use crate::address::Audience;
use crate::event_id::EventId;
use crate::notification::Notification;
use crate::store::replay::QueryRow;
use crate::store::{FeedPage, Head, NewEpoch, ReplayRequest};

/// Rows of one read of the feed, at most.
const FEED_ROWS: usize = 2;

/// The feed.
#[derive(Clone, Debug, Hash)]
pub(super) struct Table {
    /// All that were ever committed, in id order.
    pub(super) rows: Vec<Row>,
    /// All there ever were, in the order of their commits.
    edges: Vec<Edge>,
    /// The sequence.
    pub(super) last_position: i64,
    epochs: Vec<Epoch>,
    /// By a backup, and no connection has noticed yet.
    replaced: bool,
    was_restored: bool,
}

/// Rows up to it are gone: all, or those of the other app alone.
#[derive(Clone, Copy, Debug, Hash)]
struct Edge {
    id: EventId,
    of_other_app: bool,
    /// So many rows had been committed.
    moved_after: u64,
    /// By a restore, like rows.
    lost: bool,
}

/// Opened by a restore, but for the first.
#[derive(Clone, Copy, Debug, Hash)]
struct Epoch {
    number: i32,
    previous_end: i64,
    first_position: i64,
    /// So many rows had been committed.
    opened_after: u64,
    /// By another restore.
    lost: bool,
}

impl Epoch {
    const FIRST: Epoch =
        Epoch { number: 0, previous_end: 0, first_position: 0, opened_after: 0, lost: false };

    /// It says of a cursor that what came before is cut off below it.
    fn cuts_off(&self, cursor: EventId) -> bool {
        let (position, epoch) = (cursor.position(), epoch_of(cursor));
        let is_from_before = self.number > epoch || position < self.first_position && epoch < 65535;
        self.previous_end < position && is_from_before
    }
}

/// In which an id was made.
fn epoch_of(id: EventId) -> i32 {
    i32::from((Uuid::from(id).as_u128() >> 48) as u16)
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            rows: Vec::new(),
            edges: Vec::new(),
            last_position: 0,
            epochs: vec![Epoch::FIRST],
            replaced: false,
            was_restored: false,
        }
    }

    pub(super) fn epoch(&self) -> i32 {
        self.kept_epochs().map(|epoch| epoch.number).max().unwrap_or_default()
    }

    fn kept_epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter().filter(|epoch| !epoch.lost)
    }

    fn kept_edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| !edge.lost)
    }

    /// Of our app.
    pub(super) fn edge(&self) -> EventId {
        let edges = self.kept_edges().filter(|edge| !edge.of_other_app);
        edges.map(|edge| edge.id).max().unwrap_or(EventId::ZERO)
    }

    fn highest_edge(&self) -> EventId {
        self.kept_edges().map(|edge| edge.id).max().unwrap_or(EventId::ZERO)
    }

    /// At some time, for our app.
    pub(super) fn was_edge(&self, id: EventId) -> bool {
        self.edges.iter().any(|edge| edge.id == id && !edge.of_other_app)
    }

    /// Of all times, for our app.
    pub(super) fn highest_edge_ever(&self) -> EventId {
        let edges = self.edges.iter().filter(|edge| !edge.of_other_app);
        edges.map(|edge| edge.id).max().unwrap_or(EventId::ZERO)
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
        self.head_id().max(self.highest_edge())
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
        self.commit_edge(edge, false);
    }

    /// The same, of the other app alone.
    pub(super) fn move_other_edge(&mut self) {
        let newest = self.there().rfind(|row| row.to == To::OtherApp).map(|row| row.id);
        newest.into_iter().for_each(|newest| self.commit_edge(newest, true));
    }

    fn commit_edge(&mut self, id: EventId, of_other_app: bool) {
        let moved_after = self.rows.len() as u64;
        self.edges.push(Edge { id, of_other_app, moved_after, lost: false });
        self.remove_rows();
    }

    /// What retention removes; what it removed after a backup was made is there again after the restore.
    fn remove_rows(&mut self) {
        let (edge, highest) = (self.edge(), self.highest_edge());
        for row in &mut self.rows {
            let edge = if row.to == To::OtherApp { highest } else { edge };
            row.removed = row.id <= edge;
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
        let newest = self.there().rev().take(2).map(|row| row.id.tail());
        let Some(first_lost) = newest.min() else { return };
        self.rows
            .iter_mut()
            .filter(|row| row.id.tail() >= first_lost)
            .for_each(|row| row.lost = true);
        for edge in &mut self.edges {
            edge.lost |= edge.moved_after > first_lost;
        }
        for epoch in &mut self.epochs {
            epoch.lost |= epoch.opened_after > first_lost;
        }
        self.remove_rows();
        // With a clock that is behind. But where the number of an epoch may come again, only the clock tells
        // the two apart.
        if !std::mem::replace(&mut self.was_restored, true) {
            self.last_position = self.page_head().position();
        }
        self.replaced = true;
    }

    /// What every connection does first, of an instance that knows an epoch. True: another was opened.
    pub(super) fn check_epoch(&mut self, known: i32) -> bool {
        let is_another = std::mem::take(&mut self.replaced);
        if is_another {
            let last_end = self.kept_epochs().map(|epoch| epoch.previous_end).max();
            self.epochs.push(Epoch {
                number: self.epoch().max(known) + 1,
                previous_end: self.head_id().position().max(last_end.unwrap_or_default()),
                first_position: self.last_position + 1,
                opened_after: self.rows.len() as u64,
                lost: false,
            });
        }
        is_another
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.replaced
    }

    pub(super) fn was_restored(&self) -> bool {
        self.was_restored
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
        let opened = self.kept_epochs().filter(|epoch| epoch.number > known_epoch);
        let new_epoch = opened.map(|epoch| epoch.previous_end).min();
        FeedPage {
            more: rows.len() == FEED_ROWS,
            rows,
            new_epoch: new_epoch.map(|end| NewEpoch { number: self.epoch(), cut_off_at: end }),
            edge: self.highest_edge(),
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
            epoch: self.epoch(),
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
        let cutting = self.kept_epochs().filter(|epoch| epoch.cuts_off(cursor));
        cutting.map(|epoch| epoch.previous_end).min()
    }

    /// A cursor was cut off there, at some time.
    pub(super) fn was_cut_off_at(&self, cursor: EventId, end: i64) -> bool {
        self.epochs.iter().any(|epoch| epoch.cuts_off(cursor) && epoch.previous_end == end)
    }
}
