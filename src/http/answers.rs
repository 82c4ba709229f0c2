//! Answers that can be long: bounded in memory over all of them together (invariant 5), so that thousands
//! of clients that ask for a page and do not read it cannot fill the machine. Bodies of requests have
//! the same bound, in `intake.rs`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::backlog::Backlog;
use crate::error::{Kind, Problem};

/// What every answer may take, so that ordinary ones are never refused.
const SMALL: usize = 16 << 10;
/// What all others may take together, until their clients have taken them.
const LONG_BYTES: usize = 64 << 20;
/// A client that has not taken all of it by then is given up. Over HTTP/2 nothing else ends a stream that
/// is not read.
const DEADLINE: Duration = Duration::from_secs(120);
/// What is handed to the connection at once.
const PIECE: usize = 8 << 10;

/// Room for the long answers of an instance.
pub(super) struct Answers {
    room: Arc<Semaphore>,
    deadline: Duration,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { room: Arc::new(Semaphore::new(LONG_BYTES)), deadline: DEADLINE }
    }
}

impl Answers {
    /// The value as JSON, if there is room for it. `backlog` is of a connection that has no other stream.
    pub(super) fn json(
        &self,
        value: &impl Serialize,
        backlog: Option<Backlog>,
    ) -> Result<Response, Problem> {
        let json = serde_json::to_vec(value).map_err(|error| {
            Kind::Internal.because("Something went wrong on our side.").caused_by(error.to_string())
        })?;
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok((kind, self.body(json, backlog)?).into_response())
    }

    fn body(&self, json: Vec<u8>, backlog: Option<Backlog>) -> Result<Body, Problem> {
        if json.len() <= SMALL {
            return Ok(Body::from(json));
        }
        // One notification alone can be longer than all may be, if TIDINGS_MAX_DATA is.
        let bytes = json.len().min(LONG_BYTES) as u32;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| {
            Kind::Overloaded.because(
                "Too many long answers are on their way: ask for fewer at a time, or again later.",
            )
        })?;
        let left = Arc::new(Mutex::new(Some(Left { json: json.into(), _room: room })));
        let (watched, deadline) = (Arc::downgrade(&left), self.deadline);
        let watch = tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            if let Some(left) = watched.upgrade() {
                left.lock().expect(UNPOISONED).take();
            }
        });
        Ok(Body::new(Answer { left, backlog, _watch: AbortOnDropHandle::new(watch) }))
    }
}

const UNPOISONED: &str = "no code panics while it holds this lock";

/// A long answer on its way.
struct Answer {
    /// Taken away from outside at the deadline: in here it would not run, since nobody asks a body for
    /// more once its client stops reading.
    left: Arc<Mutex<Option<Left>>>,
    backlog: Option<Backlog>,
    _watch: AbortOnDropHandle<()>,
}

/// What the client has not taken yet.
struct Left {
    json: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Breaks the connection off, so that nobody takes the part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the client did not take its answer in time")]
struct GivenUp;

impl Answer {
    fn left(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().expect(UNPOISONED)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if let Some(backlog) = &self.backlog
            && backlog.poll_room(cx).is_pending()
        {
            return Poll::Pending;
        }
        let mut left = self.left();
        let Some(Left { json, .. }) = &mut *left else { return Poll::Ready(Some(Err(GivenUp))) };
        if json.is_empty() {
            return Poll::Ready(None);
        }
        // Copied: while a part of the whole lies in a connection, all of it would be kept.
        let piece = Bytes::copy_from_slice(&json[..json.len().min(PIECE)]);
        json.advance(piece.len());
        if let Some(backlog) = &self.backlog {
            backlog.add(piece.len());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.left()
            .as_ref()
            .map_or_else(SizeHint::default, |left| SizeHint::with_exact(left.json.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const LONG: usize = 8 << 20;

    #[tokio::test]
    async fn long_answers_share_their_room_and_small_ones_need_none() {
        let answers = Answers::default();
        let mut held = Vec::new();
        while let Ok(body) = answers.body(vec![b'x'; LONG], None) {
            held.push(body);
        }
        assert_eq!(held.len(), LONG_BYTES / LONG);
        assert!(answers.body(vec![b'x'; SMALL], None).is_ok());

        let whole = held.remove(0).collect().await.unwrap().to_bytes();
        assert!(whole.len() == LONG && whole.iter().all(|byte| *byte == b'x'));
        assert!(answers.body(vec![b'x'; LONG], None).is_ok());
    }

    #[tokio::test]
    async fn what_is_not_taken_in_time_gives_its_room_back_and_breaks_off() {
        let answers = Answers { deadline: Duration::ZERO, ..Answers::default() };
        let mut body = answers.body(vec![b'x'; LONG], None).unwrap();
        let all = answers.room.acquire_many(LONG_BYTES as u32);
        assert!(tokio::time::timeout(Duration::from_secs(30), all).await.is_ok());
        assert!(body.frame().await.unwrap().is_err());
    }
}
