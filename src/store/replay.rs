//! Replay pages: what clients missed, for many of them in one query.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::address::{App, Audience};
use crate::event_id::EventId;

/// What a page is read for.
#[derive(Debug)]
pub struct ReplayRequest<'a> {
    /// The tenant.
    pub app: &'a App,
    /// The audiences that the subscription covers.
    pub audiences: &'a [Audience],
    /// Rows after this id. `None` asks for the facts alone.
    pub after: Option<EventId>,
    /// How many rows of each audience are looked at.
    pub depth: usize,
    /// What a row counts for beside its data, in bytes.
    pub row_overhead: usize,
}

/// What the snapshot of a page says about the whole feed, seen from one app.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The newest committed row, or the highest edge, of any app, if that is above it.
    pub head: EventId,
    /// Rows up to here may be gone: the greater of the edge of all and that of the app.
    pub edge: EventId,
    /// The last position ever issued.
    pub last_position: i64,
    /// The newest epoch.
    pub epoch: i32,
    /// The cursor is from before a restore or failover, which kept what is up to here alone.
    pub cut_off_at: Option<i64>,
}

/// One row of a page.
#[derive(Debug)]
pub struct ReplayRow {
    /// Its id.
    pub id: EventId,
    /// Its audience's place in the request.
    pub source: usize,
    /// Its event name.
    pub event: Option<String>,
    /// When it was committed.
    pub created_at: DateTime<Utc>,
    /// Its data.
    pub data: String,
}

/// One page for one client.
#[derive(Debug)]
pub struct ReplayPage {
    /// The deliverable rows of all its audiences in id order, none above `complete_to`.
    pub rows: Vec<ReplayRow>,
    /// Nothing up to here is missing from this page.
    pub complete_to: EventId,
    /// Why it ends there.
    pub end: PageEnd,
    /// Of the same snapshot.
    pub facts: Facts,
}

/// Why a page ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// Nothing in the snapshot is above it.
    Head,
    /// One audience was not looked at any deeper.
    Depth,
    /// It is full.
    Bytes {
        /// Rows that were looked at for each one that it has.
        looked_at_each: usize,
    },
}

impl Store {
    /// Reads a page for each request, of up to `page_bytes` (one row at least).
    pub async fn replay(
        &self,
        requests: &[ReplayRequest<'_>],
        page_bytes: usize,
    ) -> Result<Vec<ReplayPage>, StoreError> {
        let waiters = Waiters::of(requests);
        let rows = self
            .read(&self.streams, async |conn| {
                sqlx::query_file_as!(
                    QueryRow,
                    "src/store/replay.sql",
                    &waiters.apps as &[&str],
                    &waiters.after as &[Option<Uuid>],
                    &waiters.first_sources,
                    &waiters.last_sources,
                    &waiters.depths,
                    &waiters.overheads,
                    &waiters.audiences,
                    page_bytes as i64,
                )
                .fetch_all(conn)
                .await
            })
            .await?;

        pages_of(requests, rows)
    }
}

/// One row of `replay.sql`, whose comments say what it is.
#[derive(Clone, Debug)]
pub(crate) struct QueryRow {
    pub(crate) waiter: i64,
    pub(crate) head: Uuid,
    pub(crate) edge: Uuid,
    pub(crate) last_position: i64,
    pub(crate) epoch: i32,
    pub(crate) cut_off_at: Option<i64>,
    pub(crate) source: Option<i64>,
    pub(crate) number: Option<i64>,
    pub(crate) looked_at: Option<i64>,
    pub(crate) id: Option<Uuid>,
    pub(crate) event: Option<String>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) data: Option<String>,
}

/// The page of each request, from the rows of all.
pub(crate) fn pages_of(
    requests: &[ReplayRequest<'_>],
    rows: Vec<QueryRow>,
) -> Result<Vec<ReplayPage>, StoreError> {
    let mut pages: Vec<Option<PageInTheMaking>> = requests.iter().map(|_| None).collect();
    for row in rows {
        let page = pages[row.waiter as usize - 1].get_or_insert_with(|| {
            PageInTheMaking::new(Facts {
                head: row.head.into(),
                edge: row.edge.into(),
                last_position: row.last_position,
                epoch: row.epoch,
                cut_off_at: row.cut_off_at,
            })
        });
        let (Some(id), Some(source), Some(number)) = (row.id, row.source, row.number) else {
            continue;
        };
        page.looked_at = row.looked_at.unwrap_or_default() as usize;
        page.read.push((EventId::from(id), number as usize));
        let (Some(data), Some(created_at)) = (row.data, row.created_at) else { continue };
        let (id, source) = (id.into(), source as usize - 1);
        page.rows.push(ReplayRow { id, source, event: row.event, created_at, data });
    }
    let missing = || StoreError::Database(sqlx::Error::RowNotFound);
    let finish = |(page, request): (Option<PageInTheMaking>, _)| {
        page.map(|page| page.finish(request)).ok_or_else(missing)
    };
    pages.into_iter().zip(requests).map(finish).collect()
}

/// The columns of `unnest`, one row per client, and all their audiences behind each other.
#[derive(Default)]
struct Waiters<'a> {
    apps: Vec<&'a str>,
    after: Vec<Option<Uuid>>,
    first_sources: Vec<i32>,
    last_sources: Vec<i32>,
    depths: Vec<i32>,
    overheads: Vec<i32>,
    audiences: Vec<String>,
}

impl<'a> Waiters<'a> {
    fn of(requests: &[ReplayRequest<'a>]) -> Waiters<'a> {
        let mut waiters = Waiters::default();
        for request in requests {
            waiters.apps.push(request.app.as_str());
            waiters.after.push(request.after.map(Uuid::from));
            waiters.first_sources.push(waiters.audiences.len() as i32 + 1);
            if request.after.is_some() {
                waiters.audiences.extend(request.audiences.iter().map(Audience::to_sql));
            }
            waiters.last_sources.push(waiters.audiences.len() as i32);
            waiters.depths.push(request.depth as i32);
            waiters.overheads.push(request.row_overhead as i32);
        }
        waiters
    }
}

struct PageInTheMaking {
    rows: Vec<ReplayRow>,
    /// All rows up to where it ends, deliverable or not: the id, and the number in its audience.
    read: Vec<(EventId, usize)>,
    looked_at: usize,
    facts: Facts,
}

impl PageInTheMaking {
    fn new(facts: Facts) -> PageInTheMaking {
        PageInTheMaking { rows: Vec::new(), read: Vec::new(), looked_at: 0, facts }
    }

    /// The query ends a page at the first row that is the last one looked at of its audience: with the
    /// largest id as the next cursor, 700 of 1,201 rows were lost. A page that was not ended is complete
    /// up to the head of the snapshot. Rows that are not deliverable any more count as read.
    fn finish(mut self, request: &ReplayRequest<'_>) -> ReplayPage {
        self.rows.sort_unstable_by_key(|row| row.id);
        let read = self.read.len();
        let end = match self.read.iter().max() {
            Some((id, number)) if *number == request.depth => Some((*id, PageEnd::Depth)),
            Some((id, _)) if read < self.looked_at => {
                Some((*id, PageEnd::Bytes { looked_at_each: self.looked_at / read }))
            }
            _ => None,
        };
        let newest = match mutant!(CompleteBySequence) {
            true => self.facts.head.moved_to(self.facts.last_position),
            false => self.facts.head,
        };
        let head = || (newest.max(request.after.unwrap_or(EventId::ZERO)), PageEnd::Head);
        let (mut complete_to, end) = end.unwrap_or_else(head);
        if mutant!(PageCursorIsLargestId) {
            complete_to = complete_to.max(self.facts.head);
        }
        ReplayPage { rows: self.rows, complete_to, end, facts: self.facts }
    }
}
