//! Subscribers. A steady one comes back when its stream ends, as EventSource would; a restless one is
//! also cut, stops reading, goes away, and moves between instances. Each notes every frame it gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use wire::Outcome;
use wire::stream::Stream;

use crate::history::{Event, Recorder};
use crate::plan::ClientPlan;
use crate::senders::Addresses;

/// The heartbeat is 1 s: a stream that is silent for so long is dead, and nobody else will say so.
const SILENCE: Duration = Duration::from_secs(4);
const DEFAULT_RETRY: u64 = 1000; // ms; what EventSource does before it is told is up to the browser
/// As a message of the program itself, in the data of a marker.
const MARKER: &str = "\"marker\":";

/// What all clients share, and what is known of them.
pub(crate) struct Audience {
    pub(crate) recorder: Recorder,
    pub(crate) addresses: Addresses,
    /// The highest marker that each has received, by number.
    markers: Vec<AtomicU64>,
    live: Vec<AtomicU64>,
    /// One of the two has changed.
    changed: Notify,
    /// From here on restless clients are steady.
    pub(crate) calm: CancellationToken,
    pub(crate) stop: CancellationToken,
    /// Steady clients, by number.
    pub(crate) steady: Vec<usize>,
}

impl Audience {
    pub(crate) fn new(recorder: Recorder, addresses: Addresses, plans: &[ClientPlan]) -> Arc<Self> {
        let steady = (0..plans.len()).filter(|number| plans[*number].steady).collect();
        Arc::new(Self {
            recorder,
            addresses,
            markers: plans.iter().map(|_| AtomicU64::new(0)).collect(),
            live: plans.iter().map(|_| AtomicU64::new(0)).collect(),
            changed: Notify::new(),
            calm: CancellationToken::new(),
            stop: CancellationToken::new(),
            steady,
        })
    }

    /// Waits until these clients have received the marker; at the deadline returns who has not.
    pub(crate) async fn have_marker(
        &self,
        clients: &[usize],
        marker: u64,
        deadline: Duration,
    ) -> Vec<usize> {
        self.until(clients, &self.markers, marker, deadline).await
    }

    /// Waits until every client has been live once.
    pub(crate) async fn all_live(&self, deadline: Duration) -> Vec<usize> {
        let all: Vec<usize> = (0..self.live.len()).collect();
        self.until(&all, &self.live, 1, deadline).await
    }

    async fn until(
        &self,
        clients: &[usize],
        values: &[AtomicU64],
        enough: u64,
        deadline: Duration,
    ) -> Vec<usize> {
        let deadline = Instant::now() + deadline;
        loop {
            let changed = self.changed.notified();
            let lacks = |client: &&usize| values[**client].load(Ordering::Acquire) < enough;
            let missing: Vec<usize> = clients.iter().filter(lacks).copied().collect();
            if missing.is_empty() || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return missing;
            }
        }
    }

    /// Nobody waits for a visitor.
    fn saw(&self, values: &[AtomicU64], client: usize, value: u64) {
        let Some(known) = values.get(client) else { return };
        known.fetch_max(value, Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// One subscriber over all its connections.
pub(crate) struct Client {
    audience: Arc<Audience>,
    number: usize,
    plan: ClientPlan,
    rng: Rng,
    cursor: Option<Ulid>,
    retry: Duration,
    connection: u32,
    /// How long to stay away this time, instead of `retry`.
    pause: Option<Duration>,
    /// Where to connect next, if not wherever.
    next: Option<(SocketAddr, String)>,
}

/// What a restless client does next to its stream.
#[derive(Clone, Copy, Debug)]
enum Mischief {
    /// A reset, and whatever is on the way is lost.
    Cut,
    /// Reads nothing for a while, then goes on.
    Stall,
    /// Leaves in good order and comes back to a certain instance at once.
    Move,
    /// A reset, and comes back much later.
    Away,
}

impl Client {
    pub(crate) fn new(audience: Arc<Audience>, number: usize, plan: ClientPlan, rng: Rng) -> Self {
        let retry = Duration::from_millis(DEFAULT_RETRY);
        Self {
            audience,
            number,
            plan,
            rng,
            cursor: None,
            retry,
            connection: 0,
            pause: None,
            next: None,
        }
    }

    /// Comes once, after an old id, is cut like a restless one, and never returns.
    pub(crate) async fn visit(mut self, after: Ulid) {
        self.cursor = Some(after);
        self.introduce();
        let calm = self.audience.calm.clone();
        calm.run_until_cancelled_owned(self.once()).await;
        self.audience.recorder.note(Event::Left { client: self.number });
    }

    fn introduce(&self) {
        let ClientPlan { app, user, topics, steady } = self.plan.clone();
        self.audience.recorder.note(Event::Client {
            client: self.number,
            app: app.to_owned(),
            user: user.to_owned(),
            topics: topics.into_iter().map(str::to_owned).collect(),
            steady,
        });
    }

    /// Listens until it is told to stop.
    pub(crate) async fn run(mut self) {
        self.introduce();
        let stop = self.audience.stop.clone();
        stop.run_until_cancelled_owned(async {
            loop {
                self.once().await;
                tokio::time::sleep(self.pause.take().unwrap_or(self.retry)).await;
            }
        })
        .await;
    }

    /// One connection from its beginning to its end.
    async fn once(&mut self) {
        self.connection += 1;
        let how = match self.connect().await {
            Ok(stream) => self.listen(stream).await,
            Err(error) => format!("not connected: {error}"),
        };
        let (client, connection) = (self.number, self.connection);
        self.audience.recorder.note(Event::Close { client, connection, how });
    }

    async fn connect(&mut self) -> Outcome<Stream> {
        let addresses = &self.audience.addresses;
        let (address, to) = match self.next.take() {
            Some(next) => next,
            None if self.is_steady() => addresses.balancer(),
            None => addresses.choose(&mut self.rng),
        };
        let stream = Stream::open(address, self.request().as_bytes()).await?;
        let (client, connection, cursor) = (self.number, self.connection, self.cursor);
        self.audience.recorder.note(Event::Open { client, connection, to, cursor });
        Ok(stream)
    }

    fn request(&self) -> String {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let ClientPlan { app, user, topics, .. } = &self.plan;
        let topics: Vec<String> = topics.iter().map(|topic| encode(topic)).collect();
        let topics =
            if topics.is_empty() { String::new() } else { format!("?topics={}", topics.join(",")) };
        let cursor = self.cursor.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        format!(
            "GET /api/notifications/subscribe/{app}/{}{topics} HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n{cursor}\r\n",
            encode(user)
        )
    }

    fn is_steady(&self) -> bool {
        self.plan.steady || self.audience.calm.is_cancelled()
    }

    /// Reads until the stream ends; returns how.
    async fn listen(&mut self, mut stream: Stream) -> String {
        let audience = self.audience.clone();
        let mut mischief = self.next_mischief();
        loop {
            while let Some(frame) = stream.next_frame() {
                let raw = String::from_utf8_lossy(frame.raw).into_owned();
                let retry = frame.retry.and_then(number);
                if let Some(id) =
                    frame.id.and_then(|id| Ulid::from_string(str::from_utf8(id).ok()?).ok())
                {
                    self.cursor = Some(id);
                }
                if frame.event == b"tidings.live" {
                    audience.saw(&audience.live, self.number, 1);
                }
                self.note(raw, retry);
            }
            let (at, kind) = mischief;
            tokio::select! {
                read = tokio::time::timeout(SILENCE, stream.fill()) => match read {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return "ended by the server".to_owned(),
                    Ok(Err(error)) => return format!("broke: {error}"),
                    Err(_) => return format!("left after {SILENCE:?} of silence"),
                },
                () = tokio::time::sleep_until(at), if !self.is_steady() => {
                    match kind {
                        Mischief::Stall => tokio::time::sleep(self.between(500, 3000)).await,
                        _ => return self.leave(kind, stream),
                    }
                    mischief = self.next_mischief();
                }
            }
        }
    }

    fn note(&mut self, raw: String, retry: Option<u64>) {
        let audience = &self.audience;
        let marker = raw
            .split_once(MARKER)
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        let (client, connection) = (self.number, self.connection);
        audience.recorder.note(Event::Frame { client, connection, raw });
        if let Some(retry) = retry {
            self.retry = Duration::from_millis(retry);
        }
        if let Some(marker) = marker {
            audience.saw(&audience.markers, client, marker);
        }
    }

    /// Ends the connection on purpose, and decides where and when to come back.
    fn leave(&mut self, kind: Mischief, stream: Stream) -> String {
        if matches!(kind, Mischief::Move) {
            drop(stream);
            let instances = &self.audience.addresses.instances;
            let instance = self.rng.usize(..instances.len());
            self.next = Some((instances[instance], instance.to_string()));
            self.pause = Some(Duration::ZERO);
            return "left".to_owned();
        }
        let longest = if matches!(kind, Mischief::Away) { 8000 } else { 500 };
        self.pause = Some(self.between(longest / 8, longest));
        match stream.cut() {
            Ok(()) => "cut".to_owned(),
            Err(error) => format!("cut: {error}"),
        }
    }

    fn between(&mut self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(self.rng.u64(shortest..=longest))
    }

    fn next_mischief(&mut self) -> (Instant, Mischief) {
        let kinds = [Mischief::Cut, Mischief::Cut, Mischief::Stall, Mischief::Move, Mischief::Away];
        let kind = kinds[self.rng.usize(..kinds.len())];
        (Instant::now() + self.between(100, 4000), kind)
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}
