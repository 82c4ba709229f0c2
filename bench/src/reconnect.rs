//! Many clients come back at the same moment, each with a cursor and some notifications missed, while
//! live delivery to others goes on. Each must get exactly what it missed, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::follower::Follower;
use crate::http::Connection;
use crate::live::Live;
use crate::report::Figures;
use crate::stats::Samples;
use crate::stream::Stream;
use crate::target::{Target, send_to_many, subscribe_head};
use crate::{Outcome, check, idle, payload, random_name, timely, users};

/// Users of one send; the contract allows no more.
const AT_ONCE: usize = 1000;
/// Live delivery alone, before the clients come.
const BEFORE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Clients, each of a user of its own.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// What each has missed.
    #[arg(long, default_value_t = 10)]
    missed: usize,
    /// Sends a second to 16 other users with live streams meanwhile.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// How long those go on.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Clients connect within this many milliseconds, evenly; 0: all in one moment.
    #[arg(long, default_value_t = 0)]
    spread: u64,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let (app, users) = (random_name("reconnect"), users(options.clients));
    let (cursor, missed) = send_missed(options, target, &app, &users).await?;
    let mut live = Live::start(target, options.rate, Duration::from_secs(options.seconds)).await?;
    let quiet = Instant::now();
    tokio::time::sleep(BEFORE).await;

    let start = Instant::now();
    let times = come_back(options, target, &app, users, cursor, missed).await?;
    let end = Instant::now();
    live.finish().await?;

    let mut figures = Figures::default();
    figures.add_latency("complete after", &mut times.complete(), &[50.0, 99.0]);
    figures.add_latency("answered after", &mut times.answered(), &[50.0, 99.0]);
    figures.add_latency("live before", &mut live.delivery(quiet, start), &[50.0, 99.0]);
    figures.add_latency("live meanwhile", &mut live.delivery(start, end), &[50.0, 99.0]);
    Ok(figures)
}

/// Sends what the clients will have missed; returns a cursor before all of it, and each client's ids.
async fn send_missed(
    options: &Options,
    target: &Target,
    app: &str,
    users: &[String],
) -> Outcome<(Ulid, Vec<Vec<Ulid>>)> {
    let mut connection = Connection::open(target.address).await?;
    let nobody = [random_name("nobody")];
    let before = send(&mut connection, target, app, &nobody, 0).await?;
    let cursor = *before.first().ok_or("a send to one user was answered without an id")?;
    let mut missed = vec![Vec::with_capacity(options.missed); users.len()];
    for number in 0..options.missed {
        for (place, users) in users.chunks(AT_ONCE).enumerate() {
            let ids = send(&mut connection, target, app, users, number as u64).await?;
            for (offset, id) in ids.into_iter().enumerate() {
                missed[place * AT_ONCE + offset].push(id);
            }
        }
    }
    Ok((cursor, missed))
}

async fn send(
    connection: &mut Connection,
    target: &Target,
    app: &str,
    users: &[String],
    number: u64,
) -> Outcome<Vec<Ulid>> {
    #[derive(serde::Deserialize)]
    struct Sent {
        ids: Vec<String>,
    }
    let request = send_to_many(target.address, app, users, &payload::data(number));
    let answer = timely("a send", connection.call(request.as_bytes())).await?;
    if answer.status != 201 {
        return Err(answer.refused("a send"));
    }
    let sent: Sent = serde_json::from_slice(answer.body)?;
    Ok(sent.ids.iter().map(|id| Ulid::from_string(id)).collect::<Result<_, _>>()?)
}

/// When each client had its answer, and when it was live.
struct Times {
    both: Vec<(Duration, Duration)>,
}

impl Times {
    fn answered(&self) -> Samples {
        samples(self.both.iter().map(|(answered, _)| *answered))
    }

    fn complete(&self) -> Samples {
        samples(self.both.iter().map(|(_, complete)| *complete))
    }
}

fn samples(all: impl Iterator<Item = Duration>) -> Samples {
    let mut samples = Samples::default();
    all.for_each(|one| samples.push(one));
    samples
}

async fn come_back(
    options: &Options,
    target: &Target,
    app: &str,
    users: Vec<String>,
    cursor: Ulid,
    missed: Vec<Vec<Ulid>>,
) -> Outcome<Times> {
    let together = Arc::new(Barrier::new(users.len() + 1));
    let mut clients = JoinSet::new();
    for (number, (user, missed)) in users.into_iter().zip(missed).enumerate() {
        let (address, source) = (target.address, idle::source(target, number));
        let request = subscribe_head(address, app, &user, Some(cursor));
        let together = together.clone();
        let wait = options.spread * number as u64 / options.clients as u64;
        clients.spawn(async move {
            together.wait().await;
            let start = Instant::now();
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let stream = match source {
                Some(source) => Stream::open_from(source, address, request.as_bytes()).await?,
                None => Stream::open(address, request.as_bytes()).await?,
            };
            let answered = start.elapsed();
            let (stream, ids) = timely("a replay", read_missed(stream, cursor)).await?;
            check::compare(&user, &missed, &ids).into_outcome()?;
            Outcome::Ok(((answered, start.elapsed()), stream))
        });
    }
    together.wait().await;
    let mut both = Vec::with_capacity(clients.len());
    // Open until the last is complete: those that are live stay.
    let mut streams = Vec::with_capacity(clients.len());
    while let Some(client) = clients.join_next().await {
        let (times, stream) = client??;
        both.push(times);
        streams.push(stream);
    }
    Ok(Times { both })
}

async fn read_missed(mut stream: Stream, cursor: Ulid) -> Outcome<(Stream, Vec<Ulid>)> {
    let mut follower = Follower { cursor: Some(cursor), ..Follower::default() };
    follower.reconnect();
    loop {
        while let Some(frame) = stream.next_frame() {
            follower.take(&frame)?;
            if follower.session.live {
                return Ok((stream, follower.ids));
            }
        }
        if !stream.fill().await? {
            return Err("the stream ended before live".into());
        }
    }
}
