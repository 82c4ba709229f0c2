//! Durable sends a second: senders in a closed loop, each notification delivered to a live stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use ulid::Ulid;

use crate::report::Figures;
use crate::sender::{Envelope, Sender, join_all};
use crate::stats::Samples;
use crate::subscriber::{self, Subscriber};
use crate::target::Target;
use crate::{Outcome, random_name, users};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many senders at once; each waits for its 201 before it sends again.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128")]
    senders: Vec<usize>,
    /// How long each number of senders is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Senders share this many users at most, each with one live stream.
    #[arg(long, default_value_t = 16)]
    users: usize,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let mut figures = Figures::default();
    for &senders in &options.senders {
        figures.append(with_senders(senders, options, target).await?);
    }
    Ok(figures)
}

async fn with_senders(senders: usize, options: &Options, target: &Target) -> Outcome<Figures> {
    let address = target.address;
    let (app, users) = (random_name("sends"), users(senders.min(options.users)));
    let subscribers = subscriber::open_all(address, &app, &users, &Arc::new(|_| ())).await?;
    let envelopes: Vec<_> =
        users.iter().map(|user| Arc::new(Envelope::new(address, &app, user))).collect();
    let mut connections = Vec::with_capacity(senders);
    for _ in 0..senders {
        connections.push(Sender::open(address).await?);
    }

    let tally: Arc<[Mutex<Tally>]> = users.iter().map(|_| Mutex::default()).collect();
    let start = Instant::now();
    let until = start + Duration::from_secs(options.seconds);
    let mut tasks = JoinSet::new();
    for (number, sender) in connections.into_iter().enumerate() {
        let (envelope, tally) = (envelopes[number % users.len()].clone(), tally.clone());
        tasks.spawn(async move {
            let own = send_until(until, sender, &envelope).await?;
            tally[number % tally.len()].lock().unwrap_or_else(PoisonError::into_inner).add(own);
            Ok(())
        });
    }
    join_all(tasks).await?;
    let elapsed = start.elapsed();
    conclude(senders, elapsed, &subscribers, &tally).await
}

/// What one sender, or all senders to one user, did.
#[derive(Default)]
struct Tally {
    latency: Samples,
    ids: Vec<Ulid>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latency.append(other.latency);
        self.ids.extend(other.ids);
    }
}

async fn send_until(until: Instant, mut sender: Sender, envelope: &Envelope) -> Outcome<Tally> {
    let mut tally = Tally::default();
    let mut start = Instant::now();
    for number in 0.. {
        tally.ids.push(sender.send(envelope, number).await?);
        let end = Instant::now();
        tally.latency.push(end - start);
        if end >= until {
            break;
        }
        start = end;
    }
    Ok(tally)
}

async fn conclude(
    senders: usize,
    elapsed: Duration,
    subscribers: &[Subscriber],
    tally: &[Mutex<Tally>],
) -> Outcome<Figures> {
    let mut latency = Samples::default();
    let mut promised = Vec::with_capacity(tally.len());
    for user in tally {
        let Tally { latency: own, ids } =
            std::mem::take(&mut *user.lock().unwrap_or_else(PoisonError::into_inner));
        latency.append(own);
        promised.push(ids);
    }
    subscriber::verify(subscribers, |user| &promised[user]).await?;

    let sent: usize = promised.iter().map(Vec::len).sum();
    let mut figures = Figures::default();
    let name = format!("{senders} senders:");
    figures.add(
        format!("{name} durable and delivered"),
        sent as f64 / elapsed.as_secs_f64(),
        "sends/s",
    );
    figures.add_latency(&format!("{name} request"), &mut latency, &[50.0, 99.0]);
    Ok(figures)
}
