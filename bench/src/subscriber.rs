//! A live stream that is read in the background, and the comparison of many of them with the ids
//! their senders were promised.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinHandle;
use ulid::Ulid;

use crate::check::{self, Verdict};
use crate::follower::{Follower, Kind};
use crate::stream::Stream;
use crate::target::subscribe_head;
use crate::{Outcome, timely};

/// Without a further notification for this long, what is not there is missing.
pub(crate) const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
/// After the last expected notification: time for one too many to arrive.
const GRACE: Duration = Duration::from_millis(300);
const OPEN_AT_ONCE: usize = 64; // under the backlog of a listening socket

/// Is told the number of every notification, as soon as it is parsed.
pub(crate) trait Sink: Fn(u64) + Send + Sync + 'static {}
impl<F: Fn(u64) + Send + Sync + 'static> Sink for F {}

/// A stream that is read until this is dropped.
pub(crate) struct Subscriber {
    pub(crate) user: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    follower: Follower,
    fault: Option<String>,
}

impl Subscriber {
    /// Returns once the stream is live: whatever is sent from now on must arrive.
    pub(crate) async fn open<S: Sink>(
        address: SocketAddr,
        app: &str,
        user: &str,
        sink: Arc<S>,
    ) -> Outcome<Self> {
        let request = subscribe_head(address, app, user, None);
        let stream = Stream::open(address, request.as_bytes()).await?;
        Self::follow(stream, user.to_owned(), sink).await
    }

    /// The same on a stream that is already open.
    pub(crate) async fn follow<S: Sink>(
        mut stream: Stream,
        user: String,
        sink: Arc<S>,
    ) -> Outcome<Self> {
        let mut follower = Follower::default();
        timely("becoming live", until_live(&mut stream, &mut follower)).await?;
        let state = Arc::new(Mutex::new(State { follower, fault: None }));
        let task = tokio::spawn(read(stream, state.clone(), sink));
        Ok(Self { user, state, task })
    }

    pub(crate) fn received(&self) -> usize {
        lock(&self.state).follower.ids.len()
    }

    pub(crate) fn pings(&self) -> usize {
        lock(&self.state).follower.pings
    }

    /// What went wrong on this stream, its end included.
    pub(crate) fn fault(&self) -> Outcome<()> {
        match &lock(&self.state).fault {
            Some(fault) => Err(format!("{}: {fault}", self.user).into()),
            None => Ok(()),
        }
    }

    fn verdict(&self, expected: &[Ulid]) -> Verdict {
        check::compare(&self.user, expected, &lock(&self.state).follower.ids)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until_live(stream: &mut Stream, follower: &mut Follower) -> Outcome<()> {
    loop {
        while let Some(frame) = stream.next_frame() {
            follower.take(&frame)?;
            if follower.session.live {
                return Ok(());
            }
        }
        if !stream.fill().await? {
            return Err(
                format!("the stream ended before live: {:?}", follower.session.goodbye).into()
            );
        }
    }
}

async fn read<S: Sink>(mut stream: Stream, state: Arc<Mutex<State>>, sink: Arc<S>) {
    loop {
        let taken = take_all(&mut stream, &mut lock(&state).follower, &*sink);
        if let Err(error) = taken {
            lock(&state).fault = Some(error.to_string());
            return;
        }
        let ended = match stream.fill().await {
            Ok(true) => continue,
            Ok(false) => "the stream ended".to_owned(),
            Err(error) => error.to_string(),
        };
        let mut state = lock(&state);
        state.fault = Some(format!("{ended}, goodbye: {:?}", state.follower.session.goodbye));
        return;
    }
}

fn take_all<S: Sink>(stream: &mut Stream, follower: &mut Follower, sink: &S) -> Outcome<()> {
    while let Some(frame) = stream.next_frame() {
        if let Kind::Notification(number) = follower.take(&frame)? {
            sink(number);
        }
    }
    Ok(())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens one stream for each user.
pub(crate) async fn open_all<S: Sink>(
    address: SocketAddr,
    app: &str,
    users: &[String],
    sink: &Arc<S>,
) -> Outcome<Vec<Subscriber>> {
    let opening = users.iter().map(|user| Subscriber::open(address, app, user, sink.clone()));
    stream::iter(opening).buffered(OPEN_AT_ONCE).try_collect().await
}

/// Waits for everything that was promised, then compares: subscriber `i` with `expected(i)`.
pub(crate) async fn verify<'a>(
    subscribers: &[Subscriber],
    expected: impl Fn(usize) -> &'a [Ulid],
) -> Outcome<()> {
    let mut before = usize::MAX;
    let mut last_progress = Instant::now();
    loop {
        subscribers.iter().try_for_each(Subscriber::fault)?;
        let missing = |(place, subscriber): (usize, &Subscriber)| {
            expected(place).len().saturating_sub(subscriber.received())
        };
        let left: usize = subscribers.iter().enumerate().map(missing).sum();
        if left < before {
            (before, last_progress) = (left, Instant::now());
        }
        if left == 0 || last_progress.elapsed() > SILENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(GRACE).await;
    let mut verdict = Verdict::default();
    for (place, subscriber) in subscribers.iter().enumerate() {
        subscriber.fault()?;
        verdict.add(subscriber.verdict(expected(place)));
    }
    verdict.into_outcome()
}
