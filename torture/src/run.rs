//! One run from its first process to its last entry: clients listen, senders send, faults come one
//! after the other, and at the end everything has to come to rest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use wire::Outcome;

use crate::checker;
use crate::clients::{Audience, Client};
use crate::cluster::{Cluster, Needs, Setup};
use crate::faults::{Background, Effect, Fault};
use crate::history::{Event, Recorder};
use crate::plan::{Actor, ClientPlan, Plan, Planned};
use crate::senders::{Office, Sender};
use crate::sql_senders::{self, SqlSender};
use crate::table::{self, Reader};

const FIRST_STREAMS: Duration = Duration::from_secs(60);
/// Far above what is aimed at: what takes longer has not recovered.
const RECOVERY: Duration = Duration::from_secs(60);
const LAST_SENDS: Duration = Duration::from_secs(90); // a send with a key may have to find out
const READERS: usize = 2;
const SQL_SENDERS: usize = 2;
const LONGEST_VISIT_PAUSE: u64 = 1500; // ms
/// Of so many visitors, one has a cursor that nobody was ever given.
const LOST_IN: usize = 3;
/// Above all others.
const FIRST_VISITOR: usize = 1000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server program.
    pub server: PathBuf,
    /// Decides everything that is decided.
    pub seed: u64,
    /// How long faults are injected, and longer if one of them had no turn yet.
    pub length: Duration,
    /// How many servers.
    pub instances: usize,
    /// How many send at once.
    pub senders: usize,
    /// Which faults.
    pub faults: Vec<Fault>,
    /// All is sent to the first server; the others learn of it from the database alone.
    pub one_sided: bool,
    /// Beside what every server is given in its environment.
    pub environment: Vec<(String, String)>,
    /// The folder for the history and the logs; it must not have a history yet.
    pub out: PathBuf,
}

struct Run {
    cluster: Arc<Cluster>,
    recorder: Recorder,
    office: Arc<Office>,
    audience: Arc<Audience>,
    next_fault: usize,
    next_marker: u64,
}

/// Runs until it is done or `interrupted`, and writes the history into the folder. What was found is
/// for the checker to say; an error means that the run could not be made or not be ended.
pub async fn run(options: &Options, interrupted: impl Future<Output = ()>) -> Outcome<()> {
    std::fs::create_dir_all(&options.out)?;
    let recorder = Recorder::create(&options.out)?;
    let made = tokio::select! {
        made = make(options, &recorder) => made,
        () = interrupted => Ok(()),
    };
    recorder.finish()?;
    made
}

async fn make(options: &Options, recorder: &Recorder) -> Outcome<()> {
    let Options { server, seed, length, instances, senders, faults, out, .. } = options.clone();
    recorder.note(Event::Began {
        seed,
        instances,
        seconds: length.as_secs(),
        faults: faults.iter().map(|fault| fault.name().to_owned()).collect(),
    });
    let (faults, needs) = possible(faults, recorder);
    let plan = Plan { seed, instances, length, senders, faults };
    let environment = &options.environment;
    let setup = Setup { server: &server, instances, out: &out, needs, environment };
    let cluster = Arc::new(Cluster::start(&setup).await?);
    let clients = plan.clients();
    let addresses = cluster.addresses();
    let mut run = Run {
        office: Office::new(
            recorder.clone(),
            if options.one_sided { addresses.only_first() } else { addresses.clone() },
        ),
        audience: Audience::new(recorder.clone(), addresses, &clients),
        cluster: cluster.clone(),
        recorder: recorder.clone(),
        next_fault: 0,
        next_marker: 0,
    };
    let made = run.all(&plan).await;
    run.audience.stop.cancel();
    drop(run);
    match (made, Arc::into_inner(cluster)) {
        (Ok(()), Some(cluster)) => cluster.stop().await,
        (made, _) => made,
    }
}

/// Leaves out, by name, what this machine cannot do.
fn possible(faults: Vec<Fault>, recorder: &Recorder) -> (Vec<Fault>, Needs) {
    let mut needs = Needs::default();
    let possible = faults.into_iter().filter(|fault| {
        let Err(why) = fault.prepare(&mut needs) else { return true };
        recorder.note(Event::Skipped { name: fault.name().to_owned(), why: why.to_string() });
        false
    });
    (possible.collect(), needs)
}

impl Run {
    async fn all(&mut self, plan: &Plan) -> Outcome<()> {
        let (mut listening, mut sending, mut reading) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        for (number, client) in plan.clients().into_iter().enumerate() {
            let rng = plan.rng(Actor::Client(number));
            listening.spawn(Client::new(self.audience.clone(), number, client, rng).run());
        }
        let late = self.audience.all_live(FIRST_STREAMS).await;
        if !late.is_empty() {
            return Err(format!("the clients {late:?} did not become live").into());
        }
        let (no_more_sends, no_more_rows) = (CancellationToken::new(), CancellationToken::new());
        for number in 0..plan.senders {
            let rng = plan.rng(Actor::Sender(number));
            let sender = Sender::new(self.office.clone(), number, rng);
            sending.spawn(sender.run(no_more_sends.clone()));
        }
        if sql_senders::are_possible(&self.cluster).await? {
            for number in (plan.senders..).take(SQL_SENDERS) {
                let (cluster, office) = (self.cluster.clone(), self.office.clone());
                let rng = plan.rng(Actor::Sender(number));
                let sender = SqlSender { cluster, office, number, rng };
                sending.spawn(sender.run(no_more_sends.clone()));
            }
        } else {
            let (name, why) =
                ("sending by SQL".to_owned(), "this version has no tidings.send".to_owned());
            self.recorder.note(Event::Skipped { name, why });
        }
        listening.spawn(visitors(
            self.audience.clone(),
            self.office.clone(),
            plan.clients(),
            plan.rng(Actor::Clients),
        ));
        for number in 0..READERS {
            let (cluster, recorder) = (self.cluster.clone(), self.recorder.clone());
            reading.spawn(Reader { cluster, recorder, number }.run(no_more_rows.clone()));
        }

        let background = self.begin_background(plan);
        self.faults(plan).await?;
        self.audience.calm.cancel();
        no_more_sends.cancel();
        if tokio::time::timeout(LAST_SENDS, async { while sending.join_next().await.is_some() {} })
            .await
            .is_err()
        {
            // The checker finds which sends were not answered.
            sending.shutdown().await;
        }
        let everyone: Vec<usize> = (0..plan.clients().len()).collect();
        let missing = self.mark(&everyone).await;
        self.audience.stop.cancel();
        while listening.join_next().await.is_some() {}
        no_more_rows.cancel();
        while reading.join_next().await.is_some() {}
        table::note_all(&self.cluster, &self.recorder).await?;
        self.recorder.note(Event::Settled { complete: everyone.len() - missing.len() });
        for fault in background {
            fault.end().await;
        }
        Ok(())
    }

    fn begin_background(&mut self, plan: &Plan) -> Vec<Background> {
        let whole_run = plan.faults.iter().filter(|fault| fault.is_for_the_whole_run());
        whole_run
            .map(|_| {
                let fault = self.number();
                Background::hold_snapshot(self.cluster.clone(), self.recorder.clone(), fault)
            })
            .collect()
    }

    fn number(&mut self) -> usize {
        self.next_fault += 1;
        self.next_fault
    }

    /// One fault after the other until the time is over and each had its turn.
    async fn faults(&mut self, plan: &Plan) -> Outcome<()> {
        let began = Instant::now();
        for (turn, planned) in plan.faults().enumerate() {
            tokio::time::sleep(planned.rest).await;
            if began.elapsed() >= plan.length && turn >= plan.faults.len() {
                return Ok(());
            }
            self.fault(&planned).await?;
        }
        // None was asked for.
        tokio::time::sleep(plan.length.saturating_sub(began.elapsed())).await;
        Ok(())
    }

    async fn fault(&mut self, planned: &Planned) -> Outcome<()> {
        let mut begun = vec![(planned.fault, self.inject(planned.fault, planned).await)];
        if let Some(within) = planned.within {
            begun.push((within, self.inject(within, planned).await));
        }
        tokio::time::sleep(planned.fault.hold(planned)).await;
        // The outer one first: an instance does not start without a database.
        for (fault, _) in &begun {
            fault.heal(&self.cluster, &self.recorder, planned).await?;
        }
        for (_, fault) in &begun {
            self.recorder.note(Event::Healed { fault: *fault });
        }
        let healed = self.recorder.now();
        let steady = self.audience.steady.clone();
        let missing = self.mark(&steady).await;
        let micros = self.recorder.now() - healed;
        for (_, fault) in begun {
            let missing = missing.clone();
            self.recorder.note(match missing.is_empty() {
                true => Event::Recovered { fault, micros },
                false => Event::NotRecovered { fault, missing },
            });
        }
        planned.fault.afterwards(&self.cluster).await
    }

    /// Returns its number.
    async fn inject(&mut self, fault: Fault, planned: &Planned) -> usize {
        let (number, name) = (self.number(), fault.name().to_owned());
        self.recorder.note(Event::Inject {
            fault: number,
            name,
            in_flight: self.office.in_flight(),
        });
        self.recorder.note(match fault.inject(&self.cluster, &self.recorder, planned).await {
            Ok(Effect { observed, connections }) => {
                Event::Effect { fault: number, observed, connections }
            }
            Err(why) => Event::NoEffect { fault: number, why: why.to_string() },
        });
        number
    }

    /// Sends a marker to everyone and waits until these clients have it; returns who has not.
    async fn mark(&mut self, clients: &[usize]) -> Vec<usize> {
        self.next_marker += 1;
        let marker = self.next_marker;
        let sending = tokio::time::timeout(RECOVERY, self.office.mark(marker));
        let receiving = self.audience.have_marker(clients, marker, RECOVERY);
        let (_, missing) = tokio::join!(sending, receiving);
        missing
    }
}

/// Clients that come once, with an old cursor.
async fn visitors(
    audience: Arc<Audience>,
    office: Arc<Office>,
    plans: Vec<ClientPlan>,
    mut rng: Rng,
) {
    for number in FIRST_VISITOR.. {
        let pause = Duration::from_millis(rng.u64(..=LONGEST_VISIT_PAUSE));
        if audience.calm.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let Some(known) = office.some_id(&mut rng) else { continue };
        let after = if number % LOST_IN == 0 { lost_cursor(&mut rng) } else { known };
        let plan = ClientPlan { steady: false, ..plans[rng.usize(..plans.len())].clone() };
        Client::new(audience.clone(), number, plan, rng.fork()).visit(after).await;
    }
}

/// From a time that no id is of.
fn lost_cursor(rng: &mut Rng) -> Ulid {
    Ulid::from_parts(checker::FIRST_LOST_MS + rng.u64(..1000), rng.u128(..))
}

/// A folder of its own for a run that was given none.
pub fn default_folder(seed: u64) -> PathBuf {
    Path::new("torture-runs").join(format!("seed-{seed}"))
}
