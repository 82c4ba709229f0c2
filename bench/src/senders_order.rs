//! Two servers on one database: do ids become visible in id order to anyone who reads by cursor, and
//! does throughput hold while an old snapshot is open?

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use ulid::Ulid;

use crate::database::{HeldSnapshot, Reader};
use crate::report::Figures;
use crate::sender::{Envelope, Sender, join_all};
use crate::spawn::Server;
use crate::target::Source;
use crate::{Outcome, check, random_name};

const WINDOW: Duration = Duration::from_secs(5);
const BETWEEN_PAGES: Duration = Duration::from_millis(2); // a reader that spins takes a core

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many senders at once, in turn on the two servers.
    #[arg(long, default_value_t = 16)]
    senders: usize,
    /// How long to send, at least one window of 5 seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Readers by cursor, in SQL.
    #[arg(long, default_value_t = 2)]
    readers: usize,
    /// Measure again on fresh servers while a repeatable read transaction is held open.
    #[arg(long)]
    hold_snapshot: bool,
}

pub(crate) async fn run(options: &Options, source: &Source) -> Outcome<Figures> {
    let Source::Program { path, database_url } = source else {
        return Err("senders-order starts both servers itself: use --spawn, not --url".into());
    };
    let mut figures = on_two_servers(options, path, database_url.as_deref(), false).await?;
    if options.hold_snapshot {
        figures.append(on_two_servers(options, path, database_url.as_deref(), true).await?);
    }
    Ok(figures)
}

async fn on_two_servers(
    options: &Options,
    program: &Path,
    database_url: Option<&str>,
    hold: bool,
) -> Outcome<Figures> {
    let first = Server::start(program, database_url).await?;
    let database_url = match database_url {
        Some(url) => url.to_owned(),
        None => first.database_url()?,
    };
    // Declared after the first: it is stopped before the first takes the database away.
    let second = Server::start(program, Some(&database_url)).await?;
    let mut readers = Vec::with_capacity(options.readers);
    for _ in 0..options.readers {
        readers.push(Reader::at_head(&database_url).await?);
    }
    let mut truth = Reader::at_head(&database_url).await?;
    let held = if hold { Some(HeldSnapshot::take(&database_url).await?) } else { None };

    let load = Arc::new(Load::new(options.seconds));
    let senders = start_senders(options.senders, &[&first, &second], &load).await?;
    let finish = async {
        let ended = join_all(senders).await;
        load.over.store(true, Ordering::Release);
        ended
    };
    let reading = readers.into_iter().map(|reader| read_to_the_end(reader, &load));
    let (readers, ()) = tokio::try_join!(futures_util::future::try_join_all(reading), finish)?;
    drop(held);

    while truth.page().await? {}
    let promised = load.promised.lock().unwrap_or_else(PoisonError::into_inner).clone();
    check::compare("the table", &promised, &truth.ids).into_outcome()?;
    for reader in &readers {
        check::compare("a reader by cursor", &promised, &reader.ids).into_outcome()?;
    }
    Ok(load.figures(if hold { "snapshot held" } else { "free" }))
}

/// A row that becomes visible below the cursor is never read: it shows as missed.
async fn read_to_the_end(mut reader: Reader, load: &Load) -> Outcome<Reader> {
    loop {
        // Looked at before the page: what was committed by then is in it or in a later page.
        let over = load.over.load(Ordering::Acquire);
        if reader.page().await? {
            continue;
        }
        if over {
            return Ok(reader);
        }
        tokio::time::sleep(BETWEEN_PAGES).await;
    }
}

async fn start_senders(
    count: usize,
    servers: &[&Server],
    load: &Arc<Load>,
) -> Outcome<JoinSet<Outcome<()>>> {
    let app = random_name("order");
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let address = servers[number % servers.len()].address;
        let mut sender = Sender::open(address).await?;
        let envelope = Envelope::new(address, &app, &format!("user-{number}"));
        let load = load.clone();
        tasks.spawn(async move {
            let mut ids = Vec::new();
            while load.start.elapsed() < load.length {
                ids.push(sender.send(&envelope, 0).await?);
                load.count();
            }
            load.promised.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            Ok(())
        });
    }
    Ok(tasks)
}

/// What is sent while the readers read.
struct Load {
    start: Instant,
    length: Duration,
    windows: Vec<AtomicUsize>,
    promised: Mutex<Vec<Ulid>>,
    over: AtomicBool,
}

impl Load {
    fn new(seconds: u64) -> Self {
        let windows = (seconds / WINDOW.as_secs()).max(1);
        Self {
            start: Instant::now(),
            length: Duration::from_secs(windows * WINDOW.as_secs()),
            windows: (0..windows).map(|_| AtomicUsize::new(0)).collect(),
            promised: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn count(&self) {
        let window = self.start.elapsed().as_nanos() / WINDOW.as_nanos();
        let window = usize::try_from(window).ok().and_then(|window| self.windows.get(window));
        if let Some(window) = window {
            window.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn figures(&self, name: &str) -> Figures {
        let mut figures = Figures::default();
        let rates: Vec<f64> = self
            .windows
            .iter()
            .map(|count| count.load(Ordering::Relaxed) as f64 / WINDOW.as_secs_f64())
            .collect();
        for (place, &rate) in rates.iter().enumerate() {
            let from = place as u64 * WINDOW.as_secs();
            figures.add(format!("{name}: from second {from}"), rate, "sends/s");
        }
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        figures.add(format!("{name}: mean"), mean, "sends/s");
        figures.add(format!("{name}: last window / first"), rates[rates.len() - 1] / rates[0], "");
        figures
    }
}
