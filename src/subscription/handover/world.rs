//! One instance and one client. The hub, the follower of the feed, the replayer's pages and the
//! subscription are the server's own; around them are the model of Postgres and of what brings its news,
//! which move by one step whenever a test says so.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::row::{self, Row};
use super::subscriber::{Broken, Frame, Subscriber};
use super::table::Table;
use crate::clock::Clock;
use crate::coverage::{Coverage, Format};
use crate::database::Database;
use crate::feed::follower::{Follower, Next};
use crate::hub::{Hub, Membership};
use crate::metrics::Metrics;
use crate::replayer::PageSize;
use crate::replayer::by_hand::{Asked, ByHand};
use crate::shutdown::Drain;
use crate::store::replay::QueryRow;
use crate::store::{FeedPage, Head, Store};
use crate::subscription::{Phase, Streams, Subscription};
use crate::writer::OwnGroup;

use super::scenario::{Act, Scenario};

/// The whole of it.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    /// How often each act may still happen.
    left: [u8; Act::COUNT],
    pub(super) table: Table,
    appended: usize,
    hub: Arc<Hub>,
    streams: Arc<Streams>,
    follower: Follower,
    /// The feed waits for the answer of what was read.
    reading: Option<Read>,
    /// Of our own writer: committed, and on its way to the feed.
    group: Option<OwnGroup>,
    /// What the feed finds when it is free.
    groups: VecDeque<OwnGroup>,
    heard: Option<i64>,
    listener: Listener,
    /// Sent by Postgres and not received yet.
    notices: VecDeque<i64>,
    /// A read that nothing but the timer will repeat.
    failed: bool,
    replays: ByHand,
    page: Option<(Asked, Vec<QueryRow>)>,
    subscription: Option<Subscription>,
    /// Somebody else who has joined the same audiences and stays.
    _bystander: Option<Membership>,
    /// The body would be polled: it was woken, or gave something the last time.
    pollable: bool,
    /// Handed on, and not taken by the client yet.
    in_transit: Vec<Frame>,
    pub(super) client: Subscriber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listener {
    Listens,
    /// It knows that its connection is gone.
    Lost,
    /// It does not.
    Deaf,
}

enum Read {
    Head(Head),
    Page(FeedPage),
}

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Arc::default);
/// Asked for nothing but whether it is up.
static DATABASE: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let store = Store::new("postgres://nobody@localhost/nothing", None).unwrap();
    Arc::new(Database::new(store, METRICS.database_up.clone()))
});

impl<'a> World<'a> {
    /// Needs a runtime around it, whose time does not matter.
    pub(super) fn new(scenario: &'a Scenario) -> World<'a> {
        let hub = Arc::new(Hub::new(scenario.ring_bytes, METRICS.clone()));
        let size = PageSize { rows: scenario.page_rows, bytes: scenario.page_bytes };
        let (replayer, replays) = ByHand::new(DATABASE.clone(), size, METRICS.clone());
        let streams = Arc::new(Streams {
            hub: hub.clone(),
            replayer,
            database: DATABASE.clone(),
            clock: Clock::default(),
            heartbeat: std::time::Duration::from_secs(3600),
            drain: Drain::new(CancellationToken::new(), std::time::Duration::ZERO),
            metrics: METRICS.clone(),
        });
        let mut world = World {
            left: scenario.left(),
            table: Table::new(),
            appended: 0,
            streams,
            follower: Follower::new(hub.clone(), Clock::default(), METRICS.clone()),
            reading: None,
            group: None,
            groups: VecDeque::new(),
            heard: None,
            listener: Listener::Lost,
            notices: VecDeque::new(),
            failed: false,
            replays,
            page: None,
            subscription: None,
            _bystander: scenario.bystander.then(|| hub.join(&coverage())),
            pollable: false,
            in_transit: Vec::new(),
            client: Subscriber::new(),
            hub,
            scenario,
        };
        for to in &scenario.before {
            world.table.append(*to, scenario.padding);
        }
        world.read_head();
        if scenario.started {
            world.feed_answer();
            world.listener = Listener::Listens;
        }
        world
    }

    /// What can happen next.
    pub(super) fn enabled(&self) -> Vec<Act> {
        Act::ALL.into_iter().filter(|act| self.can(*act)).collect()
    }

    pub(super) fn can(&self, act: Act) -> bool {
        let is_connected = self.subscription.is_some();
        self.left[act as usize] > 0
            && match act {
                // The writer hands its group on before it appends the next.
                Act::Append => {
                    let next = self.scenario.appends.get(self.appended);
                    next.is_some_and(|append| !append.own || self.group.is_none())
                }
                Act::Group | Act::DropGroup => self.group.is_some(),
                Act::Hear => !self.notices.is_empty(),
                Act::Lose | Act::Deafen => self.listener == Listener::Listens,
                // It comes to listen when the feed knows its head.
                Act::Listen => {
                    self.listener == Listener::Lost && !matches!(self.reading, Some(Read::Head(_)))
                }
                Act::Timer => self.reading.is_none(),
                Act::Feed => self.reading.is_some(),
                Act::FeedFails => matches!(self.reading, Some(Read::Page(_))),
                Act::Page | Act::PageFails => self.page.is_some(),
                Act::Take => is_connected && self.pollable,
                Act::Ping | Act::Cut => is_connected,
                Act::CutInside => is_connected && self.in_transit.len() > 1,
                Act::Connect => !is_connected,
                Act::Edge | Act::EdgeOfAll | Act::Withdraw | Act::Restore => self.table.has_rows(),
                Act::OtherEdge => self.table.has_rows_of_the_other_app(),
                Act::Burn => true,
                Act::Notice => self.table.is_replaced(),
            }
    }

    /// Lets it happen. An error: the client was told what may not be.
    pub(super) fn act(&mut self, act: Act) -> Result<(), Broken> {
        if !Act::STEPS.contains(&act) {
            self.left[act as usize] -= 1;
        }
        match act {
            Act::Append => self.append(),
            Act::Group => self.groups.extend(self.group.take()),
            Act::DropGroup => self.group = None,
            Act::Hear => self.heard = self.heard.max(self.notices.pop_front()),
            Act::Lose => self.set_listener(Listener::Lost),
            Act::Deafen => self.set_listener(Listener::Deaf),
            Act::Listen => self.set_listener(Listener::Listens),
            Act::Timer => self.tick(),
            Act::Feed => self.feed_answer(),
            Act::FeedFails => {
                self.reading = None;
                self.failed = true;
            }
            Act::Page => {
                if let Some((asked, rows)) = self.page.take() {
                    self.replays.answer(asked, rows);
                    self.pollable = true;
                }
            }
            Act::PageFails => self.read_page_again(),
            Act::Take => self.take()?,
            Act::Ping => {
                if let Some(subscription) = &mut self.subscription {
                    subscription.next_ping = tokio::time::Instant::now();
                    self.pollable = true;
                }
            }
            Act::Connect => {
                let start = self.client.connect(self.scenario.start, &self.table);
                let subscription = Subscription::open(self.streams.clone(), coverage(), start);
                (self.subscription, self.pollable) = (Some(subscription), true);
            }
            Act::Cut => self.cut(usize::MAX)?,
            Act::CutInside => self.cut(1)?,
            Act::Edge => self.table.move_edge(false),
            Act::EdgeOfAll => self.table.move_edge(true),
            Act::OtherEdge => self.table.move_other_edge(),
            Act::Withdraw => self.table.withdraw(),
            Act::Burn => self.table.burn(),
            Act::Restore => self.restore(),
            Act::Notice => self.notice(),
        }
        self.feed_goes_on();
        self.listen_to_the_hub();
        Ok(())
    }

    fn append(&mut self) {
        let append = self.scenario.appends[self.appended];
        self.appended += 1;
        self.notice();
        let prev = self.table.last_position;
        let row = self.table.append(append.to, self.scenario.padding);
        if append.own {
            let epoch = self.table.epoch();
            self.group = Some(OwnGroup { prev, epoch, rows: vec![row] });
        }
        self.notify(self.table.last_position);
    }

    /// Comes before everything else on a new connection.
    fn notice(&mut self) {
        if self.table.check_epoch(self.follower.epoch()) {
            // What is said then is no position.
            self.notify(i64::MAX);
        }
    }

    fn notify(&mut self, position: i64) {
        if self.listener == Listener::Listens {
            self.notices.push_back(position);
        }
    }

    fn set_listener(&mut self, listener: Listener) {
        self.listener = listener;
        self.notices.clear();
        match listener {
            Listener::Deaf => {}
            Listener::Listens | Listener::Lost => self.heard = Some(i64::MAX),
        }
    }

    /// All connections break.
    fn restore(&mut self) {
        self.table.restore();
        self.set_listener(Listener::Lost);
        self.failed |= self.reading.is_some();
        if let Some(Read::Head(_)) = self.reading.take() {
            self.read_head();
        }
        self.read_page_again();
    }

    /// The task of the feed: one thing after the other, own groups first.
    fn feed_goes_on(&mut self) {
        while self.reading.is_none() {
            let next = if let Some(group) = self.groups.pop_front() {
                self.follower.take_group(&group)
            } else if let Some(heard) = self.heard.take() {
                self.follower.hear(heard)
            } else {
                return;
            };
            if next == Next::Read {
                self.read_feed();
            }
        }
    }

    fn read_head(&mut self) {
        self.notice();
        self.reading = Some(Read::Head(self.table.head()));
    }

    fn read_feed(&mut self) {
        self.notice();
        let page = self.table.read_feed(self.follower.position(), self.follower.epoch());
        self.reading = Some(Read::Page(page));
    }

    fn feed_answer(&mut self) {
        match self.reading.take() {
            Some(Read::Head(head)) => self.follower.start_at(head),
            Some(Read::Page(page)) if self.follower.take_page(&page) == Next::Read => {
                self.read_feed();
            }
            _ => {}
        }
    }

    fn read_page(&mut self, asked: Asked) -> (Asked, Vec<QueryRow>) {
        self.notice();
        let rows = self.table.replay(&asked.request(), self.replays.size().bytes);
        (asked, rows)
    }

    fn read_page_again(&mut self) {
        self.page = self.page.take().map(|(asked, _)| self.read_page(asked));
    }

    /// The body is polled once; that it is polled means that what it gave before was taken.
    fn take(&mut self) -> Result<(), Broken> {
        self.receive(usize::MAX)?;
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        let polled = pin!(subscription.next()).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(Some(bytes)) => self.in_transit = Frame::read_all(&bytes)?,
            Poll::Ready(None) => return Err("the stream ended".to_owned()),
            Poll::Pending => self.pollable = false,
        }
        if let Some(asked) = self.replays.next() {
            self.page = Some(self.read_page(asked));
        }
        Ok(())
    }

    fn receive(&mut self, frames: usize) -> Result<(), Broken> {
        for frame in std::mem::take(&mut self.in_transit).iter().take(frames) {
            self.client.receive(frame, &self.table)?;
        }
        Ok(())
    }

    fn cut(&mut self, received: usize) -> Result<(), Broken> {
        self.receive(received)?;
        (self.subscription, self.page, self.pollable) = (None, None, false);
        Ok(())
    }

    /// The feed's timer, whatever the bounds.
    pub(super) fn tick(&mut self) {
        self.failed = false;
        self.read_feed();
    }

    /// Not everything that was said can be heard.
    pub(super) fn needs_timer(&self) -> bool {
        self.failed || self.listener == Listener::Deaf
    }

    /// What a live body waits for. (One that waits for a page is woken by the page.)
    fn listen_to_the_hub(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        if !self.pollable
            && matches!(subscription.phase, Phase::HandingOver | Phase::Live)
            && subscription.membership.woken().now_or_never().is_some()
        {
            self.pollable = true;
        }
    }

    /// The client has everything, and knows that it is live.
    pub(super) fn is_complete(&self) -> bool {
        self.in_transit.is_empty()
            && self.client.owed(&self.table).is_none()
            && self.client.is_live()
    }

    /// What has not come.
    pub(super) fn lacks(&self) -> Option<&Row> {
        self.client.owed(&self.table)
    }
}

fn coverage() -> Coverage {
    let audiences = Box::new(row::audiences());
    Coverage { app: row::app(), audiences, format: Format::Data }
}

mod fingerprint;
