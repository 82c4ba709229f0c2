//! Correctness at full size: clients are cut with RST again and again while notifications arrive.
//! Over all its connections each must have got exactly the ids its user's senders were promised, in
//! id order, and the table must hold exactly those.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Barrier;
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::check::{self, Verdict};
use crate::cut_client::{Client, PHASES, Phase, Scene};
use crate::follower::Follower;
use crate::proxy::Proxy;
use crate::report::Figures;
use crate::sender::{Envelope, Paced, Tick, Watch};
use crate::target::Target;
use crate::{Failure, Outcome, database, random_name, users};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Clients, each of a user of its own unless --one-user.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How often each client is cut; the first time while live, then in each phase in turn.
    #[arg(long, default_value_t = 5)]
    cuts: usize,
    /// Notifications in all, spread over the users.
    #[arg(long, default_value_t = 20_000)]
    sends: usize,
    /// Sends a second.
    #[arg(long, default_value_t = 4000)]
    rate: u32,
    /// All clients subscribe to one user, so that each gets every notification.
    #[arg(long)]
    one_user: bool,
    /// Keep-alive connections that send.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let users = users(if options.one_user { 1 } else { options.clients });
    let per_user = options.sends / users.len();
    if per_user < 4 * (2 * options.cuts + 1) {
        return Err("--sends is too small: each cut needs a few notifications for each user".into());
    }
    let database_url = target.database_url()?;
    let proxy = Proxy::start(target.address).await?;
    let scene = Arc::new(Scene {
        server: target.address,
        proxy: proxy.address,
        app: random_name("cuts"),
        per_user,
        cuts: options.cuts,
        clients: options.clients,
        everyone_live: Barrier::new(options.clients + 1),
        counts: Default::default(),
        ended_by_server: AtomicUsize::new(0),
    });
    let promised = Arc::new(Promised::new(users.len()));
    let mut clients = start_clients(&scene, &users, &promised);
    tokio::select! {
        _ = scene.everyone_live.wait() => {}
        failure = first_failure(&mut clients) => return Err(failure),
    }

    let start = Instant::now();
    let address = target.address;
    let envelopes = users.iter().map(|user| Envelope::new(address, &scene.app, user)).collect();
    let count = u64::try_from(per_user * users.len())?;
    let paced = Paced { rate: options.rate, count, connections: options.connections };
    let sending = async {
        paced.run(address, envelopes, promised.clone()).await?;
        Ok(start.elapsed())
    };
    let (sent_in, received) = tokio::try_join!(sending, receive(clients))?;
    let elapsed = start.elapsed();

    judge(&received, &promised, database_url.as_deref(), &scene.app).await?;
    scene.counts[Phase::Handover as usize].fetch_add(proxy.cuts(), Ordering::Relaxed);
    let mut figures = phases(&scene)?;
    let deliveries: usize = received.iter().map(|(_, ids)| ids.len()).sum();
    figures.add("sends", count as f64 / sent_in.as_secs_f64(), "sends/s");
    figures.add("notifications received", deliveries as f64, "");
    figures.add("missed / twice / out of order", 0.0, "");
    figures.add("until the last client had everything", elapsed.as_secs_f64(), "s");
    Ok(figures)
}

type Received = (usize, Vec<Ulid>);

/// Each client's task ends with its place among the users and what it received.
fn start_clients(
    scene: &Arc<Scene>,
    users: &[String],
    promised: &Promised,
) -> JoinSet<Outcome<Received>> {
    let mut tasks = JoinSet::new();
    for number in 0..scene.clients {
        let place = number % users.len();
        let client = Client {
            scene: scene.clone(),
            number,
            user: users[place].clone(),
            sent: promised.counts[place].clone(),
            follower: Follower::default(),
        };
        tasks.spawn(async move { Ok((place, client.run().await?)) });
    }
    tasks
}

/// Before anything is sent no client ends, unless it failed.
async fn first_failure(clients: &mut JoinSet<Outcome<Received>>) -> Failure {
    match clients.join_next().await {
        Some(Ok(Err(failure))) => failure,
        _ => "a client ended before anything was sent".into(),
    }
}

async fn receive(mut clients: JoinSet<Outcome<Received>>) -> Outcome<Vec<Received>> {
    let mut received = Vec::with_capacity(clients.len());
    while let Some(ended) = clients.join_next().await {
        received.push(ended??);
    }
    Ok(received)
}

/// Streams against the 201 answers, then the 201 answers against the table.
async fn judge(
    received: &[Received],
    promised: &Promised,
    database_url: Option<&str>,
    app: &str,
) -> Outcome<()> {
    let promised: Vec<Vec<Ulid>> = promised.ids.iter().map(|ids| lock(ids).clone()).collect();
    let mut verdict = Verdict::default();
    for (place, ids) in received {
        verdict.add(check::compare(&format!("a client of user-{place}"), &promised[*place], ids));
    }
    verdict.into_outcome()?;
    let Some(database_url) = database_url else {
        eprintln!("no --database-url: the table was not compared");
        return Ok(());
    };
    let stored = database::ids_of_app(database_url, app).await?;
    check::compare("the table", &promised.concat(), &stored).into_outcome()
}

/// A phase in which nobody was cut was not tested.
fn phases(scene: &Scene) -> Outcome<Figures> {
    let mut figures = Figures::default();
    for phase in PHASES {
        let count = scene.counts[phase as usize].load(Ordering::Relaxed);
        if count == 0 && scene.cuts >= PHASES.len() {
            return Err(format!("no client was cut in the phase {phase:?}").into());
        }
        figures.add(format!("cut in {phase:?}").to_lowercase(), count as f64, "cuts");
    }
    let ended = scene.ended_by_server.load(Ordering::Relaxed);
    figures.add("ended by the server", ended as f64, "streams");
    Ok(figures)
}

/// The ids of the 201 answers, by user.
struct Promised {
    ids: Vec<Mutex<Vec<Ulid>>>,
    counts: Vec<Arc<AtomicUsize>>,
}

impl Promised {
    fn new(users: usize) -> Self {
        Self {
            ids: (0..users).map(|_| Mutex::default()).collect(),
            counts: (0..users).map(|_| Arc::default()).collect(),
        }
    }
}

impl Watch for Promised {
    fn answered(&self, tick: &Tick, id: Ulid) {
        let user = usize::try_from(tick.number).expect("it was a usize") % self.ids.len();
        lock(&self.ids[user]).push(id);
        self.counts[user].fetch_add(1, Ordering::Relaxed);
    }
}

fn lock(ids: &Mutex<Vec<Ulid>>) -> std::sync::MutexGuard<'_, Vec<Ulid>> {
    ids.lock().unwrap_or_else(PoisonError::into_inner)
}
