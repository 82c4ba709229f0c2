//! Latency from send to delivery while notifications are sent at a constant rate (open loop): a
//! server that stalls is charged for every send that was due meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ulid::Ulid;

use crate::report::Figures;
use crate::sender::{Envelope, Paced, Tick, Watch};
use crate::stats::Samples;
use crate::subscriber;
use crate::target::Target;
use crate::{Outcome, random_name, users};

const PERCENTS: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Sends a second.
    #[arg(long, default_value_t = 1000)]
    pub(crate) rate: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u32,
    /// Seconds at the same rate before that; checked, but not measured.
    #[arg(long, default_value_t = 2)]
    pub(crate) warm_up: u32,
    /// The sends go round these users, each with one live stream.
    #[arg(long, default_value_t = 16)]
    pub(crate) users: usize,
    /// Keep-alive connections; a send that finds none free waits, which counts.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    Ok(send(options, target).await?.figures())
}

/// Sends, and checks that everything arrived.
pub(crate) async fn send(options: &Options, target: &Target) -> Outcome<Arc<Times>> {
    let address = target.address;
    let (app, users) = (random_name("latency"), users(options.users));
    let count = u64::from(options.rate) * u64::from(options.seconds + options.warm_up);
    let skipped = usize::try_from(options.rate * options.warm_up)?;
    let times = Arc::new(Times::new(usize::try_from(count)?, skipped, users.len()));
    let sink = times.clone();
    let parsed = Arc::new(move |number| sink.parsed(number));
    let subscribers = subscriber::open_all(address, &app, &users, &parsed).await?;

    let envelopes = users.iter().map(|user| Envelope::new(address, &app, user)).collect();
    let paced = Paced { rate: options.rate, count, connections: options.connections };
    paced.run(address, envelopes, times.clone()).await?;
    let promised = times.promised();
    subscriber::verify(&subscribers, |user| &promised[user]).await?;
    Ok(times)
}

/// When each notification was due, written, answered and parsed, in nanoseconds since the start.
pub(crate) struct Times {
    /// Of the warm-up.
    skipped: usize,
    start: Instant,
    sends: Vec<Send>,
    promised: Vec<Mutex<Vec<Ulid>>>,
}

#[derive(Default)]
struct Send {
    due: AtomicU64,
    written: AtomicU64,
    answered: AtomicU64,
    parsed: AtomicU64,
}

impl Times {
    pub(crate) fn new(count: usize, skipped: usize, users: usize) -> Self {
        Self {
            skipped,
            start: Instant::now(),
            sends: (0..count).map(|_| Send::default()).collect(),
            promised: (0..users).map(|_| Mutex::default()).collect(),
        }
    }

    fn send(&self, number: u64) -> &Send {
        &self.sends[usize::try_from(number).expect("it was a usize")]
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from((at - self.start).as_nanos()).expect("runs end within centuries")
    }

    pub(crate) fn parsed(&self, number: u64) {
        self.send(number).parsed.store(self.nanos(Instant::now()), Ordering::Relaxed);
    }

    pub(crate) fn promised(&self) -> Vec<Vec<Ulid>> {
        let take = |ids: &Mutex<Vec<Ulid>>| {
            std::mem::take(&mut *ids.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.promised.iter().map(take).collect()
    }

    /// From written to parsed, of what was written in a span of time.
    pub(crate) fn delivery(&self, from: Instant, to: Instant) -> Samples {
        let span = self.nanos(from)..self.nanos(to);
        let mut samples = Samples::default();
        for send in &self.sends {
            let written = send.written.load(Ordering::Relaxed);
            if written > 0 && span.contains(&written) {
                samples.push_nanos(send.parsed.load(Ordering::Relaxed).saturating_sub(written));
            }
        }
        samples
    }

    fn span(&self, from: fn(&Send) -> &AtomicU64, to: fn(&Send) -> &AtomicU64) -> Samples {
        let mut samples = Samples::default();
        for send in &self.sends[self.skipped..] {
            let (from, to) = (from(send), to(send));
            samples.push_nanos(to.load(Ordering::Relaxed) - from.load(Ordering::Relaxed));
        }
        samples
    }

    /// What a send waits, with what it is late because others waited.
    pub(crate) fn due_to_answered(&self) -> Samples {
        self.span(|send| &send.due, |send| &send.answered)
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        let mut delivery = self.span(|send| &send.written, |send| &send.parsed);
        figures.add_latency("written to delivered", &mut delivery, &PERCENTS);
        let mut intended = self.span(|send| &send.due, |send| &send.parsed);
        figures.add_latency("due to delivered", &mut intended, &PERCENTS);
        let mut answer = self.span(|send| &send.written, |send| &send.answered);
        figures.add_latency("written to 201", &mut answer, &PERCENTS);
        figures
    }
}

impl Watch for Times {
    fn writing(&self, tick: &Tick) {
        let send = self.send(tick.number);
        send.due.store(self.nanos(tick.due), Ordering::Relaxed);
        send.written.store(self.nanos(Instant::now()), Ordering::Relaxed);
    }

    fn answered(&self, tick: &Tick, id: Ulid) {
        self.send(tick.number).answered.store(self.nanos(Instant::now()), Ordering::Relaxed);
        let user = usize::try_from(tick.number).expect("it was a usize") % self.promised.len();
        self.promised[user].lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}
