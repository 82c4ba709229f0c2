//! The wire side of a subscription: a body whose bytes all streams of an event share. What a client
//! does not take for a minute is ended from outside: a deadline in here would not run, since nobody
//! asks a body for more once its client stops reading. (Over HTTP/1.1 the socket's write timeout ends
//! the connection too; over HTTP/2 one stream can stall while its connection lives.)

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use tokio::time::Instant;

use crate::backlog::Backlog;
use crate::frame::{self, Goodbye};
use crate::subscription::Subscription;

/// Looks at all streams in the time after which a stalled one is given up.
const LOOKS: u32 = 6;

/// A subscription as a response body.
pub(super) struct EventStream {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Of the connection that the stream is alone on.
    backlog: Option<Backlog>,
    bytes: Option<Pin<Box<dyn Stream<Item = Bytes> + Send>>>,
    /// When bytes were handed on that nobody has come back for yet.
    untaken_since: Option<Instant>,
    /// For a client that reads again after it was given up.
    farewell: Option<Bytes>,
}

/// All open streams of an instance.
#[derive(Default)]
pub(super) struct OpenStreams {
    streams: Mutex<Vec<Weak<Mutex<State>>>>,
}

impl OpenStreams {
    /// Makes the body of a subscription.
    pub(super) fn open(&self, subscription: Subscription, backlog: Option<Backlog>) -> EventStream {
        // Boxed, because `unfold` has room for its state twice.
        let subscription = Box::new(subscription);
        let bytes = futures_util::stream::unfold(subscription, async |mut subscription| {
            let bytes = subscription.next().await?;
            Some((bytes, subscription))
        });
        let state =
            State { backlog, bytes: Some(Box::pin(bytes)), untaken_since: None, farewell: None };
        let state = Arc::new(Mutex::new(state));
        self.streams.lock().expect(UNPOISONED).push(Arc::downgrade(&state));
        EventStream { state }
    }

    /// Gives up stalled streams, for as long as the program runs.
    pub(super) async fn watch_forever(&self, stalled_after: Duration) {
        loop {
            tokio::time::sleep(stalled_after / LOOKS).await;
            self.give_up_stalled(Instant::now(), stalled_after);
        }
    }

    fn give_up_stalled(&self, now: Instant, stalled_after: Duration) {
        self.streams.lock().expect(UNPOISONED).retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let mut state = stream.lock().expect(UNPOISONED);
            let stalled = state.untaken_since.is_some_and(|since| now - since >= stalled_after);
            if stalled {
                // Its place in the hub and its page go now; its cursor is with the client.
                state.bytes = None;
                state.untaken_since = None;
                state.farewell = Some(frame::goodbye(Goodbye::Slow, frame::short_retry()));
            }
            !stalled
        });
    }
}

const UNPOISONED: &str = "no code panics while it holds this lock";

impl EventStream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.state();
        if let Some(backlog) = &state.backlog
            && backlog.poll_room(cx).is_pending()
        {
            return Poll::Pending;
        }
        let polled = match &mut state.bytes {
            Some(bytes) => bytes.as_mut().poll_next(cx),
            None => Poll::Ready(state.farewell.take()),
        };
        state.untaken_since = matches!(polled, Poll::Ready(Some(_))).then(Instant::now);
        if let (Some(backlog), Poll::Ready(Some(bytes))) = (&state.backlog, &polled) {
            backlog.add(bytes.len());
        }
        polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use http_body::Body;

    use super::*;

    const STALLED_AFTER: Duration = Duration::from_secs(60);

    /// Two frames at once, then nothing.
    fn open() -> (OpenStreams, EventStream) {
        let frames =
            futures_util::stream::iter(["a", "b"].map(|text| Bytes::from_static(text.as_bytes())));
        let endless = futures_util::StreamExt::chain(frames, futures_util::stream::pending());
        let bytes: Option<Pin<Box<dyn Stream<Item = Bytes> + Send>>> = Some(Box::pin(endless));
        let state = State { backlog: None, bytes, untaken_since: None, farewell: None };
        let (streams, state) = (OpenStreams::default(), Arc::new(Mutex::new(state)));
        streams.streams.lock().unwrap().push(Arc::downgrade(&state));
        (streams, EventStream { state })
    }

    async fn next(stream: &mut EventStream) -> Option<Bytes> {
        let frame = poll_fn(|cx| Pin::new(&mut *stream).poll_frame(cx)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_for_a_minute_is_given_up_and_told_so() {
        let (streams, mut stream) = open();
        assert_eq!(next(&mut stream).await.unwrap(), "a");
        streams.give_up_stalled(Instant::now() + STALLED_AFTER / 2, STALLED_AFTER);
        assert_eq!(next(&mut stream).await.unwrap(), "b");
        streams.give_up_stalled(Instant::now() + STALLED_AFTER, STALLED_AFTER);
        let farewell = next(&mut stream).await.unwrap();
        assert!(farewell.ends_with(b"data: {\"reason\":\"slow\"}\n\n"), "{farewell:?}");
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_stream_hands_on_no_more_than_its_connection_takes() {
        let (_streams, mut stream) = open();
        let backlog = Backlog::default();
        stream.state().backlog = Some(backlog.clone());
        backlog.add(10_000);
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let polled = Pin::new(&mut stream).poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        backlog.take(1_000);
        assert!(!woken.0.load(Ordering::Relaxed), "there is still no room");

        backlog.take(1_000);

        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(next(&mut stream).await.unwrap(), "a");
        assert_eq!(next(&mut stream).await.unwrap(), "b");
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_client_with_nothing_to_take_is_never_given_up() {
        let (streams, mut stream) = open();
        next(&mut stream).await;
        next(&mut stream).await;
        let idle =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_frame(cx).is_pending())).await;
        assert!(idle);
        streams.give_up_stalled(Instant::now() + 100 * STALLED_AFTER, STALLED_AFTER);
        assert!(stream.state().bytes.is_some());
    }
}
