//! A server in memory that keeps the contract, or breaks it on purpose: the commands are tested
//! against it, above all that they fail when they must.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use ulid::Ulid;

use crate::target::Source;
use crate::{Arguments, Figures, Outcome};

/// What the server does to the fifth notification of every stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Double,
    Swap,
    Alter,
}

struct Feed {
    rows: Mutex<Vec<Row>>,
    head: watch::Sender<usize>,
    fault: Fault,
}

#[derive(Clone)]
struct Row {
    id: Ulid,
    audience: String,
    data: String,
}

async fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let feed = Arc::new(Feed { rows: Mutex::default(), head: watch::Sender::new(0), fault });
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, feed.clone()));
        }
    });
    address
}

/// An error is a client that went away.
async fn serve(mut socket: TcpStream, feed: Arc<Feed>) -> std::io::Result<()> {
    let mut raw = Vec::new();
    loop {
        while memchr::memmem::find(&raw, b"\r\n\r\n").is_none() || !raw.ends_with(b"}") {
            if raw.starts_with(b"GET") && raw.ends_with(b"\r\n\r\n") {
                return subscribe(socket, &String::from_utf8_lossy(&raw), &feed).await;
            }
            if socket.read_buf(&mut raw).await? == 0 {
                return Ok(());
            }
        }
        let body = feed.send(&String::from_utf8_lossy(&raw));
        let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).await?;
        raw.clear();
    }
}

async fn subscribe(mut socket: TcpStream, request: &str, feed: &Feed) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
    socket.write_all(format!("{head}\r\n").as_bytes()).await?;
    let cursor = request.lines().find_map(|line| line.strip_prefix("Last-Event-ID: "));
    let mut head = feed.head.subscribe();
    let mut at = match cursor {
        Some(cursor) => feed.place_after(cursor.parse().unwrap()),
        None => *head.borrow_and_update(),
    };
    let from = feed.id_at(at).to_string();
    let ready = format!("id: {from}\nevent: tidings.ready\ndata: {{\"cursor\":\"{from}\"}}\n\n");
    let (replay, replayed) = feed.frames(audience(request), &mut at);
    let live = format!("event: tidings.live\ndata: {{\"replayed\":{replayed}}}\n\n");
    chunk(&mut socket, &format!("{ready}{replay}{live}")).await?;
    while head.changed().await.is_ok() {
        let (frames, count) = feed.frames(audience(request), &mut at);
        if count > 0 {
            chunk(&mut socket, &frames).await?;
        }
    }
    Ok(())
}

async fn chunk(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    socket.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}

/// `app/user` of a request.
fn audience(request: &str) -> &str {
    let path = request.split(' ').nth(1).unwrap();
    path.trim_start_matches("/api/notifications/").split_once('/').unwrap().1
}

impl Feed {
    fn send(&self, request: &str) -> String {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let data = body.strip_prefix("{\"data\":").unwrap().strip_suffix('}').unwrap().to_owned();
        let mut rows = self.rows.lock().unwrap();
        let id = Ulid(rows.len() as u128 + 1);
        rows.push(Row { id, audience: audience(request).to_owned(), data });
        self.head.send_replace(rows.len());
        format!("{{\"id\":\"{id}\",\"created_at\":\"2026-11-22T12:00:00.123Z\"}}")
    }

    fn place_after(&self, cursor: Ulid) -> usize {
        self.rows.lock().unwrap().partition_point(|row| row.id <= cursor)
    }

    fn id_at(&self, place: usize) -> Ulid {
        Ulid(place as u128)
    }

    /// The frames for one audience from `at` on, and how many.
    fn frames(&self, audience: &str, at: &mut usize) -> (String, usize) {
        let rows = self.rows.lock().unwrap();
        let own = |row: &&Row| row.audience == audience;
        let before = rows[..*at].iter().filter(own).count();
        let mut new: Vec<Row> = rows[*at..].iter().filter(own).cloned().collect();
        *at = rows.len();
        drop(rows);
        let wrong = 4_usize.checked_sub(before).filter(|place| *place < new.len());
        if let Some(place) = wrong {
            match self.fault {
                Fault::None => {}
                Fault::Lose => drop(new.remove(place)),
                Fault::Double => new.insert(place, new[place].clone()),
                Fault::Swap if place > 0 => new.swap(place, place - 1),
                Fault::Swap => new.insert(0, Row { id: Ulid(0), ..new[0].clone() }),
                Fault::Alter => new[place].data = new[place].data.replace("1.50", "1.5"),
            }
        }
        let frame = |row: &Row| format!("id: {}\ndata: {}\n\n", row.id, row.data);
        (new.iter().map(frame).collect(), new.len())
    }
}

async fn run(command: &str, fault: Fault) -> Outcome<Figures> {
    let url = format!("http://{}", start(fault).await);
    let arguments = Arguments::parse_from(command.split(' '));
    arguments.command.run(&Source::new(Some(&url), None, None)?).await
}

const COMMANDS: [&str; 5] = [
    "bench sends --senders 1,5 --seconds 1 --users 3",
    "bench latency --rate 200 --seconds 1 --warm-up 0 --users 3 --connections 4",
    "bench fanout --subscribers 20 --events 10 --gap-ms 1 --burst",
    "bench cuts --clients 20 --cuts 5 --sends 1200 --rate 1200 --connections 8",
    "bench cuts --clients 20 --cuts 5 --sends 1200 --rate 1200 --connections 8 --one-user",
];

#[tokio::test]
async fn every_command_passes_on_a_server_that_keeps_the_contract() {
    for command in COMMANDS {
        run(command, Fault::None).await.unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

#[tokio::test]
async fn an_altered_notification_fails_every_command() {
    for command in COMMANDS {
        let failure = run(command, Fault::Alter).await.err().expect(command).to_string();
        assert!(failure.contains("has not the bytes that were sent"), "{command}: {failure}");
    }
}

#[tokio::test]
async fn a_doubled_or_swapped_notification_fails_every_command() {
    for command in COMMANDS {
        let failure = run(command, Fault::Double).await.err().expect(command).to_string();
        assert!(!failure.contains("twice 0,"), "{command}: {failure}");
        assert!(run(command, Fault::Swap).await.is_err(), "{command}");
    }
}

#[tokio::test]
async fn a_lost_notification_fails_every_command() {
    let failures = COMMANDS.map(|command| run(command, Fault::Lose));
    for ended in futures_util::future::join_all(failures).await {
        let failure = ended.err().expect("it must fail").to_string();
        assert!(failure.starts_with("missed ") && !failure.starts_with("missed 0"), "{failure}");
    }
}

#[tokio::test]
async fn idle_streams_are_counted_on_the_given_process() {
    let command = "bench idle --connections 50 --settle 0 --pid ";
    run(&format!("{command}{}", std::process::id()), Fault::None).await.unwrap();
    assert!(run("bench idle --connections 1", Fault::None).await.is_err());
}
