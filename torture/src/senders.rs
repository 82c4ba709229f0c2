//! Concurrent senders over HTTP. One with an idempotency key repeats its send until it is answered
//! for good, on whatever instance; one without never repeats.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use wire::Outcome;
use wire::http::Connection;

use crate::compose::Composed;
use crate::history::{Event, Recorder, SendNumber};
use crate::plan::APPS;

/// Above the time in which a server must have answered: 5 s in its queue and 15 s of finding out.
const PATIENCE: Duration = Duration::from_secs(25);
const LONGEST_PAUSE: u64 = 40; // ms, between two sends of one sender
const RETRY: Duration = Duration::from_millis(100);
const MARKER_RETRY: Duration = Duration::from_millis(20); // adds to every measured recovery
/// Of 20 connections, how often the next send takes another one although this one works.
const CHANGE_IN_20: u32 = 1;
/// Of so many sends with a key, one is made twice at once.
const TWIN_IN: u32 = 8;
/// Ids that newcomers may begin after: enough for several pages.
const REMEMBERED: usize = 3000;

/// Where requests can go: the balancer, and past it to an instance.
#[derive(Clone)]
pub(crate) struct Addresses {
    pub(crate) balancer: SocketAddr,
    pub(crate) instances: Vec<SocketAddr>,
}

impl Addresses {
    /// The balancer in three of five cases, as in most installations.
    pub(crate) fn choose(&self, rng: &mut Rng) -> (SocketAddr, String) {
        if rng.u32(..5) < 3 {
            return self.balancer();
        }
        let number = rng.usize(..self.instances.len());
        (self.instances[number], number.to_string())
    }

    /// As if there were no balancer and no other instance.
    pub(crate) fn only_first(&self) -> Self {
        Self { balancer: self.instances[0], instances: self.instances[..1].to_vec() }
    }

    pub(crate) fn balancer(&self) -> (SocketAddr, String) {
        (self.balancer, "balancer".to_owned())
    }
}

/// What all senders share.
pub(crate) struct Office {
    pub(crate) recorder: Recorder,
    pub(crate) addresses: Addresses,
    next: AtomicU64,
    in_flight: AtomicUsize,
    acknowledged: Mutex<VecDeque<Ulid>>,
}

impl Office {
    pub(crate) fn new(recorder: Recorder, addresses: Addresses) -> Arc<Self> {
        let (next, in_flight) = (AtomicU64::new(1), AtomicUsize::new(0));
        Arc::new(Self { recorder, addresses, next, in_flight, acknowledged: Mutex::default() })
    }

    /// One of the last ids that were acknowledged, if there are any.
    pub(crate) fn some_id(&self, rng: &mut Rng) -> Option<Ulid> {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        (!known.is_empty()).then(|| known[rng.usize(..known.len())])
    }

    fn remember(&self, ids: &[Ulid]) {
        let mut known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(ids);
        let excess = known.len().saturating_sub(REMEMBERED);
        known.drain(..excess);
    }

    pub(crate) fn next_number(&self) -> SendNumber {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Requests that were written and not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Sends to everyone in every app, and returns when that is stored.
    pub(crate) async fn mark(self: &Arc<Self>, marker: u64) {
        let sends = APPS.map(|app| {
            let office = self.clone();
            tokio::spawn(async move {
                let mut sender = Sender::new(office, usize::MAX, Rng::new());
                let send = Composed::marker(sender.office.next_number(), app, marker);
                sender.deliver(&send, MARKER_RETRY, true).await;
            })
        });
        for send in sends {
            let _ = send.await;
        }
    }
}

/// One that sends, one send after the other.
pub(crate) struct Sender {
    office: Arc<Office>,
    number: usize,
    rng: Rng,
    connection: Option<(Connection, String)>,
}

/// What an attempt told about the send.
enum Told {
    /// Nothing will change any more.
    Settled,
    /// It is, or may be, not stored.
    Open,
}

impl Sender {
    pub(crate) fn new(office: Arc<Office>, number: usize, rng: Rng) -> Self {
        Self { office, number, rng, connection: None }
    }

    /// Sends until `stop`; then a send with a key is still brought to its end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let send = Composed::random(self.office.next_number(), &mut self.rng);
            self.deliver(&send, RETRY, false).await;
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..LONGEST_PAUSE))).await;
        }
    }

    async fn deliver(&mut self, send: &Composed, retry: Duration, by_balancer: bool) {
        let Composed { number, app, way, key, event, rows, .. } = send.clone();
        self.office.recorder.note(Event::Send {
            send: number,
            sender: self.number,
            app: app.to_owned(),
            by: way,
            key: key.clone(),
            event,
            rows,
            fleeting: send.is_fleeting(),
        });
        let request = send.request();
        let mut attempt = 1;
        if key.is_some() && self.rng.u32(..TWIN_IN) == 0 {
            // Two at once: one of them waits for the other, on whatever instance.
            let mut twin = Self::new(self.office.clone(), self.number, self.rng.fork());
            let told = tokio::join!(
                self.attempt(number, 1, request.as_bytes(), by_balancer),
                twin.attempt(number, 2, request.as_bytes(), by_balancer)
            );
            if matches!(told, (Told::Settled, Told::Settled)) {
                return;
            }
            attempt = 3;
        }
        loop {
            let told = self.attempt(number, attempt, request.as_bytes(), by_balancer).await;
            if matches!(told, Told::Settled) || key.is_none() {
                return;
            }
            attempt += 1;
            tokio::time::sleep(retry).await;
        }
    }

    async fn attempt(
        &mut self,
        send: SendNumber,
        attempt: u32,
        request: &[u8],
        by_balancer: bool,
    ) -> Told {
        if self.rng.u32(..20) < CHANGE_IN_20 {
            self.connection = None;
        }
        let (mut connection, to) = match self.connection.take() {
            Some(open) => open,
            None => match self.connect(by_balancer).await {
                Ok(open) => open,
                Err((to, error)) => {
                    let recorder = &self.office.recorder;
                    recorder.note(Event::Attempt { send, attempt, to });
                    recorder.note(Event::Broke {
                        send,
                        attempt,
                        how: format!("not connected: {error}"),
                    });
                    return Told::Open;
                }
            },
        };
        let recorder = &self.office.recorder;
        recorder.note(Event::Attempt { send, attempt, to: to.clone() });
        self.office.in_flight.fetch_add(1, Ordering::Relaxed);
        let called = tokio::time::timeout(PATIENCE, connection.call(request)).await;
        self.office.in_flight.fetch_sub(1, Ordering::Relaxed);
        let how = match called {
            Ok(Ok(answer)) => {
                let status = answer.status;
                let Body { id, ids, problem } = Body::of(answer.body);
                let ids: Vec<Ulid> = id.into_iter().chain(ids).collect();
                let problem = problem.and_then(|kind| kind.rsplit(':').next().map(str::to_owned));
                self.office.remember(&ids);
                recorder.note(Event::Answer { send, attempt, status, ids, problem });
                self.connection = Some((connection, to));
                return if status == 503 { Told::Open } else { Told::Settled };
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        recorder.note(Event::Broke { send, attempt, how });
        Told::Open
    }

    async fn connect(
        &mut self,
        by_balancer: bool,
    ) -> Result<(Connection, String), (String, String)> {
        let addresses = &self.office.addresses;
        let (address, to) =
            if by_balancer { addresses.balancer() } else { addresses.choose(&mut self.rng) };
        let opened: Outcome<Connection> =
            wire::timely("connecting", Connection::open(address)).await;
        opened.map(|open| (open, to.clone())).map_err(|error| (to, error.to_string()))
    }
}

/// What the tester reads of an answer, whatever it was.
#[derive(Deserialize, Default)]
struct Body {
    id: Option<Ulid>,
    #[serde(default)]
    ids: Vec<Ulid>,
    #[serde(rename = "type")]
    problem: Option<String>,
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}
