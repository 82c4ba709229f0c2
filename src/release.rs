//! How a stream gets its connection to itself. hyper keeps two buffers for as long as a connection lives,
//! ten times what an idle stream needs, so it writes the head of the response alone. The body, asked
//! for its first frame, asks to be released; once the socket has the whole head, `server.rs` takes the
//! socket out of hyper's hands and writes the frames itself ([decision 0039]).
//!
//! [decision 0039]: ../docs/decisions/0039-streams-without-hyper.md

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

/// The body of a stream, away from the response that it came with.
pub type StreamBody = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;

/// Shared by a connection, its socket, and the body of a response on it.
#[derive(Clone, Default)]
pub struct Release {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
enum State {
    #[default]
    NotAsked,
    /// The head is in hyper's buffer, or further.
    Asked(StreamBody),
    /// It is in the socket.
    Due(StreamBody),
}

impl Release {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn ask(&self, body: StreamBody) {
        *self.state() = State::Asked(body);
    }

    /// Nothing of hyper's is left to be written.
    pub fn flushed(&self) {
        let mut state = self.state();
        *state = match std::mem::take(&mut *state) {
            State::Asked(body) => State::Due(body),
            other => other,
        };
    }

    /// The body, when its connection may be taken.
    pub fn take(&self) -> Option<StreamBody> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            State::Due(body) => Some(body),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

/// What hyper gets in place of a body: it asks to be released, and has nothing to give.
pub struct Placeholder {
    body: Option<StreamBody>,
    release: Release,
}

impl Placeholder {
    /// Stands for `body` until its connection is released.
    pub fn new(body: StreamBody, release: Release) -> Placeholder {
        Placeholder { body: Some(body), release }
    }
}

impl Body for Placeholder {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(body) = self.body.take() {
            self.release.ask(body);
        }
        // Whoever polls hyper looks for the release afterwards, so nobody has to be woken.
        Poll::Pending
    }
}
