//! The p99 of sends at a constant rate, without and with a full partition that is removed meanwhile; and
//! the same pair beside a pg_dump that runs all the time, for whose end the removal has to wait.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::dump::Dump;
use crate::latency;
use crate::report::Figures;
use crate::target::Target;
use crate::{Outcome, old_partition};

#[derive(clap::Args)]
#[group(skip)] // of the same name as that of the options below
pub(crate) struct Options {
    #[command(flatten)]
    sends: latency::Options,
    /// Rows in the partition that is removed.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
}

/// A server tries again after a second, and then ever more seldom.
const RETRY: Duration = Duration::from_secs(1);
/// Of a removal that nothing is in the way of any more.
const PATIENCE: Duration = Duration::from_secs(300);
const PERCENTS: [f64; 3] = [50.0, 99.0, 99.9];
const P99: f64 = 99.0;

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let server = target.server.as_ref().ok_or("it starts a server of its own: leave out --url")?;
    let url = target.database_url()?.ok_or("the server's database is not known")?;
    let prune = Prune { program: server.program.clone(), url: url.clone() };
    let bench = Bench { options, target, prune };
    let mut figures = Figures::default();

    old_partition::fill(&url, options.rows).await?;
    let without = bench.sends("alone:", &mut figures).await?;
    let (with, removal) = bench.sends_and_removal("removal:", &mut figures).await?;
    let took = removal.await??;
    figures.add("removal: from its start to its end", took.as_secs_f64() * 1e3, "ms");
    figures.add("p99 with a removal / without", with / without, "");

    old_partition::fill(&url, options.rows).await?;
    let dump = Dump::start(&url).await?;
    let without = bench.sends("dump:", &mut figures).await?;
    let (with, removal) = bench.sends_and_removal("dump and removal:", &mut figures).await?;
    dump.still_runs()?;
    if !old_partition::is_there(&url).await? {
        return Err("the partition went although a dump was reading it".into());
    }
    dump.finish().await?;
    removal.await??;
    figures.add("beside a dump: p99 with a removal / without", with / without, "");
    Ok(figures)
}

struct Bench<'a> {
    options: &'a Options,
    target: &'a Target,
    prune: Prune,
}

impl Bench<'_> {
    /// Returns the p99.
    async fn sends(&self, name: &str, figures: &mut Figures) -> Outcome<f64> {
        let mut samples = latency::send(&self.options.sends, self.target).await?.due_to_answered();
        figures.add_latency(&format!("{name} due to 201"), &mut samples, &PERCENTS);
        Ok(samples.percentile_ms(P99))
    }

    /// The same with a removal that begins after a quarter of the time; it may go on after that.
    async fn sends_and_removal(
        &self,
        name: &str,
        figures: &mut Figures,
    ) -> Outcome<(f64, JoinHandle<Outcome<Duration>>)> {
        let latency::Options { seconds, warm_up, .. } = self.options.sends;
        let begin = Duration::from_secs((warm_up + seconds / 4).into());
        let removal = tokio::spawn(self.prune.clone().after(begin));
        Ok((self.sends(name, figures).await?, removal))
    }
}

/// `tidings prune`, which does what the server does every hour.
#[derive(Clone)]
struct Prune {
    program: PathBuf,
    url: String,
}

impl Prune {
    /// Returns how long it took until the partition was gone.
    async fn after(self, delay: Duration) -> Outcome<Duration> {
        tokio::time::sleep(delay).await;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let mut prune = Command::new(&self.program);
            prune.arg("prune").env("DATABASE_URL", &self.url).kill_on_drop(true);
            let output = prune.output().await?;
            if !old_partition::is_there(&self.url).await? {
                return Ok(start.elapsed());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            if !said.contains("is in use") {
                return Err(format!("`tidings prune` removed nothing: {said}").into());
            }
            tokio::time::sleep(RETRY).await;
        }
        Err(format!("the partition was still there after {PATIENCE:?}").into())
    }
}
