//! A raw event stream client over HTTP/1.1, so that a test sees every byte and can cut the connection
//! where it likes. Every wait has a deadline.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far above anything that happens on a busy machine; only a lost event takes this long.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// One frame as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<u64>,
}

impl Frame {
    pub fn is(&self, event: &str) -> bool {
        self.event.as_deref() == Some(event)
    }

    /// Anything but `tidings.*`.
    pub fn is_notification(&self) -> bool {
        !self.event.as_deref().is_some_and(|event| event.starts_with("tidings."))
    }

    pub fn id(&self) -> &str {
        self.id.as_deref().expect("a frame with an id")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.data.as_deref().expect("a frame with data"))
            .expect("data is JSON")
    }
}

/// One connection.
pub struct SseClient {
    socket: TcpStream,
    pub status: u16,
    pub headers: String,
    /// The last id of any frame that carried one: what the next connection sends.
    pub cursor: Option<String>,
    raw: Vec<u8>,
    text: String,
    frames: VecDeque<Frame>,
    body: Body,
    ended: bool,
}

/// Where the body ends.
enum Body {
    Chunked,
    /// After so many more bytes: a balancer's own answer, after which it keeps the connection.
    Length(usize),
    UntilClosed,
}

impl Body {
    fn of(headers: &str) -> Body {
        if headers.contains("transfer-encoding: chunked") {
            return Body::Chunked;
        }
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
        length.map_or(Body::UntilClosed, |length| Body::Length(length.parse().expect("a length")))
    }
}

impl SseClient {
    /// Connects to `address` and asks for `path`, with `Accept: text/event-stream`.
    pub async fn connect(
        address: std::net::SocketAddr,
        path: &str,
        last_event_id: Option<&str>,
    ) -> SseClient {
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
        let mut client = SseClient::request(address, path, &headers).await;
        client.cursor = last_event_id.map(str::to_owned);
        client
    }

    /// Connects with these headers alone.
    pub async fn request(
        address: std::net::SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> SseClient {
        let client = SseClient::try_request(address, path, headers);
        timeout(DEADLINE, client).await.expect("an answer in time").expect("a connection")
    }

    /// The same, for servers that may not be there.
    pub async fn try_request(
        address: std::net::SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<SseClient> {
        SseClient::over(TcpStream::connect(address).await?, path, headers).await
    }

    /// The same over a socket that is connected already.
    pub async fn over(
        mut socket: TcpStream,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<SseClient> {
        let named = |host: &&(&str, &str)| host.0.eq_ignore_ascii_case("host");
        let host = headers.iter().find(named).is_none().then_some(("Host", "localhost"));
        let headers: String = host
            .iter()
            .chain(headers)
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if socket.read_buf(&mut raw).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        };
        let headers = String::from_utf8_lossy(&raw[..end]).to_lowercase();
        raw.drain(..end + 4);
        let status = headers[9..12].parse().expect("a status line");
        let body = Body::of(&headers);
        let (text, frames) = (String::new(), VecDeque::new());
        let mut client = SseClient {
            socket,
            status,
            headers,
            cursor: None,
            raw,
            text,
            frames,
            body,
            ended: false,
        };
        client.decode();
        Ok(client)
    }

    /// The next frame; `None` when the stream has ended, in order or not.
    pub async fn try_next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                if let Some(id) = &frame.id {
                    self.cursor = Some(id.clone());
                }
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            let read = timeout(DEADLINE, self.socket.read_buf(&mut self.raw))
                .await
                .expect("a frame in time");
            self.ended |= !matches!(read, Ok(1..));
            self.decode();
        }
    }

    /// The next frame.
    pub async fn next(&mut self) -> Frame {
        self.try_next().await.expect("the stream goes on")
    }

    /// The next frame of a kind. Pings keep every single wait short, so this has a deadline too.
    pub async fn next_that(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let next = async {
            loop {
                let frame = self.next().await;
                if wanted(&frame) {
                    return frame;
                }
            }
        };
        timeout(DEADLINE, next).await.expect("such a frame in time")
    }

    /// The next frame that is no ping.
    pub async fn next_but_pings(&mut self) -> Frame {
        self.next_that(|frame| !frame.is("tidings.ping")).await
    }

    /// The next notification, past all control events.
    pub async fn notification(&mut self) -> Frame {
        self.next_that(Frame::is_notification).await
    }

    /// Reads on to the control event `name` and returns it with the notifications before it.
    pub async fn until(&mut self, name: &str) -> (Vec<Frame>, Frame) {
        let mut before = Vec::new();
        loop {
            let frame = self.next_that(|frame| frame.is(name) || frame.is_notification()).await;
            if frame.is(name) {
                return (before, frame);
            }
            before.push(frame);
        }
    }

    /// Whatever comes after `tidings.ready` and up to `tidings.live`, but pings: a gap too. And `live`.
    pub async fn replay(&mut self) -> (Vec<Frame>, Frame) {
        let replay = async {
            assert!(self.next().await.is("tidings.ready"));
            let mut frames = Vec::new();
            loop {
                match self.next_but_pings().await {
                    live if live.is("tidings.live") => return (frames, live),
                    frame => frames.push(frame),
                }
            }
        };
        timeout(DEADLINE, replay).await.expect("a replay that ends in time")
    }

    /// The next notifications are exactly these, in this order.
    pub async fn expect<S: AsRef<str>>(&mut self, ids: impl IntoIterator<Item = S>) {
        for id in ids {
            assert_eq!(self.notification().await.id(), id.as_ref());
        }
    }

    /// Nothing came up to the next ping, which says that the stream is complete.
    pub async fn expect_silence(&mut self) {
        let (before, _) = self.until("tidings.ping").await;
        assert_eq!(before, []);
    }

    /// Cuts the connection as a lost network does: with a reset, nothing flushed.
    pub fn cut(self) {
        let socket = socket2::SockRef::from(&self.socket);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    fn decode(&mut self) {
        match &mut self.body {
            Body::Chunked => self.decode_chunks(),
            Body::Length(rest) => {
                let raw = std::mem::take(&mut self.raw);
                *rest = rest.checked_sub(raw.len()).expect("no more than was announced");
                self.ended |= *rest == 0;
                self.text.push_str(&String::from_utf8_lossy(&raw));
            }
            Body::UntilClosed => {
                self.text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.raw)));
            }
        }
        while let Some(end) = self.text.find("\n\n") {
            let frame = parse(&self.text[..end]);
            self.text.drain(..end + 2);
            self.frames.push_back(frame);
        }
    }

    fn decode_chunks(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).expect("a chunk size");
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            if self.raw.len() < line + 2 + size + 2 {
                break;
            }
            self.ended |= size == 0;
            let chunk = &self.raw[line + 2..line + 2 + size];
            self.text.push_str(std::str::from_utf8(chunk).expect("whole characters in a chunk"));
            self.raw.drain(..line + 2 + size + 2);
            if size == 0 {
                break;
            }
        }
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame::default();
    for line in text.lines() {
        let (field, value) =
            line.split_once(": ").unwrap_or_else(|| panic!("a line of our own: {line:?}"));
        let slot = match field {
            "id" => &mut frame.id,
            "event" => &mut frame.event,
            "data" => &mut frame.data,
            "retry" => {
                frame.retry = Some(value.parse().expect("milliseconds"));
                continue;
            }
            other => panic!("an unknown field {other:?}"),
        };
        assert!(slot.replace(value.to_owned()).is_none(), "a field twice in one frame: {text}");
    }
    frame
}
