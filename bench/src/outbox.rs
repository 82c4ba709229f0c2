//! One app sends very many notifications from SQL in one transaction: how long do those of others
//! take meanwhile, from SQL and over HTTP? With an old snapshot held, or a caller that keeps its
//! transaction open, if wanted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::database::HeldSnapshot;
use crate::report::Figures;
use crate::sender::{Envelope, Sender};
use crate::stats::Samples;
use crate::subscriber::Subscriber;
use crate::target::Target;
use crate::{Outcome, payload, random_name};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Notifications of the app that sends very many.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Between two sends of the others.
    #[arg(long, default_value_t = 10)]
    gap_ms: u64,
    /// How long the others send alone before.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Hold a repeatable read transaction open all the time.
    #[arg(long)]
    hold_snapshot: bool,
    /// Keep a transaction open after it has sent.
    #[arg(long)]
    hold_sender: bool,
}

const PHASES: [&str; 3] = ["before", "while it is written", "while it is drained"];
/// One second is what the others may be delayed by; far beyond it something is broken.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let url = target.database_url()?.ok_or("the database's URL is needed: --database-url")?;
    let _snapshot = match options.hold_snapshot {
        true => Some(HeldSnapshot::take(&url).await?),
        false => None,
    };
    let held = match options.hold_sender {
        true => Some(hold_sender(&url).await?),
        false => None,
    };
    let others = Arc::new(Others::new());
    let sql =
        tokio::spawn(send_from_sql(others.clone(), url.clone(), target.address, options.gap_ms));
    let http = tokio::spawn(send_over_http(others.clone(), target.address, options.gap_ms));
    tokio::time::sleep(Duration::from_secs(options.warm_up)).await;

    let noisy = random_name("noisy");
    let (arrived, mut last) = mpsc::unbounded_channel();
    let sink = Arc::new(move |number| {
        let _ = arrived.send(number);
    });
    let stream = Subscriber::open(target.address, &noisy, "last", sink).await?;
    others.phase.store(1, Ordering::Relaxed);
    let start = Instant::now();
    send_very_many(&url, &noisy, options.rows).await?;
    let committed = Instant::now();
    others.phase.store(2, Ordering::Relaxed);
    tokio::time::timeout(PATIENCE, last.recv()).await.map_err(|_| "the last one did not arrive")?;
    let drained = Instant::now();
    others.done.store(true, Ordering::Relaxed);
    stream.fault()?;
    sql.await??;
    http.await??;
    check_order(&url, &noisy, options.rows).await?;
    drop(held);

    let mut figures = Figures::default();
    figures.add("written, rows a second", rate(options.rows, committed - start), "rows/s");
    figures.add("drained, rows a second", rate(options.rows, drained - committed), "rows/s");
    for (phase, name) in PHASES.iter().enumerate() {
        let percents = [50.0, 99.0];
        let sql = &mut lock(&others.sql)[phase];
        figures.add_latency(&format!("others from SQL, {name}:"), sql, &percents);
        let http = &mut lock(&others.http)[phase];
        figures.add_latency(&format!("others over HTTP, {name}:"), http, &percents);
    }
    Ok(figures)
}

/// What the others measure: for SQL from just before the call to the arrival at a live stream, for
/// HTTP to the 201.
struct Others {
    phase: AtomicUsize,
    done: AtomicBool,
    sql: Mutex<[Samples; 3]>,
    http: Mutex<[Samples; 3]>,
}

impl Others {
    fn new() -> Self {
        let (phase, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { phase, done, sql: Mutex::default(), http: Mutex::default() }
    }

    fn phase(&self) -> usize {
        self.phase.load(Ordering::Relaxed)
    }
}

async fn send_from_sql(
    others: Arc<Others>,
    url: String,
    address: SocketAddr,
    gap_ms: u64,
) -> Outcome<()> {
    let app = random_name("other");
    let calls: Arc<Mutex<Vec<(Instant, usize)>>> = Arc::default();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (told, measured) = (calls.clone(), others.clone());
    let sink = Arc::new(move |number: u64| {
        let (called, phase) = lock(&told)[usize::try_from(number).expect("a small number")];
        lock(&measured.sql)[phase].push(called.elapsed());
        let _ = arrived.send(number);
    });
    let stream = Subscriber::open(address, &app, "ada", sink).await?;
    let mut connection = PgConnection::connect(&url).await?;
    let mut ticks = interval(Duration::from_millis(gap_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !others.done.load(Ordering::Relaxed) {
        ticks.tick().await;
        lock(&calls).push((Instant::now(), others.phase()));
        sqlx::query("select tidings.send($1, 'ada', $2::json)")
            .bind(&app)
            .bind(payload::data(number))
            .execute(&mut connection)
            .await?;
        number += 1;
    }
    for expected in 0..number {
        let next = tokio::time::timeout(PATIENCE, arrivals.recv());
        if next.await.map_err(|_| "one of the others did not arrive")? != Some(expected) {
            return Err(format!("{expected} of the others is missing or out of order").into());
        }
    }
    stream.fault()
}

async fn send_over_http(others: Arc<Others>, address: SocketAddr, gap_ms: u64) -> Outcome<()> {
    let envelope = Envelope::new(address, &random_name("other"), "ada");
    let mut sender = Sender::open(address).await?;
    let mut ticks = interval(Duration::from_millis(gap_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !others.done.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (start, phase) = (Instant::now(), others.phase());
        sender.send(&envelope, number).await?;
        lock(&others.http)[phase].push(start.elapsed());
        number += 1;
    }
    Ok(())
}

async fn send_very_many(url: &str, app: &str, rows: i64) -> Outcome<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(
        "select count(tidings.send($1, case when i = $3 then 'last' else 'user-' || i % 1000 end,
            overlay($2 placing lpad(i::text, 8, '0') from 7)::json))
        from generate_series(1, $3) i",
    )
    .bind(app)
    .bind(payload::data(0))
    .bind(rows)
    .execute(&mut connection)
    .await?;
    Ok(connection.close().await?)
}

async fn hold_sender(url: &str) -> Outcome<PgConnection> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("begin; select tidings.send('held', 'ada', '1')")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// All rows are there, once, in the order of the calls.
async fn check_order(url: &str, app: &str, rows: i64) -> Outcome<()> {
    let mut connection = PgConnection::connect(url).await?;
    let (count, in_order): (i64, Option<bool>) = sqlx::query_as(
        "select count(*), bool_and(n = place) from (
            select (data ->> 'n')::bigint as n, row_number() over (order by id) as place
            from tidings.notification where app = $1
        ) rows",
    )
    .bind(app)
    .fetch_one(&mut connection)
    .await?;
    if (count, in_order) != (rows, Some(true)) {
        return Err(format!("{count} of {rows} rows, in order: {in_order:?}").into());
    }
    Ok(connection.close().await?)
}

fn rate(rows: i64, time: Duration) -> f64 {
    rows as f64 / time.as_secs_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
