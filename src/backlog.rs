//! What a connection was handed and its socket has not taken. hyper has one bound for what it reads and
//! what it writes: the first must let a long URL in, and the second would then let every client that
//! does not read keep as much (invariant 5). So a stream looks here before it hands more on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Bytes under way on a connection before its stream waits.
const MOST: usize = 8 << 10;

/// Shared by a connection's socket and the body of the response on it.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicUsize,
    body: AtomicWaker,
}

impl Backlog {
    /// Ready when there is room for more.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.inner.body.register(cx.waker());
        // The socket may have taken it all in between.
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn has_room(&self) -> bool {
        self.inner.bytes.load(Ordering::Acquire) < MOST
    }

    /// The body has handed these on.
    pub fn add(&self, bytes: usize) {
        self.inner.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The socket has taken these. It also takes heads and the framing of chunks, which nobody added.
    pub fn take(&self, bytes: usize) {
        let less = |left: usize| Some(left.saturating_sub(bytes));
        let before = self.inner.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if before.is_ok_and(|before| before >= MOST) && self.has_room() {
            self.inner.body.wake();
        }
    }
}
