//! Replay pages: what clients missed, for many of them in one query.

use std::collections::HashMap;

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
}

/// What the snapshot of a page says about the whole feed.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The newest committed row, or the edge if that is above it.
    pub head: EventId,
    /// The retention edge.
    pub edge: EventId,
    /// The last position ever issued.
    pub last_position: i64,
}

/// One row of a page.
#[derive(Debug)]
pub struct ReplayRow {
    /// Its id.
    pub id: EventId,
    /// Its event name.
    pub event: Option<String>,
    /// Its data.
    pub data: String,
}

/// One page for one client.
#[derive(Debug)]
pub struct ReplayPage {
    /// Rows of all its audiences in id order, none above `complete_to`.
    pub rows: Vec<ReplayRow>,
    /// Nothing up to here is missing from this page.
    pub complete_to: EventId,
    /// Nothing in the snapshot is above `complete_to`.
    pub caught_up: bool,
    /// Of the same snapshot.
    pub facts: Facts,
}

impl Store {
    /// Reads a page for each request: up to `page_rows` rows per audience and about `page_bytes` in
    /// all (one row at least).
    pub async fn replay(
        &self,
        requests: &[ReplayRequest<'_>],
        page_rows: usize,
        page_bytes: usize,
    ) -> Result<Vec<ReplayPage>, StoreError> {
        let mut sources = Sources::default();
        for (waiter, request) in requests.iter().enumerate() {
            sources.add(waiter, request, page_bytes);
        }
        let rows = self
            .read(&self.streams, async |conn| {
                sqlx::query_file!(
                    "src/store/replay.sql",
                    &sources.waiters,
                    &sources.numbers,
                    &sources.apps as &[&str],
                    &sources.audiences,
                    &sources.after,
                    &sources.max_bytes,
                    page_rows as i64,
                )
                .fetch_all(conn)
                .await
            })
            .await?;

        let first = rows.first().ok_or(StoreError::Database(sqlx::Error::RowNotFound))?;
        let facts = Facts {
            head: first.head.into(),
            edge: first.edge.into(),
            last_position: first.last_position,
        };
        let mut pages: Vec<PageInTheMaking> =
            requests.iter().map(|_| PageInTheMaking::default()).collect();
        for row in rows {
            let (Some(waiter), Some(source), Some(taken)) = (row.waiter, row.source, row.taken)
            else {
                continue;
            };
            let (Some(id), Some(data)) = (row.id, row.data) else { continue };
            let page = &mut pages[waiter as usize];
            let id = EventId::from(id);
            page.last.insert(source, (id, taken));
            *page.emitted.entry(source).or_default() += 1;
            page.rows.push(ReplayRow { id, event: row.event, data });
        }
        Ok(pages
            .into_iter()
            .zip(requests)
            .map(|(page, r)| page.finish(r, facts, page_rows))
            .collect())
    }
}

/// The columns of `unnest`: one row per client and audience.
#[derive(Default)]
struct Sources<'a> {
    waiters: Vec<i32>,
    numbers: Vec<i32>,
    apps: Vec<&'a str>,
    audiences: Vec<String>,
    after: Vec<Uuid>,
    max_bytes: Vec<i64>,
}

impl<'a> Sources<'a> {
    fn add(&mut self, waiter: usize, request: &ReplayRequest<'a>, page_bytes: usize) {
        let Some(after) = request.after else { return };
        for (number, audience) in request.audiences.iter().enumerate() {
            self.waiters.push(waiter as i32);
            self.numbers.push(number as i32);
            self.apps.push(request.app.as_str());
            self.audiences.push(audience.to_sql());
            self.after.push(after.into());
            self.max_bytes.push((page_bytes / request.audiences.len()) as i64);
        }
    }
}

#[derive(Default)]
struct PageInTheMaking {
    rows: Vec<ReplayRow>,
    /// Of each audience: its last row here, and how many rows the limit let through.
    last: HashMap<i32, (EventId, i64)>,
    emitted: HashMap<i32, i64>,
}

impl PageInTheMaking {
    /// A page is complete up to the smallest last id of the audiences that were cut, by rows or by
    /// bytes; if none was, up to the head of the snapshot. With the largest id as the next cursor,
    /// 700 of 1,201 rows were lost.
    fn finish(mut self, request: &ReplayRequest<'_>, facts: Facts, page_rows: usize) -> ReplayPage {
        let cut = self
            .last
            .iter()
            .filter(|(source, (_, taken))| {
                *taken == page_rows as i64 || self.emitted[*source] < *taken
            })
            .map(|(_, (id, _))| *id)
            .min();
        let complete_to =
            cut.unwrap_or_else(|| facts.head.max(request.after.unwrap_or(EventId::ZERO)));
        self.rows.retain(|row| row.id <= complete_to);
        ReplayPage { rows: self.rows, complete_to, caught_up: cut.is_none(), facts }
    }
}
