//! One notification to many subscribers, of one user or of everyone in an app: how long until the last
//! of them has it, and how many deliveries a second when notifications come back to back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use ulid::Ulid;

use crate::report::Figures;
use crate::sender::{Envelope, Sender, join_all};
use crate::stats::Samples;
use crate::subscriber;
use crate::target::Target;
use crate::{Outcome, database, random_name, users};

const USER: &str = "ada";
const BURST_SENDERS: usize = 16; // one sender waits for each commit; 16 keep the groups filled

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Streams of the one user.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Each stream is of a user of its own, and the notifications are for everyone.
    #[arg(long)]
    everyone: bool,
    /// Notifications sent one by one, and again as many with --burst.
    #[arg(long, default_value_t = 300)]
    events: usize,
    /// Time between the single notifications.
    #[arg(long, default_value_t = 20)]
    gap_ms: u64,
    /// Then send as many again, back to back.
    #[arg(long)]
    burst: bool,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let address = target.address;
    let app = random_name("fanout");
    let events = options.events * (1 + usize::from(options.burst));
    let spread = Arc::new(Spread::new(events, options.subscribers));
    let sink = spread.clone();
    let parsed = Arc::new(move |number| sink.parsed(number));
    let (users, envelope) = match options.everyone {
        true => (users(options.subscribers), Envelope::to_everyone(address, &app)),
        false => (vec![USER.to_owned(); options.subscribers], Envelope::new(address, &app, USER)),
    };
    let subscribers = subscriber::open_all(address, &app, &users, &parsed).await?;
    let envelope = Arc::new(envelope);

    let gap = Duration::from_millis(options.gap_ms);
    let mut sender = Sender::open(address).await?;
    for number in 0..options.events {
        spread.send(&mut sender, &envelope, number).await?;
        tokio::time::sleep(gap).await;
    }
    let promised = spread.promised();
    subscriber::verify(&subscribers, |_| &promised).await?;
    if options.burst {
        burst(options, &spread, target, &envelope).await?;
        let promised = spread.promised();
        subscriber::verify(&subscribers, |_| &promised).await?;
    }
    one_row_each(target, &app, spread.promised()).await?;
    Ok(spread.figures(options))
}

/// However many streams a notification reached, it is one row.
async fn one_row_each(target: &Target, app: &str, mut promised: Vec<Ulid>) -> Outcome<()> {
    let Some(database_url) = target.database_url()? else { return Ok(()) };
    let stored = database::ids_of_app(&database_url, app).await?;
    promised.sort_unstable();
    match stored == promised {
        true => Ok(()),
        false => Err(format!("{} rows of {} notifications", stored.len(), promised.len()).into()),
    }
}

async fn burst(
    options: &Options,
    spread: &Arc<Spread>,
    target: &Target,
    envelope: &Arc<Envelope>,
) -> Outcome<()> {
    let next = Arc::new(AtomicUsize::new(options.events));
    let mut tasks = JoinSet::new();
    for _ in 0..BURST_SENDERS {
        let (next, spread, envelope) = (next.clone(), spread.clone(), envelope.clone());
        let mut sender = Sender::open(target.address).await?;
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= spread.events.len() {
                    return Ok(());
                }
                spread.send(&mut sender, &envelope, number).await?;
            }
        });
    }
    join_all(tasks).await
}

/// When each notification was written, and when its last subscriber had it.
struct Spread {
    start: Instant,
    events: Vec<Event>,
    promised: Mutex<Vec<Ulid>>,
}

struct Event {
    written: AtomicU64,
    left: AtomicUsize,
    complete: AtomicU64,
}

impl Spread {
    fn new(events: usize, subscribers: usize) -> Self {
        let event = |_| Event {
            written: AtomicU64::new(0),
            left: AtomicUsize::new(subscribers),
            complete: AtomicU64::new(0),
        };
        let events = (0..events).map(event).collect();
        Self { start: Instant::now(), events, promised: Mutex::default() }
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("runs end within centuries")
    }

    async fn send(&self, sender: &mut Sender, envelope: &Envelope, number: usize) -> Outcome<()> {
        self.events[number].written.store(self.nanos(), Ordering::Relaxed);
        let id = sender.send(envelope, u64::try_from(number)?).await?;
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        Ok(())
    }

    fn parsed(&self, number: u64) {
        let event = &self.events[usize::try_from(number).expect("it was a usize")];
        if event.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            event.complete.store(self.nanos(), Ordering::Relaxed);
        }
    }

    fn promised(&self) -> Vec<Ulid> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn figures(&self, options: &Options) -> Figures {
        let (single, burst) = self.events.split_at(options.events);
        let mut samples = Samples::default();
        for Event { written, complete, .. } in single {
            let (from, to) = (written.load(Ordering::Relaxed), complete.load(Ordering::Relaxed));
            samples.push_nanos(to - from);
        }
        let subscribers = options.subscribers as f64;
        let mut figures = Figures::default();
        figures.add_latency("single: written to last delivery", &mut samples, &[50.0, 99.0]);
        for percent in [50.0, 99.0] {
            let rate = subscribers / samples.percentile_ms(percent) * 1000.0;
            figures.add(format!("single: at p{percent}"), rate, "deliveries/s");
        }
        let first = burst.iter().map(|event| event.written.load(Ordering::Relaxed)).min();
        let last = burst.iter().map(|event| event.complete.load(Ordering::Relaxed)).max();
        if let (Some(first), Some(last)) = (first, last) {
            let rate = subscribers * burst.len() as f64 / ((last - first) as f64 / 1e9);
            figures.add("back to back", rate, "deliveries/s");
        }
        figures
    }
}
