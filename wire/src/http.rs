//! A small HTTP/1.1 client: the generator runs on the cores it measures, so it must be cheap. One
//! request at a time per connection, kept alive; no redirects, no compression, no TLS.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Failure, Outcome};

const MAX_HEAD: usize = 16 * 1024; // far above what the server sends; ends a wrong conversation

/// A connection that is used for one request after another.
pub struct Connection {
    socket: TcpStream,
    raw: Vec<u8>,
    body: Vec<u8>,
}

/// The answer to one request; it lives until the next one.
pub struct Answer<'a> {
    /// Of its first line.
    pub status: u16,
    /// Without its framing.
    pub body: &'a [u8],
}

impl Connection {
    /// Connects; nothing is sent yet.
    pub async fn open(address: SocketAddr) -> Outcome<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, raw: Vec::with_capacity(2048), body: Vec::with_capacity(256) })
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn call(&mut self, request: &[u8]) -> Outcome<Answer<'_>> {
        self.socket.write_all(request).await?;
        self.raw.clear();
        self.body.clear();
        let (mut head, length) = read_head(&mut self.socket, &mut self.raw).await?;
        let mut done = head.framing.decode(&self.raw[length..], &mut self.body)?;
        while !done {
            self.raw.clear();
            if self.socket.read_buf(&mut self.raw).await? == 0 {
                head.framing.check_end()?;
                break;
            }
            done = head.framing.decode(&self.raw, &mut self.body)?;
        }
        Ok(Answer { status: head.status, body: &self.body })
    }
}

/// Reads until the head is complete; what follows it stays in `raw`, after the returned length.
pub async fn read_head(socket: &mut TcpStream, raw: &mut Vec<u8>) -> Outcome<(Head, usize)> {
    loop {
        if let Some(found) = Head::parse(raw)? {
            return Ok(found);
        }
        if socket.read_buf(raw).await? == 0 {
            return Err("the server closed the connection before it answered".into());
        }
    }
}

/// What the generator needs to know of an answer's head.
#[derive(Debug)]
pub struct Head {
    /// Of the first line.
    pub status: u16,
    /// The body is Server-Sent Events.
    pub event_stream: bool,
    /// How the body is delimited.
    pub framing: Framing,
}

impl Head {
    /// The head and its length, or `None` while it is incomplete.
    fn parse(raw: &[u8]) -> Outcome<Option<(Self, usize)>> {
        let Some(end) = memchr::memmem::find(raw, b"\r\n\r\n") else {
            return if raw.len() > MAX_HEAD {
                Err("the answer's head never ends".into())
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&raw[..end])?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(status_of).ok_or("the answer is not HTTP/1.1")?;
        let mut head = Self { status, event_stream: false, framing: Framing::UntilClose };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.framing = Framing::Length(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked(Part::Size(0));
            } else if name.eq_ignore_ascii_case("content-type") {
                head.event_stream = value.starts_with("text/event-stream");
            }
        }
        Ok(Some((head, end + 4)))
    }
}

fn status_of(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// How a body is delimited, and how far into it we are.
#[derive(Debug)]
pub enum Framing {
    /// So many bytes are left.
    Length(usize),
    /// Chunks, and where in one we are.
    Chunked(Part),
    /// All until the connection closes.
    UntilClose,
}

/// The part of a chunked body that comes next.
#[derive(Debug)]
pub enum Part {
    /// The size, as far as it was read.
    Size(usize),
    /// What may follow the size.
    Extension(usize),
    /// So many bytes of a chunk.
    Data(usize),
    /// The line end after a chunk.
    DataEnd,
    /// A line after the last chunk.
    Trailer {
        /// Nothing of it was read yet.
        empty: bool,
    },
    /// Nothing.
    End,
}

impl Framing {
    /// Appends the payload in `raw` to `body`; true when the body is complete.
    pub fn decode(&mut self, raw: &[u8], body: &mut Vec<u8>) -> Outcome<bool> {
        match self {
            Self::UntilClose => {
                body.extend_from_slice(raw);
                Ok(false)
            }
            Self::Length(left) => {
                let taken = raw.len().min(*left);
                body.extend_from_slice(&raw[..taken]);
                *left -= taken;
                Ok(*left == 0)
            }
            Self::Chunked(part) => part.decode(raw, body),
        }
    }

    /// The connection ended: is the body complete?
    pub fn check_end(&self) -> Outcome<()> {
        match self {
            Self::UntilClose | Self::Length(0) | Self::Chunked(Part::End) => Ok(()),
            _ => Err("the connection ended in the middle of a body".into()),
        }
    }
}

impl Part {
    fn decode(&mut self, mut raw: &[u8], body: &mut Vec<u8>) -> Outcome<bool> {
        while let Some((&byte, rest)) = raw.split_first() {
            if let Self::Data(left) = self {
                let taken = raw.len().min(*left);
                body.extend_from_slice(&raw[..taken]);
                raw = &raw[taken..];
                *self = if taken == *left { Self::DataEnd } else { Self::Data(*left - taken) };
                continue;
            }
            self.step(byte)?;
            raw = rest;
        }
        Ok(matches!(self, Self::End))
    }

    /// One byte outside of the data.
    fn step(&mut self, byte: u8) -> Outcome<()> {
        *self = match (&*self, byte) {
            (Self::Size(0) | Self::Extension(0), b'\n') => Self::Trailer { empty: true },
            (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(*size),
            (Self::Size(size), b'\r' | b';') | (Self::Extension(size), _) => Self::Extension(*size),
            (Self::Size(size), digit) => {
                let digit =
                    char::from(digit).to_digit(16).ok_or("a chunk size is not hexadecimal")?;
                Self::Size(size.checked_mul(16).ok_or("a chunk is too large")? + digit as usize)
            }
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::DataEnd, _) => return Err("a chunk is longer than its size".into()),
            (Self::Trailer { empty: true }, b'\n') => Self::End,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty: *empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
            (Self::End, _) => Self::End,
            (Self::Data(_), _) => unreachable!("data is taken in whole slices"),
        };
        Ok(())
    }
}

impl Answer<'_> {
    /// An answer that is not the wanted one, as an error that quotes what the server said.
    pub fn refused(&self, what: &str) -> Failure {
        let body = String::from_utf8_lossy(self.body);
        format!("{what} was answered {}: {}", self.status, body.trim()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(raw: &[u8], step: usize) -> (Vec<u8>, bool) {
        let mut framing = Framing::Chunked(Part::Size(0));
        let mut body = Vec::new();
        let mut done = false;
        for piece in raw.chunks(step) {
            done = framing.decode(piece, &mut body).unwrap();
        }
        (body, done)
    }

    #[test]
    fn a_chunked_body_is_the_same_in_pieces_of_any_size() {
        let raw = b"5\r\nhello\r\nb;name=x\r\n, wonderful\r\n6\r\n world\r\n0\r\nServer: x\r\n\r\n";
        for step in 1..raw.len() {
            assert_eq!(decoded(raw, step), (b"hello, wonderful world".to_vec(), true), "{step}");
        }
    }

    #[test]
    fn a_chunked_body_without_its_end_is_not_complete() {
        assert_eq!(decoded(b"5\r\nhello\r\n", 3), (b"hello".to_vec(), false));
        let broken = Framing::Chunked(Part::Data(3));
        assert!(broken.check_end().is_err());
    }

    #[test]
    fn a_head_tells_status_type_and_length() {
        let raw = b"HTTP/1.1 201 Created\r\nContent-Type: text/event-stream\r\nCONTENT-LENGTH: 4\r\n\r\nbody";
        let (head, length) = Head::parse(raw).unwrap().unwrap();
        assert_eq!((head.status, head.event_stream), (201, true));
        assert!(matches!(head.framing, Framing::Length(4)));
        assert_eq!(&raw[length..], b"body");
        assert!(Head::parse(&raw[..40]).unwrap().is_none());
        assert!(Head::parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
