//! Slow and bad clients: they are ended in time, cost a bounded memory, keep nobody else waiting, and
//! miss nothing once they come back. `bench abuse` has the figures at full size.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{Answer, DEADLINE, Request, SseClient, TestApp, eventually};

const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const SEND: &str = "/api/notifications/send/shop/ada";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_ended_and_gets_everything_once_it_comes_back() {
    // More than the kernel's buffers on both sides take.
    const SENDS: usize = 200;
    let data = format!("\"{}\"", "x".repeat(60_000));
    let app = TestApp::with(|config| config.limits.stalled_after = Duration::from_secs(3)).await;
    let mut stalled = connect_with_little_room(app.address).await;
    stalled.until("tidings.live").await;
    let mut reading = app.subscribe("shop/ada").await;

    let mut sent = Vec::new();
    for _ in 0..SENDS {
        sent.push(app.send("shop/ada", &data).await.id);
        reading.expect(&sent[sent.len() - 1..]).await;
    }
    let only_one = async || app.metric("tidings_subscriptions").await == 1.0;
    eventually("the one that does not read is ended", only_one).await;

    // What was on its way still is.
    let mut seen = Vec::new();
    while let Some(frame) = stalled.try_next().await {
        if frame.is_notification() && frame.id.is_some() {
            seen.push(frame.id().to_owned());
        }
    }
    assert!(seen.len() < SENDS, "it was ended before it got everything");
    let cursor = stalled.cursor.expect("it was live");
    let (rest, _) = app.subscribe_after("shop/ada", cursor).await.until("tidings.live").await;
    seen.extend(rest.iter().map(|frame| frame.id().to_owned()));
    assert!(seen == sent, "{} of {}", seen.len(), sent.len());
    reading.expect_silence().await;
}

/// A subscriber whose socket takes little, so that its stream stalls soon when it does not read.
async fn connect_with_little_room(address: SocketAddr) -> SseClient {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    let socket = socket.connect(address).await.unwrap();
    let client = SseClient::over(socket, SUBSCRIBE, &[("Accept", "text/event-stream")]);
    timeout(DEADLINE, client).await.expect("an answer in time").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_are_closed_in_time_and_others_are_served_meanwhile() {
    const OF_EACH: usize = 100;
    let header_timeout = Duration::from_secs(15);
    let app = TestApp::with(|config| config.limits.header_timeout = header_timeout).await;
    let long = format!("GET {SUBSCRIBE}?_={}", "a".repeat(40_000));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let halves =
        ["", "GE", "GET / HTTP/1.1\r\nhost: local", &long, "P", "PRI * HT", "POST /", preface];
    let mut open = Vec::new();
    for half in halves.iter().cycle().take(halves.len() * OF_EACH) {
        open.push(open_and_write(app.address, half.as_bytes()).await);
    }
    // On a connection of its own each time: an idle one is closed like the halves.
    let connections = async || {
        let metrics = Request::get("/metrics").send(app.address).await;
        let line =
            metrics.text().lines().find_map(|line| line.strip_prefix("tidings_connections "));
        line.expect("the gauge").parse::<f64>().expect("a number")
    };
    let most = (halves.len() * OF_EACH) as f64 * 0.9;
    eventually("they are being read", async || connections().await > most).await;

    let mut client = app.subscribe("shop/ada").await;
    let sent = app.send("shop/ada", "1").await;
    client.expect([sent]).await;

    let closed = open.into_iter().map(async |mut socket: TcpStream| {
        let mut rest = Vec::new();
        // An orderly end, a reset, or an answer that says why.
        let _ = timeout(DEADLINE, socket.read_to_end(&mut rest)).await.expect("closed in time");
    });
    join_all(closed).await;
    // The client's, and the one that asks.
    eventually("nothing of them is left", async || connections().await <= 4.0).await;
}

async fn open_and_write(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_that_nobody_reads_share_a_bound_and_keep_no_short_one_waiting() {
    const HISTORY: &str = "/api/notifications/history/shop/ada?limit=500";
    let app = TestApp::start().await;
    let data = "x".repeat(60_000);
    // A page of eight MiB, of which seven have room, and more for the next.
    for _ in 0..2 {
        let entry = format!("{{\"to\":{{\"user\":\"ada\"}},\"data\":\"{data}\"}}");
        let body = format!("{{\"notifications\":[{}]}}", vec![entry; 100].join(","));
        let sent = Request::json("/api/notifications/batch/shop", body).send(app.address).await;
        assert_eq!(sent.status, 201);
    }
    let mut unread = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..10 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        let mut socket = socket.connect(app.address).await.unwrap();
        let request = format!("GET {HISTORY} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        statuses.push(status(&mut socket).await);
        unread.push(socket);
    }
    assert_eq!(statuses[..7], [200; 7]);
    assert_eq!(statuses[8..], [503; 2]);
    let short = "/api/notifications/history/shop/bob";
    assert_eq!(Request::get(short).send(app.address).await.status, 200);

    drop(unread);
    let again = async || {
        let answer = Request::get(HISTORY).send(app.address).await;
        answer.status == 200 && answer.json()["notifications"].as_array().unwrap().len() > 100
    };
    eventually("there is room again", again).await;
}

/// What the heads of requests may take together: 64 MiB, in places of 128 KiB.
const PLACES: usize = (64 << 20) / (128 << 10);
/// More of them, because the last ones may not have been read yet when the next one comes.
const SPARE: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_heads_wait_for_each_other_and_keep_no_short_one_waiting() {
    // Not in the way, however slow this machine is.
    let header_timeout = DEADLINE;
    let app = TestApp::with(|config| config.limits.header_timeout = header_timeout).await;
    let half = format!("GET {SUBSCRIBE}?_={}", "a".repeat(20_000));
    let mut holders = Vec::new();
    for _ in 0..PLACES + SPARE {
        holders.push(open_and_write(app.address, half.as_bytes()).await);
    }
    let taken = async || app.metric("tidings_connections").await > PLACES as f64;
    eventually("they are there", taken).await;

    let whole = format!("{half} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut late = open_and_write(app.address, whole.as_bytes()).await;
    assert_eq!(Request::text(SEND, "short").send(app.address).await.status, 201);
    let mut first = [0; 12];
    let soon = timeout(Duration::from_millis(500), late.read_exact(&mut first)).await;
    assert!(soon.is_err(), "there is no place for it yet");

    holders.truncate(PLACES / 2);
    let answered = timeout(DEADLINE, late.read_exact(&mut first)).await.expect("in time");
    assert_eq!((answered.unwrap(), &first), (12, b"HTTP/1.1 200"));
}

#[tokio::test]
async fn urls_and_heads_are_taken_up_to_their_documented_lengths() {
    let app = TestApp::start().await;
    let url = |length: usize| format!("{SUBSCRIBE}?_={}", "a".repeat(length - SUBSCRIBE.len() - 3));
    for (length, expected) in [(8 << 10, 200), (65_534, 200), (65_535, 414)] {
        let head = Request::new("HEAD", url(length));
        assert_eq!(head.send(app.address).await.status, expected, "a URL of {length} bytes");
    }
    for (length, expected) in [(12 << 10, 200), (30 << 10, 431)] {
        let head = Request::new("HEAD", url(60_000)).header("x-filler", "a".repeat(length));
        assert_eq!(answer_to(&app, &head).await, expected, "and {length} bytes of headers");
    }
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let head = client.head(app.url(&url(65_000))).send().await.unwrap();
    assert_eq!((head.version(), head.status().as_u16()), (reqwest::Version::HTTP_2, 200));
}

/// The status alone: a head that is too long is refused before all of it was read, and the reset
/// that follows may take the rest of the answer away.
async fn answer_to(app: &TestApp, request: &Request) -> u16 {
    let Request { method, path, headers, .. } = request;
    let (name, value) = &headers[0];
    let value = String::from_utf8_lossy(value);
    let bytes = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{name}: {value}\r\n\r\n");
    status(&mut open_and_write(app.address, bytes.as_bytes()).await).await
}

async fn status(socket: &mut TcpStream) -> u16 {
    let mut first = [0; 12];
    timeout(DEADLINE, socket.read_exact(&mut first)).await.expect("in time").unwrap();
    std::str::from_utf8(&first[9..]).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_in_the_middle_of_a_replay_leave_nothing_behind() {
    const SENDS: usize = 60;
    const CLIENTS: usize = 40;
    let data = format!("\"{}\"", "x".repeat(30_000));
    let app = TestApp::start().await;
    let first = app.send("shop/ada", &data).await;
    let mut missed = Vec::new();
    for _ in 1..SENDS {
        missed.push(app.send("shop/ada", &data).await.id);
    }

    let leaving = (0..CLIENTS).map(async |number| {
        let mut client = app.subscribe_after("shop/ada", &first).await;
        client.expect(&missed[..number % 3]).await;
        client.cut();
    });
    join_all(leaving).await;

    for gauge in
        ["tidings_subscriptions", "tidings_replay_pages_bytes", "tidings_replay_queue_length"]
    {
        eventually(gauge, async || app.metric(gauge).await == 0.0).await;
    }
    app.subscribe_after("shop/ada", &first).await.expect(&missed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_that_come_back_at_once_get_exactly_what_they_missed() {
    const CLIENTS: usize = 300;
    const MISSED: usize = 10;
    let app = TestApp::start().await;
    let before = app.send("shop/before", "0").await;
    let users: Vec<String> = (0..CLIENTS).map(|number| format!("user-{number}")).collect();
    let list = serde_json::json!(users).to_string();
    let mut missed: Vec<Vec<String>> = Vec::new();
    for number in 0..MISSED {
        let body = format!("{{\"to\":{{\"users\":{list}}},\"data\":{number}}}");
        let answer: Answer =
            Request::json("/api/notifications/send/shop", body).send(app.address).await;
        missed.push(serde_json::from_value(answer.json()["ids"].clone()).unwrap());
    }

    let back = users.iter().enumerate().map(async |(number, user)| {
        let mut client = app.subscribe_after(&format!("shop/{user}"), &before).await;
        let (replayed, live) = client.until("tidings.live").await;
        let ids: Vec<&str> = replayed.iter().map(|frame| frame.id()).collect();
        let expected: Vec<&str> = missed.iter().map(|ids| &*ids[number]).collect();
        assert_eq!(ids, expected);
        assert_eq!(live.json()["replayed"], MISSED);
        client
    });
    let mut open = join_all(back).await;

    let sent = app.send("shop/user-0", "\"live\"").await;
    open[0].expect([sent]).await;
}
