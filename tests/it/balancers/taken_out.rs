//! Instances go and come back behind a balancer, in order or not, and clients that come back through it
//! miss nothing. They do what a browser does: connect again with the cursor after any end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::behind;
use super::front::{Front, Kind, replace};
use crate::harness::{DEADLINE, ServerProcess, TestApp, TestDatabase, eventually};

const CLIENTS: usize = 8;
const OPEN: &str = "tidings_subscriptions";

behind! {
    an_instance_that_is_taken_out_and_brought_back_costs_nobody_anything
    sticky_sessions_do_no_harm
    an_instance_that_is_killed_costs_nobody_anything
    streams_come_back_together_after_all_instances_were_away
}

async fn an_instance_that_is_taken_out_and_brought_back_costs_nobody_anything(kind: Kind) {
    take_both_out_in_turn(kind, |page| page).await;
}

async fn sticky_sessions_do_no_harm(kind: Kind) {
    let (each, sticky) = match kind {
        Kind::Nginx => ("least_conn", "ip_hash"),
        Kind::HaProxy => ("balance leastconn", "balance source"),
    };
    take_both_out_in_turn(kind, |page| replace(&page, each, sticky)).await;
}

/// With sends all the time, so that some are in the middle of every change.
async fn take_both_out_in_turn(kind: Kind, change: impl FnOnce(String) -> String) {
    let database = TestDatabase::new().await;
    let Some(mut front) = Front::plan(kind) else { return };
    let settings = |config: &mut tidings::config::Config| {
        config.drain = Duration::from_secs(8);
        // HAProxy asks once a second.
        config.drain_delay = Duration::from_millis(1500);
    };
    let first = front.instance(0, &database, settings).await;
    let second = front.instance(1, &database, settings).await;
    front.start(change).await;
    let front = Arc::new(front);
    let clients = Clients::connect(&front, CLIENTS).await;
    let sender = Sender::start(&front);

    first.stop().await.unwrap();
    eventually("all are at the second", async || second.metric(OPEN).await == CLIENTS as f64).await;
    front.notices(0, "DOWN").await;
    let first = front.instance(0, &database, settings).await;
    front.notices(0, "UP").await;
    second.stop().await.unwrap();
    eventually("all are at the first", async || first.metric(OPEN).await == CLIENTS as f64).await;

    let sent = sender.stop().await;
    clients.have_exactly(&sent, &database).await;
}

async fn an_instance_that_is_killed_costs_nobody_anything(kind: Kind) {
    let database = TestDatabase::new().await;
    let Some(mut front) = Front::plan(kind) else { return };
    let address = front.instances[0].to_string();
    let killed = ServerProcess::start_on(&address, &[("DATABASE_URL", &database.url)]).await;
    let http = crate::harness::http_client();
    eventually("it is ready", async || {
        let ready = http.get(format!("http://{address}/readyz")).send().await;
        ready.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let other: TestApp = front.instance(1, &database, |_| {}).await;
    front.start(|page| page).await;
    let front = Arc::new(front);
    let clients = Clients::connect(&front, CLIENTS).await;
    assert!(other.metric(OPEN).await < CLIENTS as f64, "some are at the one that dies");
    let sender = Sender::start(&front);

    killed.kill().await;

    eventually("all are at the other", async || other.metric(OPEN).await == CLIENTS as f64).await;
    let sent = sender.stop().await;
    clients.have_exactly(&sent, &database).await;
}

/// A balancer that lets a single request through every other second, to see whether an instance is
/// well again, would take longer than the deadline: a stream never ends, so it never says so.
async fn streams_come_back_together_after_all_instances_were_away(kind: Kind) {
    const MANY: usize = 60;
    let database = TestDatabase::new().await;
    let Some(mut front) = Front::plan(kind) else { return };
    let soon = |config: &mut tidings::config::Config| config.drain = Duration::from_secs(8);
    let first = front.instance(0, &database, soon).await;
    let second = front.instance(1, &database, soon).await;
    front.start(|page| page).await;
    let front = Arc::new(front);
    let clients = Clients::connect(&front, MANY).await;
    let (first, second) = tokio::join!(first.stop(), second.stop());
    first.and(second).unwrap();
    front.notices(0, "DOWN").await;
    front.notices(1, "DOWN").await;
    assert_eq!(front.send("shop/ada", "0").await.status, 503);

    let back = front.instance(0, &database, |_| {}).await;

    eventually("all are back", async || back.metric(OPEN).await == MANY as f64).await;
    let sent = front.send_stored("shop/ada", "1").await;
    clients.have_exactly(&[sent], &database).await;
}

/// Sends through the balancer, one after the other, until it is stopped.
struct Sender {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<String>>,
}

impl Sender {
    fn start(front: &Arc<Front>) -> Sender {
        let (stop, stopped) = watch::channel(false);
        let front = front.clone();
        let task = tokio::spawn(async move {
            let mut ids = Vec::new();
            while !*stopped.borrow() {
                ids.push(front.send_stored("shop/ada", &ids.len().to_string()).await);
            }
            ids
        });
        Sender { stop, task }
    }

    /// The ids of all that was acknowledged.
    async fn stop(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.task.await.expect("it sends")
    }
}

/// Subscribers of one user.
struct Clients {
    tasks: Vec<JoinHandle<()>>,
    seen: Vec<watch::Receiver<Vec<String>>>,
}

impl Clients {
    async fn connect(front: &Arc<Front>, count: usize) -> Clients {
        let mut clients = Clients { tasks: Vec::new(), seen: Vec::new() };
        for _ in 0..count {
            let (sees, seen) = watch::channel(Vec::new());
            let live = front.subscribe("shop/ada").await;
            let front = front.clone();
            clients.seen.push(seen);
            clients.tasks.push(tokio::spawn(follow(front, live, sees)));
        }
        clients
    }

    /// Everything that is stored and nothing else, in its order: all of `acknowledged` among it.
    async fn have_exactly(self, acknowledged: &[String], database: &TestDatabase) {
        let stored = database.ids("shop", "user:ada").await;
        assert!(
            acknowledged.iter().all(|id| stored.contains(id)),
            "what was acknowledged is stored"
        );
        for mut seen in self.seen {
            let all = seen.wait_for(|seen| seen.len() >= stored.len());
            let all = timeout(DEADLINE, all).await.expect("in time").expect("it follows").clone();
            assert!(all == stored, "{all:?}\n{stored:?}");
        }
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn follow(
    front: Arc<Front>,
    mut stream: crate::harness::SseClient,
    sees: watch::Sender<Vec<String>>,
) {
    let mut cursor = stream.cursor.clone();
    loop {
        while let Some(frame) = stream.try_next().await {
            cursor.clone_from(&stream.cursor);
            if frame.is_notification() && frame.id.is_some() {
                sees.send_modify(|seen| seen.push(frame.id().to_owned()));
            }
        }
        stream = loop {
            // A browser waits for longer.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let path = "/api/notifications/subscribe/shop/ada";
            match front.open(path, cursor.as_deref()).await {
                Ok(stream) if stream.status == 200 => break stream,
                Ok(refused) => panic!("a browser would give up: {}", refused.headers),
                Err(_) => {}
            }
        };
    }
}
