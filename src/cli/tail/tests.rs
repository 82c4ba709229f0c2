//! `tail` against a server that is a list of answers: one connection each, cut off at its end.

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 1\n\n";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(90);

const A: &str = "01JDAYQ5E0000000000000000A";
const B: &str = "01JDAYQ5E0000000000000000B";
const C: &str = "01JDAYQ5E0000000000000000C";

/// Answers one connection after the other, and returns the heads of the requests.
async fn server(answers: Vec<String>) -> (Url, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            heads.push(head(&mut socket).await);
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        heads
    });
    (Url::parse(&address).unwrap(), serving)
}

async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

struct Followed {
    ending: Ending,
    printed: String,
    heads: Vec<String>,
}

impl Followed {
    fn cursor(&self, connection: usize) -> Option<&str> {
        self.heads[connection].lines().find_map(|line| line.strip_prefix("last-event-id: "))
    }

    fn path(&self, connection: usize) -> &str {
        self.heads[connection].split(' ').nth(1).unwrap()
    }

    fn printed_ids(&self) -> Vec<String> {
        let object = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        self.printed.lines().map(|line| object(line)["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Follows until the last answer, which must be final.
async fn follow(after: Option<&str>, answers: &[String]) -> Followed {
    let (address, serving) = server(answers.to_vec()).await;
    let client = Client::new(address).unwrap();
    let printer = Printer::new(Vec::new(), true);
    let after = after.map(str::to_owned);
    let mut follower = Follower::new(client, "shop", "ada", after, printer).unwrap();
    let ended = timeout(DEADLINE, follower.follow()).await.expect("tail goes on past the end");
    let Err(ending) = ended;
    let heads = timeout(DEADLINE, serving).await.expect("not every answer was taken").unwrap();
    Followed { ending, printed: follower.printer.into_text(), heads }
}

fn ready(cursor: &str) -> String {
    let data = format!(r#"{{"cursor":"{cursor}","heartbeat_seconds":10}}"#);
    format!("id: {cursor}\nevent: tidings.ready\ndata: {data}\n\n")
}

fn notification(id: &str) -> String {
    format!("id: {id}\nevent: order.shipped\ndata: {{\"n\":1.0}}\n\n")
}

fn stream(frames: &[String]) -> String {
    format!("{STREAM}{}", frames.concat())
}

#[tokio::test]
async fn a_dropped_stream_goes_on_after_the_last_id_and_prints_nothing_twice() {
    let cut_off = format!("id: {C}\ndata: {{\"n\":");
    let followed = follow(
        None,
        &[
            stream(&[ready(A), notification(B), cut_off]),
            stream(&[ready(B), notification(C)]),
            REFUSED.to_owned(),
        ],
    )
    .await;
    assert_eq!(followed.printed_ids(), [B, C]);
    assert!(followed.printed.contains(r#""data":{"n":1.0}}"#), "{}", followed.printed);
    assert_eq!(followed.cursor(0), None);
    assert_eq!(followed.cursor(1), Some(B));
    assert_eq!(followed.cursor(2), Some(C));
    assert_eq!(followed.ending.code(), 3);
}

#[tokio::test]
async fn every_frame_with_an_id_moves_the_cursor_a_gap_also_back() {
    let gap = format!(
        "id: {A}\nevent: tidings.gap\n\
         data: {{\"after\":\"{C}\",\"resumes_after\":\"{A}\",\"reason\":\"ahead\"}}\n\n"
    );
    let ping = format!("id: {B}\nevent: tidings.ping\ndata: {{\"database\":\"up\"}}\n\n");
    let without = "event: tidings.live\ndata: {\"replayed\":0}\n\n".to_owned();
    let empty = "id:\nevent: tidings.state\ndata: {}\n\n".to_owned();
    let only_an_id = format!("id: {C}\n\n");
    let followed = follow(
        Some(C),
        &[
            stream(&[ready(C), gap, without, empty]),
            stream(&[ready(A), ping]),
            stream(&[only_an_id]),
            REFUSED.to_owned(),
        ],
    )
    .await;
    assert_eq!(followed.cursor(1), Some(A));
    assert_eq!(followed.cursor(2), Some(B));
    assert_eq!(followed.cursor(3), Some(C));
    assert_eq!(followed.printed, "");
}

#[tokio::test]
async fn where_to_begin_is_asked_in_the_query_until_the_stream_tells_a_cursor() {
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
    let goodbye = "event: tidings.goodbye\ndata: {\"reason\":\"overloaded\"}\n\n".to_owned();
    let zero = "00000000000000000000000000";
    let followed = follow(
        Some("earliest"),
        &[stream(&[goodbye]), unavailable, stream(&[ready(zero)]), REFUSED.to_owned()],
    )
    .await;
    let path = "/api/notifications/subscribe/shop/ada";
    for connection in 0..3 {
        assert_eq!(followed.path(connection), format!("{path}?last_event_id=earliest"));
        assert_eq!(followed.cursor(connection), None);
    }
    assert_eq!(followed.path(3), path);
    assert_eq!(followed.cursor(3), Some(zero));
}

#[tokio::test]
async fn a_silent_stream_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let client = Client::new(address.clone()).unwrap();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        head(&mut socket).await;
        socket.write_all(stream(&[ready(A)]).as_bytes()).await.unwrap();
        socket // held open
    });
    let response = client.get(address).send().await.unwrap();
    let silence = Cell::new(Duration::from_millis(50));
    let mut frames = pin!(stream::frames(response, &silence));
    let last = async { while let Some(Ok(_)) = frames.next().await {} };
    timeout(DEADLINE, last).await.expect("the silence was not noticed");
    drop(serving.await.unwrap());
}

#[tokio::test]
async fn ready_sets_how_long_silence_may_last() {
    let client = Client::new(Url::parse("http://127.0.0.1:1").unwrap()).unwrap();
    let printer = Printer::new(Vec::new(), true);
    let mut follower = Follower::new(client, "shop", "ada", None, printer).unwrap();
    let silence = Cell::new(FIRST_SILENCE);
    let data = r#"{"cursor":"01A","heartbeat_seconds":30}"#;
    follower.take(Sse::default().event("tidings.ready").data(data), &silence).unwrap();
    assert_eq!(silence.get(), Duration::from_secs(60) + SLACK);
}
