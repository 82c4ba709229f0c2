//! A connection's socket, with what hyper does not bound: how long the peer may take nothing, how much
//! of a response is under way, and how many long request heads there are at once (invariant 5).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::PollSemaphore;

use crate::backlog::Backlog;
use crate::release::Release;

/// How long a request's head may be: a URL of 65,534 bytes, the most that the library for HTTP knows,
/// and other headers. A stream's hundred topics of 128 characters take 38,400 when each character has
/// to be percent-encoded.
pub(super) const LONGEST_HEAD: usize = 80 << 10;
/// What any head may take; a longer one needs one of the places below.
const SHORT_HEAD: usize = 8 << 10;
/// What all long heads may take that are being read.
const LONG_HEADS_BYTES: usize = 64 << 20;
/// What one may take: hyper's buffer doubles as it grows.
const PLACE: usize = 128 << 10;
/// For a place. A head takes milliseconds, so whoever waits longer waits for some that never end; and
/// if all were let wait for those, they would all have their turn in the moment in which those end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places for long heads.
pub(super) fn long_heads() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LONG_HEADS_BYTES / PLACE))
}

/// A TCP connection.
pub(super) struct Socket {
    inner: Pin<Box<TimeoutStream<TcpStream>>>,
    backlog: Backlog,
    release: Option<Release>,
    head: Head,
}

impl Socket {
    /// Ends with an error if the peer takes nothing for as long as `stalled_after`.
    pub(super) fn new(
        socket: TcpStream,
        stalled_after: Duration,
        long_heads: &Arc<Semaphore>,
    ) -> Socket {
        let mut inner = Box::pin(TimeoutStream::new(socket));
        inner.as_mut().set_write_timeout_pinned(Some(stalled_after));
        let head = Head { long_heads: long_heads.clone(), place: None, state: State::start() };
        Socket { inner, backlog: Backlog::default(), release: None, head }
    }

    /// What is under way to the peer.
    pub(super) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Tells of each time that nothing is left to be written.
    pub(super) fn release_with(&mut self, release: Release) {
        self.release = Some(release);
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.backlog.take(bytes);
            // An answer: what comes next is another request.
            self.head.state.restart();
            self.head.place = None;
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.head.poll_place(cx))?;
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(cx, buffer))?;
        self.head.state.see(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner.as_mut().poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner.as_mut().poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.as_mut().poll_flush(cx))?;
        if let Some(release) = &self.release {
            release.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}

/// The head of the request that is being read.
struct Head {
    long_heads: Arc<Semaphore>,
    place: Option<Place>,
    state: State,
}

/// Waited for, or had.
enum Place {
    Wanted { places: PollSemaphore, patience: Pin<Box<Sleep>> },
    Had { _permit: OwnedSemaphorePermit },
}

impl Head {
    /// Ready when more of the head may be read.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.is_long() || matches!(self.place, Some(Place::Had { .. })) {
            return Poll::Ready(Ok(()));
        }
        let long_heads = &self.long_heads;
        let place = self.place.get_or_insert_with(|| Place::Wanted {
            places: PollSemaphore::new(long_heads.clone()),
            patience: Box::pin(sleep(PATIENCE)),
        });
        if let Place::Wanted { places, patience } = place {
            match places.poll_acquire(cx) {
                Poll::Ready(permit) => {
                    let permit = permit.expect("nobody closes this semaphore");
                    *place = Place::Had { _permit: permit };
                }
                Poll::Pending => {
                    ready!(patience.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    bytes: usize,
    last_four: u32,
    reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Head,
    /// A body is bounded where it is collected.
    Body,
    /// Has a bound of its own for heads, and windows for bodies.
    Http2,
}

impl State {
    fn start() -> State {
        State { bytes: 0, last_four: 0, reading: Reading::Head }
    }

    fn restart(&mut self) {
        if self.reading != Reading::Http2 {
            *self = State::start();
        }
    }

    fn is_long(&self) -> bool {
        self.reading == Reading::Head && self.bytes >= SHORT_HEAD
    }

    fn see(&mut self, bytes: &[u8]) {
        if self.reading != Reading::Head {
            return;
        }
        for &byte in bytes {
            self.bytes += 1;
            self.last_four = self.last_four << 8 | u32::from(byte);
            if self.bytes == 4 && self.last_four == u32::from_be_bytes(*b"PRI ") {
                self.reading = Reading::Http2;
                return;
            }
            if self.last_four == u32::from_be_bytes(*b"\r\n\r\n") {
                self.reading = Reading::Body;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pieces: &[&[u8]]) -> State {
        let mut state = State::start();
        pieces.iter().for_each(|piece| state.see(piece));
        state
    }

    #[test]
    fn a_head_is_long_until_its_end_however_it_is_cut() {
        let long = [b'a'; SHORT_HEAD];
        assert!(seen(&[&long]).is_long());
        assert!(!seen(&[&long[1..]]).is_long());
        assert!(!seen(&[&long, b"\r\n\r", b"\n"]).is_long());
        assert!(!seen(&[b"GET / HTTP/1.1\r\n\r\n", &long]).is_long(), "that is a body");
    }

    #[test]
    fn an_answer_begins_another_head_but_on_http_2() {
        let mut state = seen(&[b"GET / HTTP/1.1\r\n\r\n"]);
        state.restart();
        assert_eq!(state, State::start());
        let mut state = seen(&[b"PR", b"I * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; SHORT_HEAD]]);
        state.restart();
        state.see(&[0; SHORT_HEAD]);
        assert!(!state.is_long());
    }
}
