//! Batches waiting replays into one query: a thousand clients that reconnect at once cost twenty
//! queries, not a thousand. Fair, because a client asks for its next page only after the last one was
//! taken, and so joins the tail. Pages that are not taken yet are bounded in bytes (invariant 5).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use crate::address::{App, Audience, User};
use crate::database::Database;
use crate::event_id::EventId;
use crate::frame;
use crate::metrics::{Held, Metrics};
use crate::store::{Facts, ReplayPage, ReplayRequest};

/// Clients in one query: beyond this the query's own time grows as fast as their number.
const BATCH: usize = 50;
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
    /// Rows of each audience.
    pub rows: usize,
    /// Bytes of data in all, but one row at least.
    pub bytes: usize,
}

/// The asking side.
#[derive(Clone, Debug)]
pub struct Replayer {
    wishes: mpsc::UnboundedSender<Wish>,
    metrics: Arc<Metrics>,
}

/// One client's page, as frames.
#[derive(Debug)]
pub struct Page {
    /// Whole frames in chunks; none above `complete_to`.
    pub chunks: Vec<Bytes>,
    /// How many notifications they hold.
    pub count: u64,
    /// Nothing up to here is missing.
    pub complete_to: EventId,
    /// Nothing in the snapshot was above `complete_to`.
    pub caught_up: bool,
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
    app: App,
    audiences: Arc<[Audience]>,
    after: Option<EventId>,
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
        (Replayer { wishes, metrics }, Arc::new(batcher).run_forever(waiting))
    }

    /// Asks for the page after `after`, or for the facts alone; `first` for the first time. The
    /// answer comes when the database has it, however long that takes.
    pub fn ask(
        &self,
        app: &App,
        audiences: &Arc<[Audience]>,
        after: Option<EventId>,
        first: bool,
    ) -> oneshot::Receiver<Page> {
        let (reply, page) = oneshot::channel();
        let _counted = Held::new(&self.metrics.replay_queue, 1);
        let wish = Wish {
            app: app.clone(),
            audiences: audiences.clone(),
            after,
            first,
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
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let Ok(query) = queries.clone().acquire_owned().await else { return };
            if waiting.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            let wishes = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
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
            let requests: Vec<ReplayRequest<'_>> = wishes
                .iter()
                .map(|wish| ReplayRequest {
                    app: &wish.app,
                    audiences: &wish.audiences,
                    after: wish.after,
                })
                .collect();
            let store = self.database.store();
            let pages = match store.note_known(&first_users(&wishes)).await {
                Ok(()) => store.replay(&requests, self.size.rows, self.size.bytes).await,
                Err(error) => Err(error),
            };
            match pages {
                Ok(pages) => {
                    for ((wish, page), permit) in wishes.into_iter().zip(pages).zip(permits) {
                        self.metrics.replay_seconds.observe(wish.since.elapsed().as_secs_f64());
                        let _ = wish.reply.send(self.frame(page, permit));
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

    fn frame(&self, page: ReplayPage, mut permit: OwnedSemaphorePermit) -> Page {
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut chunk = String::new();
        let mut bytes = 0;
        for row in &page.rows {
            frame::notification(&mut chunk, row.id, row.event.as_deref(), &row.data);
            if chunk.len() >= CHUNK_BYTES {
                bytes += chunk.len();
                chunks.push(std::mem::take(&mut chunk).into());
            }
        }
        if !chunk.is_empty() {
            bytes += chunk.len();
            chunks.push(chunk.into());
        }
        drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        Page {
            chunks,
            count: page.rows.len() as u64,
            complete_to: page.complete_to,
            caught_up: page.caught_up,
            facts: page.facts,
            hold: PageHold {
                _permit: permit,
                _counted: Held::new(&self.metrics.replay_bytes, bytes),
            },
        }
    }
}

/// Whose streams have just been opened. Known before the first page is read, and so before their
/// streams are live: what is sent from then on counts for them.
fn first_users(wishes: &[Wish]) -> Vec<(&App, &User)> {
    wishes
        .iter()
        .filter(|wish| wish.first)
        .flat_map(|wish| wish.audiences.iter().map(|audience| (&wish.app, audience)))
        .filter_map(|(app, audience)| match audience {
            Audience::User(user) => Some((app, user)),
            Audience::Topic(_) | Audience::Everyone => None,
        })
        .collect()
}
