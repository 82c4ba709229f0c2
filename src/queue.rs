//! The sends that wait for the writer. Bounded in bytes; one app may fill a quarter at most, so that
//! a flood from one tenant cannot lock the others out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::App;
use crate::metrics::Metrics;
use crate::notification::NewSend;
use crate::sender::{SendError, Stored};

const MAX_BYTES: usize = 64 << 20;
/// What one app may have waiting, and so the most that one send may have.
const MAX_BYTES_OF_ONE_APP: usize = MAX_BYTES / 4;

/// A send on its way to the database.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) send: NewSend,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Stored, SendError>>,
}

impl Waiting {
    /// The request that sent it went away, so nobody would learn that it was stored.
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

/// What a send takes, if it is not more than any may.
pub(crate) fn bytes_of(send: &NewSend) -> Result<usize, SendError> {
    let bytes = send.bytes();
    match bytes > MAX_BYTES_OF_ONE_APP {
        true => Err(SendError::TooLarge { bytes, limit: MAX_BYTES_OF_ONE_APP }),
        false => Ok(bytes),
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
    pub(crate) fn push(&self, waiting: Waiting) -> Result<(), SendError> {
        let bytes = bytes_of(&waiting.send)?;
        let mut state = self.state();
        if state.closed {
            return Err(SendError::Draining);
        }
        let of_app = state.by_app.get(waiting.send.app()).copied().unwrap_or(0) + bytes;
        if state.bytes + bytes > MAX_BYTES || of_app > MAX_BYTES_OF_ONE_APP {
            return Err(SendError::Overloaded);
        }
        state.bytes += bytes;
        state.by_app.insert(waiting.send.app().clone(), of_app);
        state.waiting.push_back(waiting);
        self.show(&state);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until there are sends. False: closed, and nothing is left.
    pub(crate) async fn filled(&self) -> bool {
        loop {
            let filled = self.filled.notified();
            {
                let state = self.state();
                if !state.waiting.is_empty() {
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            filled.await;
        }
    }

    /// Takes as many sends as one group holds; none, if those that waited have gone.
    pub(crate) fn take_group(&self, max_rows: usize, max_bytes: usize) -> Vec<Waiting> {
        let mut state = self.state();
        let group = state.take(max_rows, max_bytes);
        self.show(&state);
        group
    }

    /// Answers the sends that have waited too long with the reason why; each is certainly not stored.
    pub(crate) fn expire(&self, now: Instant, reason: &SendError) {
        let mut state = self.state();
        // In order of arrival and with one patience, so the oldest is in front.
        while state.waiting.front().is_some_and(|send| send.deadline <= now) {
            if let Some(send) = state.pop() {
                let _ = send.reply.send(Err(reason.clone()));
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
        let (mut rows, mut bytes) = (0, 0);
        while rows < max_rows && bytes < max_bytes {
            let Some(waiting) = self.pop() else { break };
            if waiting.is_gone() {
                continue;
            }
            rows += waiting.send.notifications.len();
            bytes += waiting.send.bytes();
            group.push(waiting);
        }
        group
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        let bytes = waiting.send.bytes();
        self.bytes -= bytes;
        if let Some(of_app) = self.by_app.get_mut(waiting.send.app()) {
            *of_app -= bytes;
            if *of_app == 0 {
                self.by_app.remove(waiting.send.app());
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Audience, User};
    use crate::notification::{Data, NewNotification};

    type Reply = oneshot::Receiver<Result<Stored, SendError>>;

    fn queue() -> Queue {
        Queue::new(Arc::default())
    }

    fn send(app: &str, bytes: usize) -> (Waiting, Reply) {
        let (reply, answer) = oneshot::channel();
        let notification = NewNotification {
            app: App::try_from(app).unwrap(),
            audience: Audience::User(User::try_from("ada").unwrap()),
            event: None,
            data: Data::from_text(&"x".repeat(bytes)).unwrap(),
            expires_in: None,
            replaces: None,
        };
        let send = NewSend { notifications: vec![notification], key: None };
        (Waiting { send, deadline: Instant::now(), reply }, answer)
    }

    /// Sends of 1 MiB until the queue refuses one; how many it took.
    fn fill(queue: &Queue, app: &str, replies: &mut Vec<Reply>) -> usize {
        let mut taken = 0;
        loop {
            let (send, reply) = send(app, 1 << 20);
            match queue.push(send) {
                Ok(()) => taken += 1,
                Err(SendError::Overloaded) => return taken,
                Err(other) => panic!("{other}"),
            }
            replies.push(reply);
        }
    }

    #[tokio::test]
    async fn one_app_fills_a_quarter_and_leaves_the_rest_to_others() {
        let (queue, mut replies) = (queue(), Vec::new());
        for app in ["a", "b", "c"] {
            assert_eq!(
                fill(&queue, app, &mut replies),
                15,
                "{app}: 16 MiB less what is held beside the data"
            );
            assert!(queue.push(send("small", 100).0).is_ok(), "{app}");
        }
        fill(&queue, "d", &mut replies);
        fill(&queue, "e", &mut replies);
        assert!(queue.state().bytes <= MAX_BYTES, "bounded over all apps");
        assert!(queue.push(send("a", 1 << 20).0).is_err());

        // What is taken out makes room again, for each app its own.
        queue.take_group(1, usize::MAX);
        assert!(queue.push(send("a", 1 << 20).0).is_ok());
        assert!(queue.push(send("b", 1 << 20).0).is_err());
    }

    #[tokio::test]
    async fn a_group_is_bounded_in_rows_and_bytes_and_leaves_out_who_has_gone() {
        let queue = queue();
        let mut replies = Vec::new();
        for _ in 0..8 {
            let (send, reply) = send("a", 1000);
            queue.push(send).unwrap();
            replies.push(reply);
        }
        replies.remove(1);
        assert_eq!(queue.take_group(3, usize::MAX).len(), 3);
        assert_eq!(queue.take_group(100, 2000).len(), 2);
        assert_eq!(queue.take_group(100, usize::MAX).len(), 2);
        let state = queue.state();
        assert_eq!((state.bytes, state.by_app.len(), state.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn whoever_has_waited_too_long_is_told_and_never_appended() {
        let queue = queue();
        let (old, told) = send("a", 1);
        let now = old.deadline;
        let (mut young, _waits) = send("a", 1);
        young.deadline = now + std::time::Duration::from_secs(1);
        queue.push(old).unwrap();
        queue.push(young).unwrap();
        queue.expire(now, &SendError::Unreachable);
        assert!(matches!(told.await.unwrap(), Err(SendError::Unreachable)));
        assert_eq!(queue.take_group(10, usize::MAX).len(), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let queue = queue();
        let (first, _reply) = send("a", 1);
        queue.push(first).unwrap();
        queue.close();
        assert!(queue.filled().await);
        assert!(matches!(queue.push(send("a", 1).0), Err(SendError::Draining)));
        assert_eq!(queue.take_group(10, usize::MAX).len(), 1);
        assert!(!queue.filled().await);
    }
}
