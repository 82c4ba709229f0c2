//! Going away: everyone is told, sends in flight are answered, and the program ends in time.

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{
    API, DEADLINE, ServerProcess, SseClient, TestApp, TestDatabase, eventually, http_client,
};

const STREAMS: usize = 1000;
const DRAIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_tells_a_thousand_streams_to_come_back_each_at_a_time_of_its_own() {
    allow_open_files(2 * STREAMS as u64);
    let database = TestDatabase::new().await;
    let mut server =
        ServerProcess::start(&[("DATABASE_URL", &database.url), ("TIDINGS_DRAIN", "15s")]).await;
    let clients = join_all((0..STREAMS).map(async |number| {
        let path = format!("{API}/subscribe/shop/user-{number}");
        let mut client = SseClient::connect(server.address, &path, None).await;
        client.until("tidings.live").await;
        client
    }));
    let clients = clients.await;

    let began = Instant::now();
    server.signal(Signal::TERM);
    let goodbyes = join_all(clients.into_iter().map(async |mut client| {
        let (_, goodbye) = client.until("tidings.goodbye").await;
        let ended = began.elapsed();
        assert_eq!(client.try_next().await, None);
        (goodbye, ended)
    }));
    let goodbyes = goodbyes.await;

    assert_eq!(exit(&mut server).await.code(), Some(0));
    assert!(began.elapsed() < DRAIN, "it took {:?}", began.elapsed());
    for (goodbye, _) in &goodbyes {
        assert_eq!(goodbye.json(), serde_json::json!({"reason": "shutdown"}));
        assert_eq!(goodbye.id, None);
    }
    let retries: BTreeSet<u64> =
        goodbyes.iter().map(|(goodbye, _)| goodbye.retry.expect("a retry")).collect();
    assert!(retries.iter().all(|retry| (500..=1500).contains(retry)), "{retries:?}");
    assert!(retries.len() > 300, "{} different ones", retries.len());
    // They would come back as one if they ended as one.
    let first = goodbyes.iter().map(|(_, ended)| *ended).min().unwrap();
    let last = goodbyes.iter().map(|(_, ended)| *ended).max().unwrap();
    assert!(last - first > DRAIN / 3, "ended between {first:?} and {last:?}");
}

#[tokio::test]
async fn sends_in_flight_at_sigterm_are_answered() {
    let database = TestDatabase::new().await;
    let mut server = ServerProcess::start(&[("DATABASE_URL", &database.url)]).await;
    let pool = database.pool().await;
    let mut lane = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7463, 1)").execute(&mut *lane).await.unwrap();
    let http = http_client();
    let url = format!("http://{}{API}/send/shop/ada", server.address);
    let send = |number: usize| {
        let send = http.post(&url).json(&serde_json::json!({"data": number}));
        tokio::spawn(async move { send.send().await.map(|answer| answer.status().as_u16()) })
    };
    let mut sends = vec![send(0)];
    // Other tests have lanes of their own.
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    eventually("one waits for the lane", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    sends.extend((1..16).map(send));
    let metrics = format!("http://{}/metrics", server.address);
    eventually("the others wait for the writer", async || {
        let metrics = http.get(&metrics).send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "tidings_send_queue_length 15")
    })
    .await;

    server.signal(Signal::TERM);
    eventually("no more connections are taken", async || {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    lane.rollback().await.unwrap();

    for send in sends {
        assert_eq!(send.await.unwrap().unwrap(), 201);
    }
    assert_eq!(exit(&mut server).await.code(), Some(0));
    assert_eq!(database.count().await, 16);
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let database = TestDatabase::new().await;
    let variables = [("DATABASE_URL", database.url.as_str()), ("TIDINGS_DRAIN", "1h")];
    let mut server = ServerProcess::start(&variables).await;
    let path = format!("{API}/subscribe/shop/ada");
    let mut client = SseClient::connect(server.address, &path, None).await;
    client.until("tidings.live").await;

    server.signal(Signal::TERM);
    eventually("no more connections are taken", async || {
        TcpStream::connect(server.address).await.is_err()
    })
    .await;
    server.signal(Signal::TERM);

    assert_eq!(exit(&mut server).await.code(), Some(1));
}

#[tokio::test]
async fn during_the_drain_delay_it_is_not_ready_but_serves() {
    let database = TestDatabase::new().await;
    let variables = [
        ("DATABASE_URL", database.url.as_str()),
        ("TIDINGS_DRAIN_DELAY", "1h"),
        ("TIDINGS_DRAIN", "0s"),
    ];
    let mut server = ServerProcess::start(&variables).await;
    let http = http_client();
    let url = |path: &str| format!("http://{}{path}", server.address);
    eventually("it is ready", async || {
        http.get(url("/readyz")).send().await.unwrap().status() == 200
    })
    .await;

    server.signal(Signal::TERM);

    eventually("it is not ready", async || {
        let answer = http.get(url("/readyz")).send().await.unwrap();
        answer.status() == 503
    })
    .await;
    let readiness: serde_json::Value =
        http.get(url("/readyz")).send().await.unwrap().json().await.unwrap();
    assert_eq!(readiness, serde_json::json!({"ready": false, "reasons": ["draining"]}));
    let path = format!("{API}/subscribe/shop/ada");
    let mut client = SseClient::connect(server.address, &path, None).await;
    client.until("tidings.live").await;
    let send =
        http.post(url(&format!("{API}/send/shop/ada"))).json(&serde_json::json!({"data": 1}));
    assert_eq!(send.send().await.unwrap().status(), 201);
    client.notification().await;

    // Ends the delay; the stream has no time to end in.
    server.signal(Signal::TERM);
    exit(&mut server).await;
}

#[tokio::test]
async fn an_http2_connection_is_told_to_go_away_before_its_streams_end() {
    let app = TestApp::with(|config| config.drain = Duration::from_secs(5)).await;
    let mut frames = Http2::subscribe(app.address, "shop/ada").await;
    frames.until(|frame| frame.says("tidings.live")).await;

    app.shutdown.graceful.cancel();

    let go_away = frames.until(|frame| frame.kind == GO_AWAY || frame.ends_stream()).await;
    assert_eq!(go_away.kind, GO_AWAY);
    assert_eq!(go_away.payload[4..8], [0; 4], "no error");
    let goodbye = frames.until(|frame| frame.says("tidings.goodbye") || frame.ends_stream()).await;
    assert_eq!((goodbye.kind, goodbye.ends_stream()), (DATA, false));
    frames.until(Frame::ends_stream).await;
    assert!(app.ended.await.unwrap().is_ok());
}

async fn exit(server: &mut ServerProcess) -> ExitStatus {
    timeout(DEADLINE, server.child.wait()).await.expect("it ends in time").unwrap()
}

/// Two for each stream of the test above would be enough.
fn allow_open_files(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An HTTP/2 connection as it is on the wire (RFC 9113): client libraries hide GOAWAY.
struct Http2 {
    socket: TcpStream,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.payload).contains(text)
    }

    fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

impl Http2 {
    async fn subscribe(address: std::net::SocketAddr, to: &str) -> Http2 {
        let path = format!("{API}/subscribe/{to}");
        // RFC 7541, static table: GET and http as they are, then three names with values.
        let mut headers = vec![0x82, 0x86];
        for (name, value) in [
            (&[0x04][..], path.as_str()),
            (&[0x01], "localhost"),
            (&[0x0f, 0x04], "text/event-stream"),
        ] {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value.as_bytes());
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0, 0, headers.len() as u8, HEADERS]);
        bytes.extend_from_slice(&[END_STREAM | END_HEADERS, 0, 0, 0, 1]);
        bytes.extend_from_slice(&headers);
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        Http2 { socket }
    }

    /// The next frame that fits.
    async fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Frame {
        let search = async {
            loop {
                let frame = self.next().await.expect("the connection is open");
                if fits(&frame) {
                    return frame;
                }
            }
        };
        timeout(DEADLINE, search).await.expect("a frame in time")
    }

    async fn next(&mut self) -> std::io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.socket.read_exact(&mut payload).await?;
        if head[3] == PING && head[4] & ACK == 0 {
            // The server asks whether its GOAWAY has arrived, and waits for the answer.
            let answer = [&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload[..]].concat();
            self.socket.write_all(&answer).await?;
        }
        Ok(Frame { kind: head[3], flags: head[4], payload })
    }
}
