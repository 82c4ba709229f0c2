//! One raw HTTP/1.1 exchange: paths and headers reach the server exactly as written, which clients
//! that normalise would not do.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;

/// A request as it goes over the wire. `Host: localhost` and `Content-Length` are added where they
/// are missing.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: impl Into<String>) -> Request {
        Request {
            method: method.to_owned(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(path: impl Into<String>) -> Request {
        Request::new("GET", path)
    }

    /// A POST of JSON.
    pub fn json(path: impl Into<String>, body: impl AsRef<[u8]>) -> Request {
        Request::new("POST", path).header("content-type", "application/json").body(body)
    }

    /// A POST of text.
    pub fn text(path: impl Into<String>, body: impl AsRef<[u8]>) -> Request {
        Request::new("POST", path).header("content-type", "text/plain").body(body)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        body.as_ref().clone_into(&mut self.body);
        self
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub async fn send(&self, address: SocketAddr) -> Answer {
        let mut bytes = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.has("host") {
            bytes.push_str("Host: localhost\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            bytes.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        let mut bytes = bytes.into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        Answer::to(address, &bytes).await
    }
}

/// For naming a case: enough to tell it from the others.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (name, value) in &self.headers {
            write!(f, ", {name}: {}", String::from_utf8_lossy(value))?;
        }
        write!(f, ", {:.60}", String::from_utf8_lossy(&self.body))
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Sends these bytes and reads until the server closes the connection.
    pub async fn to(address: SocketAddr, request: &[u8]) -> Answer {
        let exchange = async {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            socket.write_all(request).await.expect("the server reads the request");
            Answer::read(&mut socket).await
        };
        timeout(DEADLINE, exchange).await.expect("an answer in time")
    }

    /// Reads an answer up to the end of the connection.
    pub async fn read(socket: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let read = timeout(DEADLINE, socket.read_to_end(&mut bytes)).await;
        read.expect("an answer in time").expect("the answer is not cut off");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let body = bytes.split_off(end + 4);
        let head = String::from_utf8(bytes).expect("our own headers are ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("a status line")[9..12].parse().expect("a status");
        let headers = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Answer { status, headers, body }
    }

    /// A header that comes once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} comes twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a UTF-8 body")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}
