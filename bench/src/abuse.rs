//! Slow and bad clients. For each kind: the server's memory before, at its peak and afterwards, how
//! long the server put up with them, and live delivery to everybody else meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use ulid::Ulid;

use crate::follower::Follower;
use crate::http::Connection;
use crate::live::Live;
use crate::report::Figures;
use crate::stats::Samples;
use crate::stream::Stream;
use crate::target::{Target, send_batch, subscribe_head};
use crate::{Outcome, check, idle, machine, payload, random_name, timely};

/// Of sends to others while something else happens.
const RATE: u32 = 100;
/// Longer than the server waits for the rest of a request.
const LASTS: Duration = Duration::from_secs(50);
/// And for a client that takes nothing.
const STAYS: Duration = Duration::from_secs(90);
/// What a slow client's socket may hold.
const LITTLE: u32 = 16 << 10;
/// Notifications of one request to the batch route.
const BATCH: usize = 1000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which kind: silent, half-head, long-head, half-body, stalled, byte-a-second or leaving.
    #[arg(long, default_value = "half-head")]
    kind: Kind,
    /// How many of them.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Notifications that each slow client has before it, of about 280 bytes on the wire.
    #[arg(long, default_value_t = 40_000)]
    backlog: usize,
    /// The server's process id, if it is given by --url.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Half of a short head.
    HalfHead,
    /// Half of a long one: 40,000 bytes of a URL.
    LongHead,
    /// A body of 8 MB that stops after 1 MB.
    HalfBody,
    /// A subscriber that stops reading.
    Stalled,
    /// A subscriber that reads a byte a second.
    ByteASecond,
    /// A subscriber that leaves in the middle of its replay, and comes back for more of it.
    Leaving,
}

impl Kind {
    fn is_slow(self) -> bool {
        matches!(self, Kind::Stalled | Kind::ByteASecond)
    }

    fn lasts(self) -> Duration {
        if self.is_slow() { STAYS + LASTS } else { LASTS }
    }
}

pub(crate) async fn run(options: &Options, target: &Target) -> Outcome<Figures> {
    let spawned = target.server.as_ref().map(crate::spawn::Server::pid);
    let pid = options.pid.or(spawned).ok_or("--pid is needed with --url")?;
    let scene = Scene::new(options, target).await?;
    let mut live = Live::start(target, RATE, options.kind.lasts()).await?;
    let quiet = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let memory = Memory::watch(pid)?;

    let start = Instant::now();
    let clients = scene.play().await?;
    let end = Instant::now();
    let after = machine::resident_kib(pid)?;
    live.finish().await?;

    let mib = |kib: u64| kib as f64 / 1024.0;
    let mut figures = Figures::default();
    figures.add("memory before", mib(memory.before), "MiB");
    figures.add("memory at its peak", mib(memory.peak()), "MiB");
    figures.add("memory afterwards", mib(after), "MiB");
    clients.report(&mut figures);
    figures.add_latency("live before", &mut live.delivery(quiet, start), &[50.0, 99.0]);
    figures.add_latency("live meanwhile", &mut live.delivery(start, end), &[50.0, 99.0]);
    Ok(figures)
}

/// The server's resident memory, looked at until it is dropped.
struct Memory {
    before: u64,
    peak: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Memory {
    fn watch(pid: u32) -> Outcome<Self> {
        let before = machine::resident_kib(pid)?;
        let peak = Arc::new(AtomicU64::new(before));
        let highest = peak.clone();
        let start = Instant::now();
        let task = tokio::spawn(async move {
            let mut looks = tokio::time::interval(Duration::from_millis(100));
            for look in 0_u64.. {
                looks.tick().await;
                let Ok(now) = machine::resident_kib(pid) else { return };
                highest.fetch_max(now, Ordering::Relaxed);
                if look % 50 == 0 {
                    println!(
                        "    {:>5.1} s {:>7.1} MiB",
                        start.elapsed().as_secs_f64(),
                        now as f64 / 1024.0
                    );
                }
            }
        });
        Ok(Self { before, peak, task })
    }

    fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What became of the clients.
#[derive(Default)]
struct Ended {
    /// From the start until the server ended them.
    after: Samples,
    ended: usize,
    /// Those that are still connected, because they did nothing wrong.
    open: usize,
}

impl Ended {
    fn report(mut self, figures: &mut Figures) {
        figures.add("ended by the server", self.ended as f64, "clients");
        figures.add("still connected", self.open as f64, "clients");
        if self.ended > 0 {
            figures.add_latency("ended after", &mut self.after, &[50.0]);
        }
    }
}

/// One kind of client, with what it asks for.
struct Scene<'a> {
    options: &'a Options,
    target: &'a Target,
    app: String,
    /// Where slow clients start, and what lies before them.
    cursor: Ulid,
    ids: Arc<Vec<Ulid>>,
}

impl<'a> Scene<'a> {
    async fn new(options: &'a Options, target: &'a Target) -> Outcome<Self> {
        let app = random_name("abuse");
        let mut connection = Connection::open(target.address).await?;
        let cursor = send(&mut connection, target, &app, 1).await?[0];
        let mut ids = Vec::new();
        if options.kind.is_slow() || matches!(options.kind, Kind::Leaving) {
            while ids.len() < options.backlog {
                ids.extend(send(&mut connection, target, &app, BATCH).await?);
            }
        }
        Ok(Self { options, target, app, cursor, ids: Arc::new(ids) })
    }

    async fn play(&self) -> Outcome<Ended> {
        match self.options.kind {
            kind if kind.is_slow() => self.slow().await,
            Kind::Leaving => self.leaving().await,
            _ => self.halves().await,
        }
    }

    /// Opens all of them and waits until the server has ended the last.
    async fn halves(&self) -> Outcome<Ended> {
        let half: Arc<[u8]> = self.half_request().into();
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for number in 0..self.options.clients {
            let (half, address) = (half.clone(), self.target.address);
            let source = idle::source(self.target, number);
            clients.spawn(async move {
                let mut socket = connect(source.map(|ip| (ip, 0).into()), address, None).await?;
                // The server may have had enough before it has all of it.
                let _ = socket.write_all(&half).await;
                let mut rest = Vec::new();
                let _ = tokio::time::timeout(LASTS, socket.read_to_end(&mut rest)).await?;
                Outcome::Ok(())
            });
            if number % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        let mut ended = Ended::default();
        while let Some(client) = clients.join_next().await {
            client??;
            ended.after.push(start.elapsed());
            ended.ended += 1;
        }
        Ok(ended)
    }

    fn half_request(&self) -> Vec<u8> {
        let address = self.target.address;
        match self.options.kind {
            Kind::HalfHead => format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Half: ").into_bytes(),
            Kind::LongHead => format!("GET /?_={}", "a".repeat(40_000)).into_bytes(),
            Kind::HalfBody => {
                let head =
                    crate::target::send_head(address, &format!("{}/ada", self.app), 8_000_000);
                let mut request = head.into_bytes();
                request.resize(request.len() + 1_000_000, b' ');
                request
            }
            _ => Vec::new(),
        }
    }

    /// Streams that take little or nothing until they are ended, or have stayed for long enough; then
    /// each reads what is left, comes back with its cursor, and has to get all the rest.
    async fn slow(&self) -> Outcome<Ended> {
        let start = Instant::now();
        let (go_on, waiting) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..self.options.clients {
            let source = idle::source(self.target, number).map(|ip| (ip, 0).into());
            let socket = connect(source, self.target.address, Some(LITTLE)).await?;
            let slow = Slow {
                address: self.target.address,
                app: self.app.clone(),
                cursor: self.cursor,
                ids: self.ids.clone(),
                reads: matches!(self.options.kind, Kind::ByteASecond),
            };
            clients.spawn(slow.run(socket, waiting.clone()));
        }
        // Only the server knows: its end reaches nobody who does not read.
        let mut ended = Ended::default();
        while ended.ended < self.options.clients && start.elapsed() < STAYS {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let open = subscriptions(self.target).await?.saturating_sub(crate::live::USERS);
            if start.elapsed() > Duration::from_secs(10) {
                while ended.ended < self.options.clients.saturating_sub(open) {
                    ended.ended += 1;
                    ended.after.push(start.elapsed());
                }
            }
        }
        ended.open = self.options.clients - ended.ended;
        go_on.send_replace(true);
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(ended)
    }

    async fn leaving(&self) -> Outcome<Ended> {
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for number in 0..self.options.clients {
            let address = self.target.address;
            let source = idle::source(self.target, number);
            let (app, cursor) = (self.app.clone(), self.cursor);
            clients.spawn(async move {
                while start.elapsed() < Duration::from_secs(20) {
                    let request = subscribe_head(address, &app, "ada", Some(cursor));
                    let mut stream = match source {
                        Some(ip) => Stream::open_from(ip, address, request.as_bytes()).await?,
                        None => Stream::open(address, request.as_bytes()).await?,
                    };
                    timely("a replay", stream.fill()).await?;
                    stream.cut()?;
                }
                Outcome::Ok(())
            });
        }
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(Ended::default())
    }
}

/// A subscriber that takes nothing, or a byte a second, until it is told to go on.
struct Slow {
    address: SocketAddr,
    app: String,
    cursor: Ulid,
    ids: Arc<Vec<Ulid>>,
    reads: bool,
}

impl Slow {
    async fn run(self, mut socket: TcpStream, mut go_on: watch::Receiver<bool>) -> Outcome<()> {
        let mut follower = Follower { cursor: Some(self.cursor), ..Follower::default() };
        socket.write_all(self.request(&follower).as_bytes()).await?;
        let mut taken = Vec::new();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        while !*go_on.borrow() {
            tokio::select! {
                _ = seconds.tick() => if self.reads {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).await?;
                    taken.push(byte[0]);
                },
                _ = go_on.changed() => {}
            }
        }
        follower.reconnect();
        let stream = Stream::resume(socket, taken).await?;
        self.read_on(stream, &mut follower).await;
        while follower.ids.len() < self.ids.len() {
            let before = follower.ids.len();
            let request = self.request(&follower);
            follower.reconnect();
            self.read_on(Stream::open(self.address, request.as_bytes()).await?, &mut follower)
                .await;
            if follower.ids.len() == before {
                return Err("it came back and got nothing".into());
            }
        }
        check::compare("ada", &self.ids, &follower.ids).into_outcome()
    }

    fn request(&self, follower: &Follower) -> String {
        subscribe_head(self.address, &self.app, "ada", follower.cursor)
    }

    /// Reads to the end of the stream, in order or not, or to the last notification there is.
    async fn read_on(&self, mut stream: Stream, follower: &mut Follower) {
        loop {
            while let Some(frame) = stream.next_frame() {
                if follower.take(&frame).is_err() {
                    return;
                }
            }
            let done = follower.ids.len() >= self.ids.len();
            if done || !matches!(stream.fill().await, Ok(true)) {
                return;
            }
        }
    }
}

/// Streams that the server has open.
async fn subscriptions(target: &Target) -> Outcome<usize> {
    let address = target.address;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut connection = Connection::open(address).await?;
    let answer = timely("the metrics", connection.call(request.as_bytes())).await?;
    let text = str::from_utf8(answer.body)?;
    let value = text.lines().find_map(|line| line.strip_prefix("tidings_subscriptions "));
    Ok(value.ok_or("the metrics have no tidings_subscriptions")?.parse()?)
}

async fn connect(
    source: Option<SocketAddr>,
    address: SocketAddr,
    room: Option<u32>,
) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(room) = room {
        socket.set_recv_buffer_size(room)?;
    }
    if let Some(source) = source {
        socket.bind(source)?;
    }
    Ok(socket.connect(address).await?)
}

/// Sends so many to one user; returns their ids.
async fn send(
    connection: &mut Connection,
    target: &Target,
    app: &str,
    count: usize,
) -> Outcome<Vec<Ulid>> {
    #[derive(serde::Deserialize)]
    struct Sent {
        ids: Vec<String>,
    }
    let datas: Vec<String> = (0..count as u64).map(payload::data).collect();
    let request = send_batch(target.address, app, "ada", &datas);
    let answer = timely("a send", connection.call(request.as_bytes())).await?;
    if answer.status != 201 {
        return Err(answer.refused("a send"));
    }
    let sent: Sent = serde_json::from_slice(answer.body)?;
    Ok(sent.ids.iter().map(|id| Ulid::from_string(id)).collect::<Result<_, _>>()?)
}
