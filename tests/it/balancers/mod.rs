//! Behind nginx and HAProxy, each with the configuration that docs/operations.md shows.

mod front;
mod taken_out;

use std::time::Duration;

use crate::harness::{DEADLINE, DatabaseProxy, Request, SseClient, TestDatabase, eventually};

use front::{Front, Kind, NAME, ORIGIN, replace};

const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const SEND: &str = "/api/notifications/send/shop/ada";

/// A test behind each of them.
macro_rules! behind {
    ($($test:ident)*) => {$(
        mod $test {
            use crate::balancers::front::Kind;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn behind_nginx() {
                super::$test(Kind::Nginx).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn behind_haproxy() {
                super::$test(Kind::HaProxy).await;
            }
        }
    )*};
}
pub(crate) use behind;

behind! {
    frames_pass_at_once
    a_client_that_stops_reading_is_noticed_and_misses_nothing
    a_quiet_stream_stays_open_as_long_as_pings_pass
    a_stream_with_a_hundred_long_topics_opens
    many_streams_share_one_http_2_connection
    hosts_and_origins_are_checked
    without_any_instance_a_stream_is_told_to_come_back
    without_the_database_streams_still_reach_an_instance
}

async fn frames_pass_at_once(kind: Kind) {
    let database = TestDatabase::new().await;
    let Some(mut front) = Front::plan(kind) else { return };
    // No ping pushes anything through.
    let quiet = |config: &mut tidings::config::Config| config.heartbeat = Duration::from_secs(3600);
    let _instance = front.instance(0, &database, quiet).await;
    front.start(|page| page).await;

    let mut client = front.subscribe("shop/ada").await;

    for number in 0..10 {
        let id = front.send_stored("shop/ada", &number.to_string()).await;
        client.expect([id]).await;
    }
}

/// A balancer that buffered would take everything off the instance's hands.
async fn a_client_that_stops_reading_is_noticed_and_misses_nothing(kind: Kind) {
    // More than the kernel's buffers on both ways take.
    const SENDS: usize = 450;
    let database = TestDatabase::new().await;
    let Some(mut front) = Front::plan(kind) else { return };
    let ends_soon = |config: &mut tidings::config::Config| {
        config.limits.stalled_after = Duration::from_secs(3);
    };
    let instance = front.instance(0, &database, ends_soon).await;
    front.start(|page| page).await;
    let mut stalled = front.subscribe("shop/ada").await;

    let data = format!("\"{}\"", "x".repeat(65_000));
    let mut sent = Vec::new();
    for _ in 0..SENDS {
        sent.push(instance.send("shop/ada", &data).await.id);
    }
    let none = async || instance.metric("tidings_subscriptions").await == 0.0;
    eventually("its stream is ended", none).await;

    let mut seen = Vec::new();
    while let Some(frame) = stalled.try_next().await {
        if frame.is_notification() && frame.id.is_some() {
            seen.push(frame.id().to_owned());
        }
    }
    let mut back = front.open(SUBSCRIBE, stalled.cursor.as_deref()).await.unwrap();
    let (rest, _) = back.until("tidings.live").await;
    seen.extend(rest.iter().map(|frame| frame.id().to_owned()));
    assert!(seen == sent, "{} of {}", seen.len(), sent.len());
}

/// A fraction of the page's idle timeouts, which no machine misses by being busy.
const TIMEOUT: Duration = Duration::from_secs(4);

async fn a_quiet_stream_stays_open_as_long_as_pings_pass(kind: Kind) {
    let database = TestDatabase::new().await;
    for (heartbeat, stays) in [(TIMEOUT / 16, true), (TIMEOUT * 3600, false)] {
        let Some(mut front) = Front::plan(kind) else { return };
        let _instance = front.instance(0, &database, |config| config.heartbeat = heartbeat).await;
        front.start(|page| replace(&page, "60s", "4s")).await;
        let mut client = front.subscribe("shop/ada").await;
        if !stays {
            assert_eq!(client.try_next().await, None, "the timeout is one");
            continue;
        }
        for _ in 0..32 {
            client.until("tidings.ping").await;
        }
        let id = front.send_stored("shop/ada", "1").await;
        client.expect([id]).await;
    }
}

/// A hundred topics of 128 characters, each of which takes three bytes in a URL.
fn hundred_topics() -> (String, Vec<String>) {
    let topics: Vec<String> = (0..100).map(|number| format!("{:<<128}", number)).collect();
    let encoded = topics.iter().map(|topic| topic.replace('<', "%3C"));
    (encoded.collect::<Vec<_>>().join(","), topics)
}

async fn a_stream_with_a_hundred_long_topics_opens(kind: Kind) {
    let database = TestDatabase::new().await;
    let Some((front, _both)) = Front::with_both(kind, &database).await else { return };
    let (encoded, topics) = hundred_topics();
    let path = format!("{SUBSCRIBE}?topics={encoded}");
    assert!(path.len() > 38_000, "{}", path.len());

    // After other requests on the same connections to the instances, which keep them.
    front.send_stored("shop/ada", "1").await;
    let mut client = front.open(&path, None).await.unwrap();
    assert_eq!(client.status, 200, "{}", client.headers);
    client.until("tidings.live").await;
    let mut over_http_2 = Http2Stream::open(&over_http_2(&front), &path).await;
    let body = serde_json::json!({"to": {"topic": topics[99]}, "data": "for the last"});
    let request = Request::json("/api/notifications/send/shop", body.to_string());
    let sent = request.header("host", NAME).send(front.http).await;

    let id = sent.json()["id"].as_str().unwrap().to_owned();
    client.expect([&id]).await;
    over_http_2.read_to(&format!("id: {id}\n")).await;
}

/// Speaks HTTP/2, as browsers do: over TLS.
fn over_http_2(front: &Front) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .resolve(NAME, front.https)
        // It was made for the test, by nobody whom anybody knows.
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap()
}

async fn many_streams_share_one_http_2_connection(kind: Kind) {
    const STREAMS: usize = 20;
    let database = TestDatabase::new().await;
    let Some((front, _both)) = Front::with_both(kind, &database).await else { return };
    let client = over_http_2(&front);
    let mut streams = Vec::new();
    for user in 0..STREAMS {
        let path = format!("/api/notifications/subscribe/shop/user-{user}");
        streams.push(Http2Stream::open(&client, &path).await);
    }
    let connection = |stream: &Http2Stream| stream.response.remote_addr().unwrap();
    assert!(streams.iter().all(|stream| connection(stream) == front.https));

    for (user, stream) in streams.iter_mut().enumerate() {
        let id = front.send_stored(&format!("shop/user-{user}"), &user.to_string()).await;
        stream.read_to(&format!("id: {id}\ndata: {user}\n\n")).await;
    }
}

async fn hosts_and_origins_are_checked(kind: Kind) {
    let database = TestDatabase::new().await;
    let Some((front, _both)) = Front::with_both(kind, &database).await else { return };
    let send = Request::text(SEND, "hello");
    for (host, origin, expected) in [
        (NAME, None, 201),
        (NAME, Some(ORIGIN), 201),
        (NAME, Some("https://evil.example"), 403),
        ("evil.example", None, 421),
        ("evil.example", Some("https://evil.example"), 421),
        ("localhost", None, 421),
    ] {
        let mut request = send.clone().header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        assert_eq!(request.send(front.http).await.status, expected, "{host} {origin:?}");
    }
    assert_eq!(database.count().await, 2);

    // What the page's line about the host is for.
    let Some(mut careless) = Front::plan(kind) else { return };
    let _instance = careless.instance(0, &database, |_| {}).await;
    let line = match kind {
        Kind::Nginx => "proxy_set_header Host localhost;",
        Kind::HaProxy => "http-request set-header Host localhost",
    };
    careless.start(|page| replace(&page, line, "")).await;
    let answer = send.clone().header("host", NAME).send(careless.http).await;
    assert_eq!(answer.json()["type"], "urn:tidings:problem:foreign-host");
}

async fn without_any_instance_a_stream_is_told_to_come_back(kind: Kind) {
    let Some(mut front) = Front::plan(kind) else { return };
    front.start(|page| page).await;
    front.notices(0, "DOWN").await;
    front.notices(1, "DOWN").await;

    let mut client = front.open(SUBSCRIBE, None).await.unwrap();
    assert_eq!(client.status, 200, "{}", client.headers);
    assert!(client.headers.contains("content-type: text/event-stream"), "{}", client.headers);
    let told = client.next().await;
    assert!(told.retry.is_some_and(|ms| (1000..=4000).contains(&ms)), "{told:?}");
    assert_eq!((told.event, told.id, told.data), (None, None, None));

    let answer = Request::get(SUBSCRIBE).header("host", NAME).send(front.http).await;
    assert_eq!(answer.status, 503);
    assert_eq!(front.send("shop/ada", "1").await.status, 503);
}

async fn without_the_database_streams_still_reach_an_instance(kind: Kind) {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let Some((front, both)) = Front::with_both(kind, &proxy.database()).await else { return };
    let seen = front.send_stored("shop/ada", "1").await;
    let missed = front.send_stored("shop/ada", "2").await;
    proxy.take_away();
    for instance in &both {
        eventually("it is not ready", async || {
            instance.get("/readyz").await.is_ok_and(|answer| answer.status() == 503)
        })
        .await;
    }
    // A balancer that took both out for it would have done so by now.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let mut client: SseClient = front.open(SUBSCRIBE, Some(&seen)).await.unwrap();
    assert!(client.next().await.is("tidings.ready"), "it is held open");
    assert_eq!(front.send("shop/ada", "3").await.status, 503);
    proxy.bring_back();
    client.expect([missed]).await;
}

/// A stream over HTTP/2.
struct Http2Stream {
    response: reqwest::Response,
    text: String,
}

impl Http2Stream {
    async fn open(client: &reqwest::Client, path: &str) -> Http2Stream {
        let request = client.get(format!("https://{NAME}{path}"));
        let response = request.header("accept", "text/event-stream").send().await.unwrap();
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
