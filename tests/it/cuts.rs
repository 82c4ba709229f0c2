//! Invariant 3 under cuts: whenever and wherever connections break, each client's sequence is exactly
//! its sends in id order. What it should be comes from the answers to the senders and from the table.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::harness::{DEADLINE, Frame, Proxy, SseClient, TestApp, TestDatabase};

const CLIENTS: usize = 20;
const CUTS: usize = 5;
/// For each client, in each half of what lies between two cuts.
const SENDS_ALLOWED_AT_ONCE: usize = 10;
const SENDS: usize = CLIENTS * CUTS * 2 * SENDS_ALLOWED_AT_ONCE;

const BEFORE_ALL: &str = "00000000000000000000000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_cut_in_every_phase_get_exactly_their_sends() {
    cut_clients_of(CLIENTS, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_of_one_user_that_are_cut_in_every_phase_all_get_exactly_its_sends() {
    cut_clients_of(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_to_another_instance_each_time_get_exactly_their_sends() {
    cut_clients_of(CLIENTS / 2, 2).await;
}

async fn cut_clients_of(users: usize, instances: usize) {
    let database = TestDatabase::new().await;
    let fleet = Fleet::start(&database, instances).await;
    let users: Vec<User> = (0..users).map(User::new).collect();
    let of = |number: usize| &users[number % users.len()];
    let cuts = Mutex::new(Vec::new());

    let senders = join_all((0..CLIENTS).map(|number| of(number).send(&fleet, SENDS / CLIENTS)));
    let clients = (0..CLIENTS).map(|number| Client::new(of(number), &fleet).be_cut(number, &cuts));
    let (_, clients) = tokio::join!(senders, join_all(clients));

    for user in &users {
        let mut acknowledged = user.acknowledged.borrow().clone();
        acknowledged.sort();
        assert_eq!(acknowledged.len(), SENDS / users.len());
        assert_eq!(acknowledged, database.ids("shop", &format!("user:{}", user.name)).await);
    }
    for mut client in clients {
        client.catch_up().await;
        let mut expected = client.user.acknowledged.borrow().clone();
        expected.sort();
        assert_eq!(client.seen, expected);
    }
    let cuts = cuts.into_inner().unwrap();
    for phase in Phase::ALL {
        let count = cuts.iter().filter(|cut| **cut == phase).count();
        assert_eq!(count, CLIENTS * CUTS / Phase::ALL.len(), "cuts in {phase:?}");
    }
}

/// Where in its life a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// After `tidings.ready`, before any event.
    Ready,
    /// After some of the missed events.
    Replay,
    /// After the last of them, before `tidings.live`.
    Handover,
    /// After some live events.
    Live,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Ready, Phase::Replay, Phase::Handover, Phase::Live];
}

/// Instances on one database, taken in turn.
struct Fleet {
    instances: Vec<TestApp>,
    turn: AtomicUsize,
}

impl Fleet {
    async fn start(database: &TestDatabase, size: usize) -> Fleet {
        let instances = (0..size).map(|_| TestApp::on(database.clone(), |_| {}));
        Fleet { instances: join_all(instances).await, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &TestApp {
        &self.instances[self.turn.fetch_add(1, Ordering::Relaxed) % self.instances.len()]
    }
}

/// Whom notifications are sent to, as fast as its clients allow: each lets some through before it
/// connects and some after, so there are sends in every phase on any machine.
struct User {
    name: String,
    allowed: Semaphore,
    acknowledged: watch::Sender<Vec<String>>,
}

impl User {
    fn new(number: usize) -> User {
        let (allowed, acknowledged) = (Semaphore::new(0), watch::Sender::default());
        User { name: format!("user-{number}"), allowed, acknowledged }
    }

    fn allow_more(&self) {
        self.allowed.add_permits(SENDS_ALLOWED_AT_ONCE);
    }

    async fn send(&self, fleet: &Fleet, count: usize) {
        for number in 0..count {
            self.allowed.acquire().await.unwrap().forget();
            let sent = fleet.next().send(&format!("shop/{}", self.name), &number.to_string()).await;
            self.acknowledged.send_modify(|ids| ids.push(sent.id));
        }
    }

    async fn has_been_sent(&self, count: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        let wait = acknowledged.wait_for(|ids| ids.len() >= count);
        timeout(DEADLINE, wait).await.expect("sends in time").expect("the sender is ours");
    }
}

struct Client<'a> {
    user: &'a User,
    fleet: &'a Fleet,
    cursor: String,
    seen: Vec<String>,
}

impl<'a> Client<'a> {
    fn new(user: &'a User, fleet: &'a Fleet) -> Client<'a> {
        Client { user, fleet, cursor: BEFORE_ALL.to_owned(), seen: Vec::new() }
    }

    async fn be_cut(mut self, number: usize, cuts: &Mutex<Vec<Phase>>) -> Client<'a> {
        for cut in 0..CUTS {
            self.user.allow_more();
            // Not less than this was missed, so there is something to replay.
            self.user.has_been_sent(self.seen.len() + 3).await;
            let phase = Phase::ALL[(number + cut) % Phase::ALL.len()];
            match phase {
                Phase::Ready => self.be_cut_when_ready().await,
                Phase::Replay => self.be_cut_in_the_replay().await,
                Phase::Handover => self.be_cut_in_the_handover().await,
                Phase::Live => self.be_cut_when_live().await,
            }
            if phase != Phase::Live {
                self.user.allow_more();
            }
            cuts.lock().unwrap().push(phase);
        }
        self
    }

    async fn be_cut_when_ready(&mut self) {
        let stream = self.connect(self.fleet.next().address).await;
        self.lose(stream);
    }

    async fn be_cut_in_the_replay(&mut self) {
        let mut stream = self.connect(self.fleet.next().address).await;
        self.see(&stream.next_but_pings().await);
        self.lose(stream);
    }

    async fn be_cut_in_the_handover(&mut self) {
        let proxy = Proxy::hold_before(self.fleet.next().address, "event: tidings.live").await;
        let mut stream = self.connect(proxy.address).await;
        let held = proxy.held().await;
        let (_, count) = held.split_once("{\"replayed\":").unwrap();
        let count: usize = count.split_once('}').unwrap().0.trim().parse().unwrap();
        assert!(count >= 3, "{count}");
        for _ in 0..count {
            self.see(&stream.notification().await);
        }
        proxy.cut();
        self.lose(stream);
    }

    async fn be_cut_when_live(&mut self) {
        let mut stream = self.connect(self.fleet.next().address).await;
        let (replayed, _) = stream.until("tidings.live").await;
        replayed.iter().for_each(|frame| self.see(frame));
        self.user.allow_more();
        for _ in 0..3 {
            self.see(&stream.notification().await);
        }
        self.lose(stream);
    }

    /// All that was sent, with nothing after it.
    async fn catch_up(&mut self) {
        let mut stream = self.connect(self.fleet.next().address).await;
        let (replayed, _) = stream.until("tidings.live").await;
        replayed.iter().for_each(|frame| self.see(frame));
        stream.expect_silence().await;
    }

    async fn connect(&self, address: SocketAddr) -> SseClient {
        let path = format!("/api/notifications/subscribe/shop/{}", self.user.name);
        let mut stream = SseClient::connect(address, &path, Some(&self.cursor)).await;
        let ready = stream.next().await;
        assert!(ready.is("tidings.ready"), "{ready:?}");
        assert_eq!(ready.id(), self.cursor);
        stream
    }

    fn see(&mut self, frame: &Frame) {
        assert!(frame.is_notification(), "{frame:?}");
        self.seen.push(frame.id().to_owned());
    }

    fn lose(&mut self, stream: SseClient) {
        self.cursor = stream.cursor.clone().expect("it began with one");
        stream.cut();
    }
}
