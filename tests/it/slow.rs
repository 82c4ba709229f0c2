//! Invariant 5: memory is bounded in bytes, and whoever falls behind goes back to replay.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::harness::{DEADLINE, ServerProcess, SseClient, TestApp, TestDatabase, http_client};

const SENDS: usize = 10_000;
const SENDERS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_subscriber_gets_everything_once_it_reads_and_costs_a_bounded_memory() {
    const DATA_BYTES: usize = 1000;
    // What the hub counts beside an event's bytes, and its frame with the id.
    const EVENT_COST: usize = DATA_BYTES + 45 + 200;
    const RING_BYTES: usize = 64 * EVENT_COST;
    // For each of the two subscribers a page, with the frames around its data.
    const PAGES_BYTES: usize = 2 * (256 << 10) * 5 / 4;
    let app = TestApp::with(|config| {
        config.limits.ring_bytes = RING_BYTES;
        // However slow this machine is.
        config.limits.stalled_after = Duration::from_secs(3600);
    })
    .await;
    let mut stalled = connect_with_little_room(app.address, "shop/ada").await;
    stalled.until("tidings.live").await;
    let mut reading = app.subscribe("shop/ada").await;
    let done = CancellationToken::new();

    let senders = async {
        let ids = send_from_many(&app.http, app.address, "shop/ada", SENDS, DATA_BYTES).await;
        done.cancel();
        ids
    };
    let reader = async {
        let mut seen = Vec::with_capacity(SENDS);
        while seen.len() < SENDS {
            seen.push(reading.notification().await.id().to_owned());
        }
        seen
    };
    let observer = async {
        let (mut ring, mut pages, mut looks) = (0.0, 0.0, 0);
        while !done.is_cancelled() {
            ring = app.metric("tidings_ring_bytes").await.max(ring);
            pages = app.metric("tidings_replay_pages_bytes").await.max(pages);
            looks += 1;
        }
        (ring, pages, looks)
    };
    let (mut sent, seen, (ring, pages, looks)) = tokio::join!(senders, reader, observer);

    sent.sort();
    assert!(seen == sent, "the subscriber that reads gets everything meanwhile");
    assert!(looks > 20, "{looks} looks at the memory");
    assert!(ring > 0.0 && ring <= RING_BYTES as f64, "{ring} bytes in the ring");
    assert!(pages <= PAGES_BYTES as f64, "{pages} bytes in pages");
    let returns = app.metric("tidings_returns_to_replay_total").await;
    for id in &sent {
        assert_eq!(stalled.notification().await.id(), id);
    }
    stalled.expect_silence().await;
    assert!(app.metric("tidings_returns_to_replay_total").await > returns);
}

/// What a server may grow by: the ring (64 MiB), sends on their way, and what the allocator keeps of
/// both. Measured: 118 MiB.
const GROWTH_KIB: u64 = 160 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_stalled_subscriber_does_not_grow_with_what_is_sent() {
    const DATA_BYTES: usize = (64 << 10) - 2;
    let database = TestDatabase::new().await;
    let server = ServerProcess::start(&[("DATABASE_URL", &database.url)]).await;
    let mut stalled = connect_with_little_room(server.address, "shop/ada").await;
    stalled.until("tidings.live").await;
    let before = server.rss_kib();

    let http = http_client();
    let count = GROWTH_KIB as usize * 1024 * 5 / 4 / DATA_BYTES;
    let mut sent = send_from_many(&http, server.address, "shop/ada", count, DATA_BYTES).await;

    let growth = server.peak_rss_kib() - before;
    assert!(growth < GROWTH_KIB, "grown by {growth} KiB");
    sent.sort();
    // Enough of them to be out of the ring, so these are replayed.
    for id in &sent[..200] {
        let frame = loop {
            match stalled.try_next().await {
                Some(frame) if frame.is_notification() && frame.id.is_some() => break frame,
                Some(_) => {}
                // Where all this takes more than a minute, it was ended, and comes back.
                None => {
                    let path = "/api/notifications/subscribe/shop/ada";
                    let cursor = stalled.cursor.clone();
                    stalled = SseClient::connect(server.address, path, cursor.as_deref()).await;
                }
            }
        };
        assert_eq!(frame.id(), id);
    }
    let growth = server.peak_rss_kib() - before;
    assert!(growth < GROWTH_KIB, "grown by {growth} KiB when the subscriber reads at last");
}

/// A subscriber whose socket takes little, so that its stream stalls soon when it does not read.
async fn connect_with_little_room(address: SocketAddr, to: &str) -> SseClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    let socket = socket.connect(address).await.unwrap();
    let path = format!("/api/notifications/subscribe/{to}");
    let accept = [("Accept", "text/event-stream")];
    let client = SseClient::over(socket, &path, &accept);
    tokio::time::timeout(DEADLINE, client).await.expect("an answer in time").unwrap()
}

/// Sends texts of this size and returns the ids as they were answered.
async fn send_from_many(
    http: &reqwest::Client,
    address: SocketAddr,
    to: &str,
    count: usize,
    data_bytes: usize,
) -> Vec<String> {
    let url = format!("http://{address}/api/notifications/send/{to}");
    let body = bytes::Bytes::from("x".repeat(data_bytes - 2)); // Less the quotes.
    let next = AtomicUsize::new(0);
    let senders = (0..SENDERS).map(async |_| {
        let mut ids = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let send = http.post(&url).header("content-type", "text/plain").body(body.clone());
            let response = send.send().await.unwrap();
            assert_eq!(response.status(), 201);
            let answer: serde_json::Value = response.json().await.unwrap();
            ids.push(answer["id"].as_str().unwrap().to_owned());
        }
        ids
    });
    join_all(senders).await.concat()
}
