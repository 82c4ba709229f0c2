//! 503 means certainly not stored, but for `outcome-unknown`; it always says when to come back. A
//! native EventSource gives up for ever on it, so streams are told inside a 200.

use crate::harness::{
    Answer, DEADLINE, DatabaseProxy, Fault, Request, SseClient, TestApp, TestDatabase, eventually,
};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const SEND: &str = "/api/notifications/send/shop/ada";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const HISTORY: &str = "/api/notifications/history/shop/ada";

fn expect_503(answer: &Answer, slug: &str, detail: &str, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json()["type"], format!("urn:tidings:problem:{slug}"));
    assert_eq!(answer.json()["detail"], detail);
    let retry_after = answer.header("retry-after").expect("when to come back");
    assert!(seconds.contains(&retry_after.parse().unwrap()), "{retry_after}");
}

/// 200, goodbye, end: no ready and no id.
async fn expect_goodbye(mut client: SseClient, reason: &str, retry: std::ops::RangeInclusive<u64>) {
    assert_eq!(client.status, 200);
    assert!(client.headers.contains("content-type: text/event-stream\r\n"), "{}", client.headers);
    let goodbye = client.next().await;
    assert!(goodbye.is("tidings.goodbye"), "{goodbye:?}");
    assert_eq!(goodbye.json(), serde_json::json!({ "reason": reason }));
    assert_eq!(goodbye.id, None);
    assert!(goodbye.retry.is_some_and(|ms| retry.contains(&ms)), "{goodbye:?}");
    assert_eq!(client.try_next().await, None);
}

/// Behind a proxy, having appended once.
async fn app_behind_a_proxy() -> (TestApp, DatabaseProxy) {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    app.send("shop/ada", "\"first\"").await;
    (app, proxy)
}

#[tokio::test]
async fn no_request_meets_a_connection_that_the_database_has_closed() {
    let app = TestApp::start().await;
    let history = async || app.get(HISTORY).await.unwrap().status();
    join_all((0..16).map(|_| history())).await;
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid()";
    let pool = app.database.pool().await;
    let ended: i64 = sqlx::query_scalar(ended).fetch_one(&pool).await.unwrap();
    assert!(ended > 4, "{ended}");

    let began = tokio::time::Instant::now();
    eventually("they are too old to be trusted", async || began.elapsed().as_millis() > 1100).await;

    for _ in 0..8 {
        assert_eq!(history().await, 200);
    }
}

#[tokio::test]
async fn without_the_database_everything_but_streams_is_refused() {
    let (app, proxy) = app_behind_a_proxy().await;
    proxy.take_away();
    let unready = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 503);
    eventually("the instance notices", unready).await;

    let detail = "The database cannot be reached. Try again later.";
    for request in [
        Request::get(SUBSCRIBE),
        Request::get(HISTORY),
        Request::get("/api/notifications/notification/shop/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ] {
        let answer = request.send(app.address).await;
        expect_503(&answer, "database-unreachable", detail, 1..=60);
    }
    let detail =
        "The database cannot be reached. The notification was not stored; send it again later.";
    let answer = Request::text(SEND, "lost").send(app.address).await;
    expect_503(&answer, "database-unreachable", detail, 1..=60);

    proxy.bring_back();
    app.send("shop/ada", "\"after\"").await;
    assert_eq!(app.database.count().await, 2, "only the acknowledged ones are stored");
}

#[tokio::test]
async fn a_stream_over_the_limit_is_sent_away_for_a_while() {
    let app = TestApp::with(|config| config.max_connections = 1).await;
    let only = app.subscribe("shop/ada").await;

    // The answer ends; to see that, so must the connection.
    let headers = [("Accept", "text/event-stream"), ("Connection", "close")];
    let refused = SseClient::request(app.address, SUBSCRIBE, &headers).await;
    expect_goodbye(refused, "overloaded", 5_000..=60_000).await;
    let detail =
        "This server has as many streams as it may (TIDINGS_MAX_CONNECTIONS): try again later.";
    let refused = Request::get(SUBSCRIBE).send(app.address).await;
    expect_503(&refused, "overloaded", detail, 5..=60);
    assert_eq!(app.metric("tidings_streams_refused_total").await, 2.0);

    only.cut();
    eventually("the place is free", async || app.metric("tidings_subscriptions").await == 0.0)
        .await;
    app.subscribe("shop/ada").await;
}

#[tokio::test]
async fn a_stream_asked_for_while_draining_is_sent_to_another_server() {
    let app = TestApp::start().await;
    let (head, rest) =
        ("GET /api/notifications/subscribe/shop/ada HTTP/1.1\r\nhost: localhost\r\n", "\r\n");
    let mut late = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(app.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        late.push(socket);
    }
    let connections = async || app.metric("tidings_connections").await == 3.0;
    eventually("the server reads all requests", connections).await;
    // Another round trip, so that what came before it is surely being read.
    app.get("/livez").await.unwrap();
    app.shutdown.graceful.cancel();
    eventually("the listener is closed", async || TcpStream::connect(app.address).await.is_err())
        .await;

    let mut plain = late.pop().unwrap();
    plain.write_all(rest.as_bytes()).await.unwrap();
    let detail = "This server is shutting down: connect again, to another.";
    expect_503(&Answer::read(&mut plain).await, "draining", detail, 1..=2);

    let mut stream = late.pop().unwrap();
    stream.write_all(format!("accept: text/event-stream\r\n{rest}").as_bytes()).await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert_eq!(answer.status, 200);
    let goodbye = "event: tidings.goodbye\ndata: {\"reason\":\"shutdown\"}\n\n";
    let retry = answer.text().strip_suffix(goodbye).and_then(|text| text.strip_prefix("retry: "));
    let retry: u64 =
        retry.unwrap_or_else(|| panic!("{}", answer.text())).trim_end().parse().unwrap();
    assert!((500..=1500).contains(&retry), "{retry}");
}

#[tokio::test]
async fn a_send_under_way_when_the_drain_begins_is_still_stored() {
    let app = TestApp::start().await;
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST {SEND} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut asked)).await.unwrap().unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    app.shutdown.graceful.cancel();
    eventually("the listener is closed", async || TcpStream::connect(app.address).await.is_err())
        .await;

    socket.write_all(b"hello").await.unwrap();

    assert_eq!(Answer::read(&mut socket).await.status, 201);
    assert_eq!(app.database.count().await, 1);
    app.stop().await.unwrap();
}

#[tokio::test]
async fn sends_that_cannot_have_the_lane_are_refused_in_time_and_not_stored() {
    let app = TestApp::start().await;
    // Not in a transaction, so never old enough to be ended.
    let pool = app.database.pool().await;
    let mut holder = pool.acquire().await.unwrap();
    sqlx::query("select pg_advisory_lock(7463, 1)").execute(&mut *holder).await.unwrap();

    let answer = Request::text(SEND, "lost").send(app.address).await;

    let detail =
        "Too many sends are waiting. The notification was not stored; send it again later.";
    expect_503(&answer, "overloaded", detail, 1..=60);
    sqlx::query("select pg_advisory_unlock_all()").execute(&mut *holder).await.unwrap();
    app.send("shop/ada", "1").await;
    assert_eq!(app.database.count().await, 1);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_found_out_is_said_to_be_unknown() {
    let (app, proxy) = app_behind_a_proxy().await;
    proxy.strike_next_append(Fault::Vanish);

    let answer = Request::text(SEND, "perhaps").send(app.address).await;

    let detail = "The database broke off. The notification may be stored; repeat it with the same Idempotency-Key, or look into the history first.";
    expect_503(&answer, "outcome-unknown", detail, 1..=60);
    assert_eq!(app.metric("tidings_outcomes_settled_total").await, 1.0);
    proxy.bring_back();
    app.send("shop/ada", "\"after\"").await;
    assert_eq!(app.database.count().await, 3, "it was stored, as it may be");
}

/// Senders that never stop, as far as they are told that it may be tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_drains_by_itself_each_time_the_database_comes_back() {
    const ABSENCES: usize = 3;
    const SENDERS: usize = 8;
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let before = app.send("shop/ada", "\"before\"").await;
    let mut client = app.subscribe("shop/ada").await;
    let done = CancellationToken::new();
    let senders = join_all((0..SENDERS).map(async |_| {
        let mut acknowledged = Vec::new();
        while !done.is_cancelled() {
            let answer = Request::text(SEND, "x").send(app.address).await;
            match answer.status {
                201 => acknowledged.push(answer.json()["id"].as_str().unwrap().to_owned()),
                status => assert_eq!(status, 503, "{}", answer.text()),
            }
        }
        acknowledged
    }));
    let absences = async {
        let mut came_meanwhile = Vec::new();
        for _ in 0..ABSENCES {
            let is = async |status: u16| {
                Request::get("/readyz").send(app.address).await.status == status
            };
            proxy.take_away();
            eventually("the instance notices", async || is(503).await).await;
            // Nothing refuses it: it waits, like those that were there.
            came_meanwhile.push(app.subscribe_after("shop/ada", &before).await);
            proxy.bring_back();
            eventually("it is ready", async || is(200).await).await;
            let stored = app.metric("tidings_sends_total{outcome=\"stored\"}").await;
            eventually("sends are stored again", async || {
                app.metric("tidings_sends_total{outcome=\"stored\"}").await > stored
            })
            .await;
        }
        done.cancel();
        came_meanwhile
    };

    let (acknowledged, came_meanwhile) = tokio::join!(senders, absences);

    let stored = database.ids("shop", "user:ada").await;
    for id in acknowledged.iter().flatten() {
        assert!(stored.contains(id), "{id} was acknowledged");
    }
    client.expect(&stored[1..]).await;
    client.expect_silence().await;
    for mut client in came_meanwhile {
        client.expect(&stored[1..]).await;
        client.expect_silence().await;
    }
}
