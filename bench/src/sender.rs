//! Sends notifications over keep-alive connections, in a loop or at a constant rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::http::Connection;
use crate::target::send_head;
use crate::{Outcome, payload, timely};

const BEFORE_FIRST: Duration = Duration::from_millis(50); // the pacer's thread is up by then

/// A request that sends, all but its number.
pub(crate) struct Envelope {
    request: Vec<u8>,
}

impl Envelope {
    pub(crate) fn new(address: SocketAddr, app: &str, user: &str) -> Self {
        let body = format!("{{\"data\":{}}}", payload::data(0));
        let head = send_head(address, &format!("{app}/{user}"), body.len());
        Self { request: format!("{head}{body}").into_bytes() }
    }

    /// The request that sends to everyone in an app.
    pub(crate) fn to_everyone(address: SocketAddr, app: &str) -> Self {
        let body = format!("{{\"to\":\"everyone\",\"data\":{}}}", payload::data(0));
        let head = send_head(address, app, body.len());
        Self { request: format!("{head}{body}").into_bytes() }
    }
}

/// One connection that sends.
pub(crate) struct Sender {
    connection: Connection,
    request: Vec<u8>,
}

impl Sender {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        Ok(Self { connection: Connection::open(address).await?, request: Vec::with_capacity(1024) })
    }

    /// Sends one notification and returns the id it was promised.
    pub(crate) async fn send(&mut self, envelope: &Envelope, number: u64) -> Outcome<Ulid> {
        self.request.clear();
        self.request.extend_from_slice(&envelope.request);
        payload::renumber(&mut self.request, "}".len(), number);
        let answer = timely("a send", self.connection.call(&self.request)).await?;
        if answer.status != 201 {
            return Err(answer.refused("a send"));
        }
        id_in(answer.body).ok_or_else(|| answer.refused("a send (without an id)"))
    }
}

/// The id in `{"id":"01…","created_at":…}`; cheaper than parsing the whole answer.
fn id_in(body: &[u8]) -> Option<Ulid> {
    const NAME: &[u8] = b"\"id\":\"";
    let start = memchr::memmem::find(body, NAME)? + NAME.len();
    let text = body.get(start..start + ulid::ULID_LEN)?;
    Ulid::from_string(str::from_utf8(text).ok()?).ok()
}

/// A send that is due.
pub(crate) struct Tick {
    pub(crate) number: u64,
    pub(crate) due: Instant,
}

/// Is told when sends are written and answered.
pub(crate) trait Watch: Send + Sync + 'static {
    /// Just before the request's bytes are handed to the kernel.
    fn writing(&self, _tick: &Tick) {}
    fn answered(&self, tick: &Tick, id: Ulid);
}

/// Sends at a constant rate, whatever the server does (an open loop): number `n` goes to envelope
/// `n % envelopes`, on whichever connection is free first.
pub(crate) struct Paced {
    pub(crate) rate: u32,
    pub(crate) count: u64,
    pub(crate) connections: usize,
}

impl Paced {
    pub(crate) async fn run<W: Watch>(
        &self,
        address: SocketAddr,
        envelopes: Arc<[Envelope]>,
        watch: Arc<W>,
    ) -> Outcome<()> {
        let mut senders = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            senders.push(Sender::open(address).await?);
        }
        let ticks = Arc::new(Mutex::new(pace(self.rate, self.count)));
        let mut tasks = JoinSet::new();
        for mut sender in senders {
            let (ticks, envelopes, watch) = (ticks.clone(), envelopes.clone(), watch.clone());
            tasks.spawn(async move {
                while let Some(tick) = next(&ticks).await {
                    let place = usize::try_from(tick.number)? % envelopes.len();
                    watch.writing(&tick);
                    let id = sender.send(&envelopes[place], tick.number).await?;
                    watch.answered(&tick, id);
                }
                Ok(())
            });
        }
        join_all(tasks).await
    }
}

async fn next(ticks: &Mutex<mpsc::UnboundedReceiver<Tick>>) -> Option<Tick> {
    ticks.lock().await.recv().await
}

/// Ends at the first failure; the other tasks are then aborted.
pub(crate) async fn join_all(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The clock of an open loop, on a thread of its own: tokio's timer knows whole milliseconds only.
fn pace(rate: u32, count: u64) -> mpsc::UnboundedReceiver<Tick> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let start = Instant::now() + BEFORE_FIRST;
    std::thread::spawn(move || {
        for number in 0..count {
            let due = start + Duration::from_secs_f64(number as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(Tick { number, due }).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_in_the_answer() {
        let body =
            br#"{"id":"01KB0000000000000000000001","created_at":"2026-11-22T12:00:00.123Z"}"#;
        assert_eq!(id_in(body).unwrap().to_string(), "01KB0000000000000000000001");
        assert_eq!(id_in(br#"{"id":"17"}"#), None);
    }

    #[tokio::test]
    async fn a_constant_rate_is_kept() {
        let mut ticks = pace(1000, 50);
        let mut dues = Vec::new();
        while let Some(tick) = ticks.recv().await {
            assert!(Instant::now() >= tick.due);
            dues.push(tick.due);
        }
        assert_eq!(dues.len(), 50);
        assert_eq!((dues[49] - dues[0]).as_millis(), 49);
    }
}
