//! Keeps the hub fed. NOTIFY is a wake-up, never the data (invariant 4): on every wake, every error of
//! the listener, and a timer, the feed is read after the hub's position. One task owns the
//! `follower`, which moves that position, and so takes from one source at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::database::Database;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::writer::OwnGroup;

pub(crate) mod follower;

use follower::{Follower, Next};

/// Reads the feed even if nothing wakes us: sqlx's listener is silent about a frozen peer.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Rows found by the timer alone, this often in a row, mean that the listener hears nothing.
const DEAF_AFTER: u32 = 3;
const SHORTEST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Reads the feed into the hub.
pub struct Feed {
    database: Arc<Database>,
    follower: Follower,
    metrics: Arc<Metrics>,
    own_groups: mpsc::Receiver<OwnGroup>,
    ear: Arc<Ear>,
}

/// What the listener tells the feed, and the other way round.
#[derive(Debug)]
struct Ear {
    wake: Notify,
    /// The highest position heard of; `i64::MAX` when it is not known what was missed.
    announced: AtomicI64,
    deaf: Notify,
}

impl Ear {
    fn hear(&self, position: i64) {
        self.announced.fetch_max(position, Ordering::AcqRel);
        self.wake.notify_one();
    }
}

impl Feed {
    /// A feed that takes the writer's groups from `own_groups`.
    pub fn new(
        database: Arc<Database>,
        hub: Arc<Hub>,
        clock: Clock,
        metrics: Arc<Metrics>,
        own_groups: mpsc::Receiver<OwnGroup>,
    ) -> Feed {
        let ear = Ear { wake: Notify::new(), announced: AtomicI64::new(0), deaf: Notify::new() };
        let follower = Follower::new(hub, clock, metrics.clone());
        Feed { database, follower, metrics, own_groups, ear: Arc::new(ear) }
    }

    /// Runs for as long as the program does.
    pub async fn run_forever(mut self) {
        self.database.prepared().await;
        self.start_at_the_head().await;
        let listener =
            listen_forever(self.database.clone(), self.ear.clone(), self.metrics.clone());
        let ear = self.ear.clone();
        tokio::join!(listener, async {
            let mut timer = tokio::time::interval(READ_EVERY);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut found_by_timer = 0;
            loop {
                let next = tokio::select! {
                    // Own groups first: the wake-up of one that is in the channel needs no read.
                    biased;
                    Some(group) = self.own_groups.recv() => self.follower.take_group(&group),
                    () = ear.wake.notified() => {
                        found_by_timer = 0;
                        self.follower.hear(ear.announced.swap(0, Ordering::AcqRel))
                    }
                    _ = timer.tick(), if !mutant!(ListenerErrorIgnored) => {
                        let before = self.follower.position();
                        self.catch_up().await;
                        let found = self.follower.position() != before;
                        found_by_timer = if found { found_by_timer + 1 } else { 0 };
                        if found_by_timer >= DEAF_AFTER {
                            warn!("rows arrive but no wake-ups; connecting the listener again");
                            found_by_timer = 0;
                            ear.deaf.notify_one();
                        }
                        Next::Wait
                    }
                };
                if next == Next::Read {
                    self.catch_up().await;
                }
            }
        });
    }

    /// What came before is for replays.
    async fn start_at_the_head(&mut self) {
        loop {
            match self.database.store().head().await {
                Ok(head) => {
                    self.follower.start_at(head);
                    return self.note_seen();
                }
                Err(error) => self.database_is_away(&error).await,
            }
        }
    }

    /// Reads to the end of the feed; on an error the timer tries again.
    async fn catch_up(&mut self) {
        loop {
            self.metrics.feed_reads.inc();
            let (after, epoch) = (self.follower.position(), self.follower.epoch());
            let page = match self.database.store().read_feed(after, epoch).await {
                Ok(page) => page,
                Err(error) => return self.database_is_away(&error).await,
            };
            self.database.set_up(true);
            let next = self.follower.take_page(&page);
            self.note_seen();
            if next == Next::Wait {
                return;
            }
        }
    }

    fn note_seen(&self) {
        let position = self.follower.position().position();
        self.database.store().note_seen(position, self.follower.epoch());
    }

    async fn database_is_away(&self, error: &StoreError) {
        self.database.set_up(false);
        debug!(error = error.summary(), "the feed could not be read");
        tokio::time::sleep(SHORTEST_RETRY).await;
    }
}

/// Holds one LISTEN connection. A future of its receive must run to its end (dropping it swallows a
/// wake-up), so this is a task of its own beside the reader; it is dropped only with its connection.
async fn listen_forever(database: Arc<Database>, ear: Arc<Ear>, metrics: Arc<Metrics>) {
    let mut pause = SHORTEST_RETRY;
    loop {
        match database.store().listen().await {
            Ok(mut listener) => {
                metrics.listener_reconnects.inc();
                pause = SHORTEST_RETRY;
                // LISTEN first, then read: what came between is found.
                ear.hear(i64::MAX);
                tokio::select! {
                    () = relay(&mut listener, &ear) => {}
                    () = ear.deaf.notified() => {}
                }
            }
            Err(error) => warn!(error = error.summary(), "the listener cannot reach the database"),
        }
        ear.hear(i64::MAX);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}

async fn relay(listener: &mut sqlx::postgres::PgListener, ear: &Ear) {
    loop {
        match listener.try_recv().await {
            Ok(Some(notice)) => ear.hear(notice.payload().parse().unwrap_or(i64::MAX)),
            Ok(None) | Err(_) if mutant!(ListenerErrorIgnored) => std::future::pending().await,
            // Broken: some breaks come as an error, others do not.
            Ok(None) => return,
            Err(error) => {
                debug!(%error, "the listener's connection broke");
                return;
            }
        }
    }
}
