//! Batches waiting replays into one query: a thousand clients that reconnect at once cost twenty
//! queries, not a thousand. Fair, because a client asks for its next page only after the last one was
//! taken, and so joins the tail. Pages that are not taken yet are bounded in bytes (invariant 5).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use crate::address::{App, Audience, User};
use crate::coverage::Coverage;
use crate::database::Database;
use crate::event_id::EventId;
use crate::frame;
use crate::metrics::{Held, Metrics};
use crate::notification::STATE_ENTRY;
use crate::store::{Facts, PageEnd, ReplayPage, ReplayRequest, ReplayRow};

/// Clients in one query: beyond this the query's own time grows as fast as their number.
const BATCH: usize = 50;
/// Rows that one query may look at: what a full batch of clients with two audiences does. Of clients
/// with a hundred audiences fewer go into one, so that it ends well before its deadline.
const BATCH_ROWS: usize = 50_000;
/// Rows of all audiences of one client that its first page looks at: as many as fill it.
const FIRST_ROWS: usize = 1000;
/// But of each one so many at least, or a client with many would take as many pages for one busy topic.
const LEAST_DEPTH: usize = 32;
/// Queries under way at once: while one is decoded, the database works on the other.
const QUERIES: usize = 2;
/// Pages that clients have not taken yet, in all.
const PAGES_BYTES: usize = 64 << 20;
/// One chunk of a page on its way to a client.
const CHUNK_BYTES: usize = 16 << 10;
const RETRY: Duration = Duration::from_millis(100);

/// How large one page may be.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Rows of each audience that are looked at, at most.
    pub rows: usize,
    /// Bytes of frames in all, but one at least.
    pub bytes: usize,
}

/// The asking side.
#[derive(Clone, Debug)]
pub struct Replayer {
    wishes: mpsc::UnboundedSender<Wish>,
    most_rows: usize,
    metrics: Arc<Metrics>,
}

/// One client's page, as frames.
#[derive(Debug)]
pub struct Page {
    /// Whole frames in chunks; none above `complete_to`.
    pub chunks: Vec<Bytes>,
    /// How many events they hold.
    pub events: u64,
    /// And how many of these are notifications, not state entries.
    pub notifications: u64,
    /// Nothing up to here is missing.
    pub complete_to: EventId,
    /// Nothing in the snapshot was above `complete_to`.
    pub caught_up: bool,
    /// How deep to look into each audience for the next page.
    pub next_depth: usize,
    /// What the snapshot said about the feed.
    pub facts: Facts,
    /// Gives the memory back when the page is taken.
    pub hold: PageHold,
}

/// The share of a page in the memory that all pages may take.
#[derive(Debug)]
pub struct PageHold {
    _permit: OwnedSemaphorePermit,
    _counted: Held,
}

#[derive(Debug)]
struct Wish {
    coverage: Arc<Coverage>,
    after: Option<EventId>,
    depth: usize,
    /// The first of its subscription: its user is known once it is answered.
    first: bool,
    reply: oneshot::Sender<Page>,
    since: Instant,
    _counted: Held,
}

impl Replayer {
    /// The asking side and the task that answers, which runs for as long as the program does.
    pub fn new(
        database: Arc<Database>,
        size: PageSize,
        metrics: Arc<Metrics>,
    ) -> (Replayer, impl Future<Output = ()> + Send) {
        // Unbounded, but a subscription has one wish at a time: bounded by their number.
        let (wishes, waiting) = mpsc::unbounded_channel();
        let batcher = Batcher {
            database,
            size,
            metrics: metrics.clone(),
            memory: Arc::new(Semaphore::new(PAGES_BYTES)),
        };
        (Replayer { wishes, most_rows: size.rows, metrics }, Arc::new(batcher).run_forever(waiting))
    }

    /// Asks for the page after `after`, or for the facts alone. `depth` is what the page before said;
    /// there is none the first time. The answer comes when the database has it, however long that
    /// takes.
    pub fn ask(
        &self,
        coverage: &Arc<Coverage>,
        after: Option<EventId>,
        depth: Option<usize>,
    ) -> oneshot::Receiver<Page> {
        let (reply, page) = oneshot::channel();
        let first_depth = || (FIRST_ROWS / coverage.audiences.len().max(1)).max(LEAST_DEPTH);
        let _counted = Held::new(&self.metrics.replay_queue, 1);
        let wish = Wish {
            coverage: coverage.clone(),
            after,
            depth: depth.unwrap_or_else(first_depth).min(self.most_rows),
            first: depth.is_none(),
            reply,
            since: Instant::now(),
            _counted,
        };
        // Fails only at the very end of the program, when nobody waits for an answer either.
        let _ = self.wishes.send(wish);
        page
    }
}

struct Batcher {
    database: Arc<Database>,
    size: PageSize,
    metrics: Arc<Metrics>,
    memory: Arc<Semaphore>,
}

impl Batcher {
    async fn run_forever(self: Arc<Batcher>, mut waiting: mpsc::UnboundedReceiver<Wish>) {
        self.database.prepared().await;
        let queries = Arc::new(Semaphore::new(QUERIES));
        // Up to a batch; those behind them still wait in the channel.
        let mut next = VecDeque::with_capacity(BATCH);
        loop {
            let Ok(query) = queries.clone().acquire_owned().await else { return };
            if next.is_empty() {
                let Some(wish) = waiting.recv().await else { return };
                next.push_back(wish);
            }
            while next.len() < BATCH
                && let Ok(wish) = waiting.try_recv()
            {
                next.push_back(wish);
            }
            let wishes = take_batch(&mut next);
            let batcher = self.clone();
            tokio::spawn(async move {
                batcher.answer(wishes).await;
                drop(query);
            });
        }
    }

    /// Answers a batch, whenever the database lets it.
    async fn answer(&self, mut wishes: Vec<Wish>) {
        loop {
            wishes.retain(|wish| !wish.reply.is_closed());
            if wishes.is_empty() {
                return;
            }
            let permits = self.reserve(&wishes).await;
            let requests: Vec<_> = wishes.iter().map(Wish::request).collect();
            let store = self.database.store();
            let pages = match store.note_known(&first_users(&wishes)).await {
                Ok(()) => store.replay(&requests, self.size.bytes).await,
                Err(error) => Err(error),
            };
            match pages {
                Ok(pages) => {
                    for ((wish, page), permit) in wishes.into_iter().zip(pages).zip(permits) {
                        self.metrics.replay_seconds.observe(wish.since.elapsed().as_secs_f64());
                        let page = self.frame(&wish, page, permit);
                        let _ = wish.reply.send(page);
                    }
                    return;
                }
                Err(error) => {
                    debug!(error = error.summary(), "a replay page could not be read");
                    self.database.set_up(false);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Memory for one full page of each, before any is read.
    async fn reserve(&self, wishes: &[Wish]) -> Vec<OwnedSemaphorePermit> {
        let mut permits = Vec::with_capacity(wishes.len());
        for _ in wishes {
            let permit = self.memory.clone().acquire_many_owned(self.size.bytes as u32).await;
            permits.push(permit.expect("nobody closes this semaphore"));
        }
        permits
    }

    fn frame(&self, wish: &Wish, page: ReplayPage, permit: OwnedSemaphorePermit) -> Page {
        let Coverage { audiences, format, .. } = &*wish.coverage;
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut chunk = String::new();
        let (mut bytes, mut notifications) = (0, 0);
        let mut rows = page.rows.iter().peekable();
        while let Some(row) = rows.next() {
            let ReplayRow { id, source, created_at, data, .. } = row;
            let (event, audience) = (row.event.as_deref(), &audiences[*source]);
            let framed = frame::Row { id: *id, event, audience, created_at: *created_at, data };
            frame::row(&mut chunk, *format, &framed);
            notifications += u64::from(event != Some(STATE_ENTRY));
            if chunk.len() >= CHUNK_BYTES || rows.peek().is_none() {
                bytes += chunk.len();
                // What it grew by ahead is memory too.
                chunk.shrink_to_fit();
                chunks.push(std::mem::take(&mut chunk).into());
            }
        }
        Page {
            chunks,
            events: page.rows.len() as u64,
            notifications,
            complete_to: page.complete_to,
            caught_up: page.end == PageEnd::Head,
            next_depth: next_depth(wish.depth, page.end),
            facts: page.facts,
            hold: PageHold {
                _permit: self.keep(permit, bytes),
                _counted: Held::new(&self.metrics.replay_bytes, bytes),
            },
        }
    }

    /// Of what was reserved, what the page really takes.
    fn keep(&self, mut permit: OwnedSemaphorePermit, bytes: usize) -> OwnedSemaphorePermit {
        match permit.num_permits().checked_sub(bytes) {
            Some(spare) => drop(permit.split(spare)),
            // One row alone can be larger than a page, if TIDINGS_MAX_DATA is. To wait for the memory
            // while holding some could be for ever.
            None => {
                let more = (bytes - permit.num_permits()) as u32;
                if let Ok(more) = self.memory.clone().try_acquire_many_owned(more) {
                    permit.merge(more);
                }
            }
        }
        permit
    }
}

impl Wish {
    fn request(&self) -> ReplayRequest<'_> {
        ReplayRequest {
            app: &self.coverage.app,
            audiences: &self.coverage.audiences,
            after: self.after,
            depth: self.depth,
            row_overhead: self.row_overhead(),
        }
    }

    /// The rows that its page may look at.
    fn most_rows(&self) -> usize {
        self.coverage.audiences.len() * self.depth
    }

    fn row_overhead(&self) -> usize {
        let Coverage { audiences, format, .. } = &*self.coverage;
        let beside = audiences.iter().map(|audience| frame::most_beside_data(*format, audience));
        beside.max().unwrap_or_default()
    }
}

/// Those in front that one query can bear together; one in any case.
fn take_batch(waiting: &mut VecDeque<Wish>) -> Vec<Wish> {
    let mut rows = 0;
    let fits = waiting.iter().take_while(|wish| {
        rows += wish.most_rows();
        rows <= BATCH_ROWS
    });
    let count = fits.count().max(1).min(waiting.len());
    waiting.drain(..count).collect()
}

/// Deeper when a page ended for want of depth, so that a single busy topic among a hundred is read in
/// few pages; less deep when most of what was looked at is left for later pages.
fn next_depth(depth: usize, end: PageEnd) -> usize {
    match end {
        PageEnd::Depth => depth * 2,
        PageEnd::Bytes { looked_at_each: 4.. } => (depth / 2).max(LEAST_DEPTH),
        PageEnd::Bytes { .. } | PageEnd::Head => depth,
    }
}

/// Whose streams have just been opened. Known before the first page is read, and so before their
/// streams are live: what is sent from then on counts for them.
fn first_users(wishes: &[Wish]) -> Vec<(&App, &User)> {
    wishes
        .iter()
        .filter(|wish| wish.first)
        .flat_map(|wish| {
            wish.coverage.audiences.iter().map(|audience| (&wish.coverage.app, audience))
        })
        .filter_map(|(app, audience)| match audience {
            Audience::User(user) => Some((app, user)),
            Audience::Topic(_) | Audience::Everyone => None,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod by_hand;
