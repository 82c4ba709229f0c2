//! A stream as HTTP: its headers, HTTP/2, and staying open while the database is away.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    DEADLINE, DatabaseProxy, Frame, Request, SseClient, TestApp, TestDatabase, eventually,
};

const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";

#[tokio::test]
async fn the_headers_are_those_of_the_contract_whatever_the_client_accepts() {
    let app = TestApp::start().await;
    let encodings = ("Accept-Encoding", "gzip, deflate, br, zstd");
    for headers in
        [&[encodings, ("Accept", "text/event-stream")][..], &[encodings], &[("Accept", "*/*")]]
    {
        let client = SseClient::request(app.address, SUBSCRIBE, headers).await;
        assert_eq!(client.status, 200);
        for expected in [
            "content-type: text/event-stream",
            "cache-control: no-cache, no-transform",
            "x-accel-buffering: no",
        ] {
            assert!(client.headers.lines().any(|line| line == expected), "{}", client.headers);
        }
        assert!(!client.headers.contains("content-encoding"), "{}", client.headers);
    }
}

#[tokio::test]
async fn head_answers_the_headers_and_opens_no_stream() {
    let app = TestApp::start().await;
    let answer = Request::new("HEAD", SUBSCRIBE).send(app.address).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(answer.body, b"");
    assert_eq!(app.metric("tidings_subscriptions").await, 0.0);
}

/// A stream over HTTP/2.
struct Http2Stream {
    response: reqwest::Response,
    text: String,
}

impl Http2Stream {
    async fn open(client: &reqwest::Client, app: &TestApp, to: &str) -> Http2Stream {
        let url = app.url(&format!("/api/notifications/subscribe/{to}"));
        let response = client.get(url).header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(
            (response.version(), response.status().as_u16()),
            (reqwest::Version::HTTP_2, 200)
        );
        let mut stream = Http2Stream { response, text: String::new() };
        stream.read_to("event: tidings.live\n").await;
        stream
    }

    async fn read_to(&mut self, text: &str) {
        let read = async {
            while !self.text.contains(text) {
                let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(DEADLINE, read).await.expect("in time");
    }
}

#[tokio::test]
async fn many_streams_share_one_http_2_connection() {
    let app = TestApp::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let before = app.metric("tidings_connections").await;
    let mut streams = Vec::new();
    for user in 0..20 {
        streams.push(Http2Stream::open(&client, &app, &format!("shop/{user}")).await);
    }
    assert_eq!(app.metric("tidings_connections").await, before + 1.0);

    for (user, stream) in streams.iter_mut().enumerate() {
        let sent = app.send(&format!("shop/{user}"), &user.to_string()).await;
        stream.read_to(&format!("id: {}\ndata: {user}\n\n", sent.id)).await;
    }
    for stream in streams {
        let of_own = stream.text.matches("\ndata: ").filter(|_| true).count();
        let controls = stream.text.matches("event: tidings.").count();
        assert_eq!(of_own, controls + 1, "one notification each: {}", stream.text);
    }
}

#[tokio::test]
async fn a_send_over_http_2_passes_the_same_checks() {
    let app = TestApp::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = app.url("/api/notifications/send/shop/ada");
    let send =
        || client.post(&url).header("content-type", "text/plain").body("hello").timeout(DEADLINE);
    assert_eq!(send().send().await.unwrap().status(), 201);
    let foreign = send().header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    assert_eq!(app.database.count().await, 1);
}

/// The next ping that says this of the database.
async fn ping_that_says(client: &mut SseClient, database: &str) -> Frame {
    let wanted = |frame: &Frame| frame.is("tidings.ping") && frame.json()["database"] == database;
    client.next_that(wanted).await
}

async fn app_behind_a_proxy() -> (TestDatabase, DatabaseProxy, TestApp) {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    (database, proxy, app)
}

#[tokio::test]
async fn a_stream_outlives_the_absence_of_the_database_and_misses_nothing() {
    let (database, proxy, app) = app_behind_a_proxy().await;
    let seen = app.send("shop/ada", "1").await;
    let mut client = app.subscribe("shop/ada").await;
    proxy.take_away();
    let ping = ping_that_says(&mut client, "unreachable").await;
    assert_eq!(ping.id(), seen.id, "its position does not move");
    database.append("shop", "user:ada", &["2", "3"]).await;

    proxy.bring_back();

    client.expect(&database.ids("shop", "user:ada").await[1..]).await;
    ping_that_says(&mut client, "up").await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_client_that_comes_back_while_the_database_is_away_is_ready_at_once_and_waits() {
    let (database, proxy, app) = app_behind_a_proxy().await;
    let seen = app.send("shop/ada", "1").await;
    let missed = app.send_many("shop/ada", 3).await;
    proxy.take_away();

    let mut client = app.subscribe_after("shop/ada", &seen).await;
    let ready = client.next().await;
    assert!(ready.is("tidings.ready"), "{ready:?}");
    assert_eq!(ready.id(), seen.id);
    assert_eq!(ping_that_says(&mut client, "unreachable").await.id(), seen.id);
    proxy.bring_back();

    client.expect(&missed).await;
    assert_eq!(client.until("tidings.live").await.1.json()["replayed"], 3);
    assert_eq!(database.count().await, 4);
}

#[tokio::test]
async fn a_stream_whose_start_is_not_known_yet_pings_without_an_id() {
    let (_database, proxy, app) = app_behind_a_proxy().await;
    app.send("shop/ada", "1").await;
    proxy.take_away();
    let mut client = SseClient::connect(app.address, SUBSCRIBE, None).await;
    let ping = client.next().await;
    assert!(ping.is("tidings.ping"), "{ping:?}");
    assert_eq!(ping.id, None);
    proxy.bring_back();

    assert!(client.next_but_pings().await.is("tidings.ready"));
    client.until("tidings.live").await;
    let next = app.send("shop/ada", "2").await;
    client.expect([next]).await;
}

#[tokio::test]
async fn a_frozen_database_is_noticed_and_said() {
    let (_database, proxy, app) = app_behind_a_proxy().await;
    let mut client = app.subscribe("shop/ada").await;
    proxy.freeze();
    ping_that_says(&mut client, "unreachable").await;
    proxy.bring_back();
    ping_that_says(&mut client, "up").await;
    let next = app.send("shop/ada", "1").await;
    client.expect([next]).await;
}

#[tokio::test]
async fn a_lost_listener_is_replaced_and_nobody_notices() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut client = app.subscribe("shop/ada").await;
    for number in 0..3 {
        let connects = app.metric("tidings_listener_reconnects_total").await;
        database
            .run(
                "select pg_terminate_backend(pid) from pg_stat_activity
                where query ilike 'listen %' and datname = current_database()",
            )
            .await;
        // As another instance does it, so that this one has to hear of it.
        database.append("shop", "user:ada", &[&number.to_string()]).await;
        client.expect(database.ids("shop", "user:ada").await.last()).await;
        eventually("it listens again", async || {
            app.metric("tidings_listener_reconnects_total").await > connects
        })
        .await;
        let ping = client.next_that(|frame| frame.is("tidings.ping")).await;
        assert_eq!(ping.json()["database"], "up");
    }
}

#[tokio::test]
async fn a_server_whose_database_was_never_there_takes_streams_and_serves_them_later() {
    let database = TestDatabase::new().await;
    database.append("shop", "user:ada", &["1"]).await;
    let proxy = DatabaseProxy::to(&database).await;
    proxy.take_away();
    let app = TestApp::launch(proxy.database(), |_| {}).await;
    let zero = "00000000000000000000000000";
    let mut client = app.subscribe_after("shop/ada", zero).await;
    assert_eq!(client.next().await.id(), zero);
    assert_eq!(ping_that_says(&mut client, "unreachable").await.id(), zero);
    proxy.bring_back();

    client.expect(database.ids("shop", "user:ada").await).await;
    eventually("it is ready", async || {
        tokio::time::timeout(Duration::from_secs(1), app.get("/readyz"))
            .await
            .is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == 200))
    })
    .await;
}

/// A connection, spoken to in bytes.
struct Wire {
    socket: TcpStream,
    text: String,
}

impl Wire {
    async fn say(app: &TestApp, request: String) -> Wire {
        let mut socket = TcpStream::connect(app.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        Wire { socket, text: String::new() }
    }

    async fn read_to(&mut self, text: &str) {
        let read = async {
            while !self.text.contains(text) {
                let mut bytes = [0; 1024];
                let count = self.socket.read(&mut bytes).await.unwrap();
                assert!(count > 0, "the stream ended: {:?}", self.text);
                self.text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
        };
        tokio::time::timeout(DEADLINE, read).await.expect(text);
    }
}

#[tokio::test]
async fn a_stream_has_its_connection_to_itself_until_the_client_ends_it() {
    let app = TestApp::start().await;
    // A request behind it would be a mistake of the client's: it has been told that none is answered.
    let request = format!("GET {SUBSCRIBE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let livez = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut stream = Wire::say(&app, request + livez).await;
    stream.read_to("event: tidings.live\n").await;

    let data = "x".repeat(60_000);
    app.send("shop/ada", &format!("\"{data}\"")).await;
    stream.read_to(&format!("data: \"{data}\"\n\n")).await;

    let (head, body) = stream.text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && !body.contains("HTTP/1.1"), "{head}");
    assert!(head.contains("connection: close") && head.contains("transfer-encoding: chunked"));
    stream.socket.shutdown().await.unwrap();
    eventually("the server has noticed", async || app.metric("tidings_subscriptions").await == 0.0)
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_know_chunks_gets_none() {
    let app = TestApp::start().await;
    let mut stream = Wire::say(&app, format!("GET {SUBSCRIBE} HTTP/1.0\r\n\r\n")).await;
    stream.read_to("event: tidings.live\n").await;
    let (head, body) = stream.text.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("chunked") && body.starts_with("retry: "), "{}", stream.text);
}
