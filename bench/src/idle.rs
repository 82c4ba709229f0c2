//! Memory of the server for each idle stream: resident memory of its process alone, before, and after
//! the streams have been open for a while. Both sides are on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::report::Figures;
use crate::stream::Stream;
use crate::subscriber::Subscriber;
use crate::target::{Target, subscribe_head};
use crate::{Outcome, machine, random_name, users};

const OPEN_AT_ONCE: usize = 64; // under the backlog of a listening socket
const PER_SOURCE: usize = 5000; // well below the ports of one source address

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Streams to open, each of a user of its own.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Seconds between the last stream's opening and the second look.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// The server's process id, if it is given by --url.
    #[arg(long)]
    pid: Option<u32>,
    /// The server's heartbeat in seconds: a stream without a ping in twice that time has failed.
    #[arg(long, default_value_t = 10)]
    heartbeat: u64,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let spawned = target.server.as_ref().map(crate::spawn::Server::pid);
    let pid = options.pid.or(spawned).ok_or("--pid is needed with --url")?;
    let (app, users) = (random_name("idle"), users(options.connections));

    let before = machine::resident_kib(pid)?;
    let start = Instant::now();
    let opening = users.into_iter().enumerate().map(|(n, user)| open(target, &app, n, user));
    let subscribers: Vec<_> = stream::iter(opening).buffered(OPEN_AT_ONCE).try_collect().await?;
    let opening = start.elapsed();
    let opened = machine::resident_kib(pid)?;
    tokio::time::sleep(Duration::from_secs(options.settle)).await;
    let settled = machine::resident_kib(pid)?;
    check(options, &subscribers)?;

    let each = |after: u64| (after as f64 - before as f64) / options.connections as f64;
    let mut figures = Figures::default();
    figures.add("opened", options.connections as f64 / opening.as_secs_f64(), "streams/s");
    figures.add("server before", before as f64 / 1024.0, "MiB");
    figures.add("server with all streams open", opened as f64 / 1024.0, "MiB");
    figures.add("server after the settle", settled as f64 / 1024.0, "MiB");
    figures.add("per stream, just opened", each(opened), "KiB");
    figures.add("per stream, after the settle", each(settled), "KiB");
    let postgres = machine::descendants_kib(pid) as f64 / 1024.0;
    figures.add("its private Postgres (not in the above)", postgres, "MiB");
    Ok(figures)
}

async fn open(target: &Target, app: &str, number: usize, user: String) -> Outcome<Subscriber> {
    let request = subscribe_head(target.address, app, &user, None);
    let stream = match source(target, number) {
        Some(source) => Stream::open_from(source, target.address, request.as_bytes()).await?,
        None => Stream::open(target.address, request.as_bytes()).await?,
    };
    Subscriber::follow(stream, user, Arc::new(|_| ())).await
}

/// Where to connect from, on loopback.
pub(crate) fn source(target: &Target, number: usize) -> Option<IpAddr> {
    // Every address in 127.0.0.0/8 is this machine's on Linux.
    let source = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + number / PER_SOURCE).ok()?);
    target.address.ip().is_loopback().then_some(source.into())
}

/// Idle streams are still open, silent but for pings, and pinged.
fn check(options: &Options, subscribers: &[Subscriber]) -> Outcome<()> {
    subscribers.iter().try_for_each(Subscriber::fault)?;
    let least = usize::try_from(options.settle / (2 * options.heartbeat.max(1)))?;
    let unpinged = subscribers.iter().filter(|subscriber| subscriber.pings() < least).count();
    let unasked: usize = subscribers.iter().map(Subscriber::received).sum();
    if unpinged + unasked > 0 {
        let text = "streams got too few pings; notifications nobody sent";
        return Err(format!("{unpinged} {text}: {unasked}").into());
    }
    Ok(())
}
