//! Invariant 1: acknowledged means durable, whatever is killed.

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;
use tidings::postgres::running_url;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::harness::{API, DEADLINE, Sent, ServerProcess, SseClient, http_client};
use crate::private_postgres::harness::Folder;

const KILLS: usize = 50;
const SENDERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_and_double_nothing() {
    let folder = Folder::with_database();
    let mut server = start(folder.path()).await;
    let world = World {
        address: watch::Sender::new(server.address),
        acknowledged: watch::Sender::default(),
        done: CancellationToken::new(),
    };

    let senders = join_all((0..SENDERS).map(|_| world.send()));
    let killer = async {
        for _ in 0..KILLS {
            // Now and then right after the start, now and then in the thick of it.
            world.wait_for_sends(fastrand::usize(1..=60)).await;
            server.kill().await;
            server = start(folder.path()).await;
            world.address.send_replace(server.address);
        }
        world.done.cancel();
        server
    };
    let (acknowledged, mut follower, server) = tokio::join!(senders, world.follow(), killer);
    follower.catch_up(server.address).await;

    let url = running_url(&folder.settings()).unwrap().expect("it runs");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let stored: Vec<uuid::Uuid> =
        sqlx::query_scalar("select id from tidings.notification order by id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let stored: Vec<String> = stored.iter().map(|id| ulid::Ulid::from(*id).to_string()).collect();
    assert!(follower.seen == stored, "{} streamed, {} stored", follower.seen.len(), stored.len());
    for ids in &acknowledged {
        assert!(ids.is_sorted_by(|a, b| a < b), "one sender's, one after the other");
        for id in ids {
            assert!(stored.binary_search(id).is_ok(), "{id} was acknowledged");
        }
    }
    pool.close().await;
    stop(server).await;
}

/// What the senders, the follower and the killer share.
struct World {
    /// Of the server of now: each has a port of its own.
    address: watch::Sender<SocketAddr>,
    /// How many sends were answered with 201.
    acknowledged: watch::Sender<usize>,
    done: CancellationToken,
}

impl World {
    /// One send after the other, never one twice: whether an unanswered one was stored is unknown.
    async fn send(&self) -> Vec<String> {
        let http = http_client();
        let mut address = self.address.subscribe();
        let mut ids = Vec::new();
        while !self.done.is_cancelled() {
            let url = format!("http://{}{API}/send/shop/ada", *address.borrow_and_update());
            let send = http.post(url).json(&serde_json::json!({"data": ids.len()}));
            match send.timeout(DEADLINE).send().await {
                Ok(answer) if answer.status() == 201 => {
                    // An answer that was cut off is none.
                    if let Ok(sent) = answer.json::<Sent>().await {
                        ids.push(sent.id);
                        self.acknowledged.send_modify(|count| *count += 1);
                    }
                }
                Ok(answer) => assert_eq!(answer.status(), 503),
                Err(_) => self.next_server(&mut address).await,
            }
        }
        ids
    }

    /// A subscriber that comes back to every server with its cursor.
    async fn follow(&self) -> Follower {
        let mut address = self.address.subscribe();
        let mut follower = Follower { seen: Vec::new(), cursor: "0".repeat(26) };
        while !self.done.is_cancelled() {
            let now = *address.borrow_and_update();
            if let Ok(stream) = follower.connect(now).await {
                follower.read(stream, &self.done).await;
            }
            self.next_server(&mut address).await;
        }
        follower
    }

    async fn next_server(&self, address: &mut watch::Receiver<SocketAddr>) {
        tokio::select! {
            changed = address.changed() => changed.expect("the sender is ours"),
            () = self.done.cancelled() => {}
        }
    }

    async fn wait_for_sends(&self, count: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        let enough = *acknowledged.borrow() + count;
        let wait = acknowledged.wait_for(|count| *count >= enough);
        tokio::time::timeout(DEADLINE, wait).await.expect("sends in time").expect("ours");
    }
}

struct Follower {
    seen: Vec<String>,
    cursor: String,
}

impl Follower {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<SseClient> {
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", self.cursor.as_str())];
        SseClient::try_request(address, &format!("{API}/subscribe/shop/ada"), &headers).await
    }

    /// Reads until the stream breaks.
    async fn read(&mut self, mut stream: SseClient, done: &CancellationToken) {
        loop {
            let frame = tokio::select! {
                frame = stream.try_next() => frame,
                () = done.cancelled() => return,
            };
            let Some(frame) = frame else { return };
            assert!(!frame.is("tidings.gap"), "{frame:?}");
            if frame.is_notification() {
                self.seen.push(frame.id().to_owned());
            }
            if let Some(id) = frame.id {
                self.cursor = id;
            }
        }
    }

    async fn catch_up(&mut self, address: SocketAddr) {
        let mut stream = self.connect(address).await.unwrap();
        let (missed, _) = stream.until("tidings.live").await;
        self.seen.extend(missed.iter().map(|frame| frame.id().to_owned()));
        stream.expect_silence().await;
    }
}

pub async fn start(folder: &Path) -> ServerProcess {
    let folder = folder.to_str().unwrap();
    ServerProcess::start(&[("TIDINGS_DATA_DIR", folder), ("TIDINGS_HEARTBEAT", "1s")]).await
}

pub async fn stop(mut server: ServerProcess) {
    server.signal(rustix::process::Signal::TERM);
    let ended = tokio::time::timeout(DEADLINE, server.child.wait()).await.expect("in time");
    assert_eq!(ended.unwrap().code(), Some(0));
}
