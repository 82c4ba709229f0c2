//! The sends that wait for the writer. Bounded in bytes; one app may fill a quarter at most, so that
//! a flood from one tenant cannot lock the others out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::App;
use crate::metrics::Metrics;
use crate::notification::NewNotification;
use crate::writer::{SendError, Stored};

const MAX_BYTES: usize = 64 << 20;
const MAX_BYTES_OF_ONE_APP: usize = MAX_BYTES / 4;

/// A send on its way to the database.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) notification: NewNotification,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Stored, SendError>>,
}

impl Waiting {
    /// The request that sent it went away, so nobody would learn that it was stored.
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

/// The queue between the requests and the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    closed: CancellationToken,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    by_app: HashMap<App, usize>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Queue {
        Queue {
            state: Mutex::default(),
            filled: Notify::new(),
            closed: CancellationToken::new(),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Adds a send, or says why not.
    pub(crate) fn push(&self, send: Waiting) -> Result<(), SendError> {
        let bytes = send.notification.bytes();
        let mut state = self.state();
        if state.closed {
            return Err(SendError::Draining);
        }
        let of_app = state.by_app.get(&send.notification.app).copied().unwrap_or(0) + bytes;
        if state.bytes + bytes > MAX_BYTES || of_app > MAX_BYTES_OF_ONE_APP {
            return Err(SendError::Overloaded);
        }
        state.bytes += bytes;
        state.by_app.insert(send.notification.app.clone(), of_app);
        state.waiting.push_back(send);
        self.show(&state);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for sends and takes as many as one group holds. `None`: closed, and nothing is left.
    pub(crate) async fn take_group(
        &self,
        max_rows: usize,
        max_bytes: usize,
    ) -> Option<Vec<Waiting>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state();
                let group = state.take(max_rows, max_bytes);
                self.show(&state);
                if !group.is_empty() {
                    return Some(group);
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Answers the sends that have waited too long: the database is away, and each is certainly not
    /// stored.
    pub(crate) fn expire(&self, now: Instant) {
        let mut state = self.state();
        // In order of arrival and with one patience, so the oldest is in front.
        while state.waiting.front().is_some_and(|send| send.deadline <= now) {
            if let Some(send) = state.pop() {
                let _ = send.reply.send(Err(SendError::Unreachable));
            }
        }
        self.show(&state);
    }

    /// Takes no more sends; those inside are still appended.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
        self.closed.cancel();
    }

    /// Waits until it takes no more sends.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn show(&self, state: &State) {
        self.metrics.send_queue.set(state.waiting.len() as i64);
        self.metrics.send_queue_bytes.set(state.bytes as i64);
    }
}

impl State {
    fn take(&mut self, max_rows: usize, max_bytes: usize) -> Vec<Waiting> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < max_rows && bytes < max_bytes {
            let Some(send) = self.pop() else { break };
            if send.is_gone() {
                continue;
            }
            bytes += send.notification.bytes();
            group.push(send);
        }
        group
    }

    fn pop(&mut self) -> Option<Waiting> {
        let send = self.waiting.pop_front()?;
        let bytes = send.notification.bytes();
        self.bytes -= bytes;
        if let Some(of_app) = self.by_app.get_mut(&send.notification.app) {
            *of_app -= bytes;
            if *of_app == 0 {
                self.by_app.remove(&send.notification.app);
            }
        }
        Some(send)
    }
}
