//! Changes of inbox state a second, each seen on another device, alone and beside sends, and what they
//! cost the sends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Connection;
use crate::report::Figures;
use crate::sender::{Envelope, Sender, join_all};
use crate::stats::Samples;
use crate::stream::Stream;
use crate::target::{Target, state_head, subscribe_head};
use crate::{Outcome, random_name, timely, users};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many clients at once; each waits for its answer, and until its user's other device was told,
    /// before it changes again.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    clients: Vec<usize>,
    /// Senders beside them, in a loop too.
    #[arg(long, default_value_t = 16)]
    senders: usize,
    /// How long each is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let mut figures = Figures::default();
    let bench = Bench { address: target.address, app: random_name("states") };
    let time = Duration::from_secs(options.seconds);
    let (alone, _) = bench.load(options.senders, 0, time).await?;
    alone.report(&format!("{} senders alone: sends", options.senders), &mut figures);
    for &clients in &options.clients {
        let (_, changes) = bench.load(0, clients, time).await?;
        changes.report(&format!("{clients} clients alone: changes"), &mut figures);
        let (sends, changes) = bench.load(options.senders, clients, time).await?;
        let both = format!("{clients} clients and {} senders:", options.senders);
        changes.report(&format!("{both} changes"), &mut figures);
        sends.report(&format!("{both} sends"), &mut figures);
    }
    Ok(figures)
}

struct Bench {
    address: SocketAddr,
    app: String,
}

/// What all tasks of one kind did.
#[derive(Default)]
struct Tally {
    latency: Samples,
    count: usize,
    seconds: f64,
}

impl Tally {
    fn report(mut self, name: &str, figures: &mut Figures) {
        figures.add(name, self.count as f64 / self.seconds, "a second");
        figures.add_latency(name, &mut self.latency, &[50.0, 99.0]);
    }
}

impl Bench {
    async fn load(
        &self,
        senders: usize,
        clients: usize,
        time: Duration,
    ) -> Outcome<(Tally, Tally)> {
        let tallies: Arc<[Mutex<Tally>; 2]> = Arc::default();
        let mut ready = Vec::with_capacity(clients);
        for user in users(clients) {
            ready.push(Client::open(self.address, &self.app, &user).await?);
        }
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        let until = start + time;
        for client in ready {
            tasks.spawn(repeat(until, tallies.clone(), 1, client));
        }
        for user in users(senders) {
            let envelope = Envelope::new(self.address, &self.app, &format!("{user}-of-senders"));
            let sender = Sender::open(self.address).await?;
            tasks.spawn(repeat(until, tallies.clone(), 0, (sender, envelope)));
        }
        join_all(tasks).await?;
        let seconds = start.elapsed().as_secs_f64();
        let [sends, changes] = [0, 1].map(|kind: usize| {
            let mut tally = tallies[kind].lock().unwrap_or_else(PoisonError::into_inner);
            tally.seconds = seconds;
            std::mem::take(&mut *tally)
        });
        Ok((sends, changes))
    }
}

/// What is done again and again.
trait Work: Send + 'static {
    fn once(&mut self, number: u64) -> impl Future<Output = Outcome<()>> + Send;
}

impl Work for (Sender, Envelope) {
    async fn once(&mut self, number: u64) -> Outcome<()> {
        self.0.send(&self.1, number).await.map(drop)
    }
}

/// Works in a loop and adds how often, and how long each time took.
async fn repeat(
    until: Instant,
    tallies: Arc<[Mutex<Tally>; 2]>,
    kind: usize,
    mut work: impl Work,
) -> Outcome<()> {
    let mut latency = Samples::default();
    let mut count = 0;
    let mut start = Instant::now();
    while start < until {
        work.once(count).await?;
        count += 1;
        let end = Instant::now();
        latency.push(end - start);
        start = end;
    }
    let mut tally = tallies[kind].lock().unwrap_or_else(PoisonError::into_inner);
    tally.count += usize::try_from(count)?;
    tally.latency.append(latency);
    Ok(())
}

/// One user who reads a notification, and takes that back, again and again.
struct Client {
    connection: Connection,
    /// The user's other device.
    device: Stream,
    read: Vec<u8>,
    unread: Vec<u8>,
}

impl Client {
    async fn open(address: SocketAddr, app: &str, user: &str) -> Outcome<Self> {
        let envelope = Envelope::new(address, app, user);
        let id = Sender::open(address).await?.send(&envelope, 0).await?;
        let request = |state: &str| {
            let body = format!("{{\"ids\":[\"{id}\"],\"state\":\"{state}\"}}");
            format!("{}{body}", state_head(address, app, user, body.len())).into_bytes()
        };
        let (read, unread) = (request("read"), request("unread"));
        let head = subscribe_head(address, app, user, None);
        let mut device = Stream::open(address, head.as_bytes()).await?;
        told(&mut device, b"tidings.live").await?;
        Ok(Self { connection: Connection::open(address).await?, device, read, unread })
    }
}

impl Work for Client {
    /// Each change is one: had the one before been lost, this one would change nothing.
    async fn once(&mut self, number: u64) -> Outcome<()> {
        let request = if number.is_multiple_of(2) { &self.read } else { &self.unread };
        let answer = timely("a change", self.connection.call(request)).await?;
        if answer.status != 200 || !answer.body.starts_with(b"{\"changed\":1,") {
            return Err(answer.refused("a change of state"));
        }
        timely("the other device", told(&mut self.device, b"tidings.state")).await
    }
}

/// Reads to the next event of this kind.
async fn told(device: &mut Stream, event: &[u8]) -> Outcome<()> {
    loop {
        while let Some(frame) = device.next_frame() {
            if frame.event == event {
                return Ok(());
            }
        }
        if !device.fill().await? {
            return Err("the other device's stream ended".into());
        }
    }
}
