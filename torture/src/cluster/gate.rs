//! A TCP forwarder that can cut, freeze and refuse: one before the instances as their balancer, and
//! one between each instance and Postgres. It passes an orderly end on as one, and a reset as one.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::Outcome;

/// In the data of every send, so in the bytes of every append on its way to Postgres.
const APPEND: &[u8] = b"{\"n\":";
const CONNECT: Duration = Duration::from_secs(1);

/// Where the next connection goes: these, one after the other, until one accepts.
pub(crate) type Targets = Box<dyn Fn() -> Vec<SocketAddr> + Send + Sync>;

/// What happens to everything that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Nothing passes in either direction, and nothing is closed.
    Frozen,
    /// New connections are reset; the others are left alone.
    Refuse,
}

/// What happens to the connection of the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The call does not arrive, and the connection is reset.
    LoseCall,
    /// The call arrives, and the connection is reset at once.
    CutAfterCall,
    /// The call arrives, and its answer never does: the connection is reset when it comes.
    LoseAnswer,
    /// The call arrives, and the connection is frozen until it is thawed.
    FreezeAfterCall,
}

/// Listens until it is dropped.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    targets: Targets,
    mode: watch::Sender<Mode>,
    armed: Mutex<Option<Strike>>,
    struck: Notify,
    connections: Mutex<HashMap<u64, Passing>>,
    next: AtomicU64,
}

/// One connection that passes.
struct Passing {
    target: SocketAddr,
    cut: CancellationToken,
    /// Frozen alone, whatever the mode.
    frozen: watch::Sender<bool>,
}

impl Gate {
    pub(crate) async fn open(targets: Targets) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            targets,
            mode: watch::Sender::new(Mode::Pass),
            armed: Mutex::default(),
            struck: Notify::new(),
            connections: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let forwarder = shared.clone();
        let accepting = tokio::spawn(async move {
            loop {
                // It fails when there are no more files to open; then there soon are some again.
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(forwarder.clone().pass(client))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(Self { address, shared, accepting })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// How many connections pass to `target`, or to any.
    pub(crate) fn passing(&self, target: Option<SocketAddr>) -> usize {
        let connections = self.shared.connections();
        connections.values().filter(|passing| passing.goes_to(target)).count()
    }

    /// Resets the connections to `target`, or all, on both sides; returns how many those were, once
    /// they are gone.
    pub(crate) async fn cut(&self, target: Option<SocketAddr>) -> usize {
        let cut: Vec<u64> = {
            let connections = self.shared.connections();
            let hit = connections.iter().filter(|(_, passing)| passing.goes_to(target));
            hit.map(|(number, passing)| {
                passing.cut.cancel();
                *number
            })
            .collect()
        };
        while self.shared.connections().keys().any(|number| cut.contains(number)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cut.len()
    }

    /// Waits until an append passes, and strikes it; false if none came in time.
    pub(crate) async fn strike(&self, strike: Strike, deadline: Duration) -> bool {
        let struck = self.shared.struck.notified();
        *lock(&self.shared.armed) = Some(strike);
        let in_time = tokio::time::timeout(deadline, struck).await.is_ok();
        lock(&self.shared.armed).take();
        in_time
    }

    /// Ends what `FreezeAfterCall` began.
    pub(crate) fn thaw(&self) {
        for passing in self.shared.connections().values() {
            passing.frozen.send_replace(false);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        for passing in self.shared.connections().values() {
            passing.cut.cancel();
        }
    }
}

impl Passing {
    fn goes_to(&self, target: Option<SocketAddr>) -> bool {
        target.is_none_or(|target| target == self.target)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Passing>> {
        lock(&self.connections)
    }

    async fn pass(self: Arc<Self>, mut client: TcpStream) {
        self.thawed().await;
        if *self.mode.borrow() == Mode::Refuse {
            return reset(&client);
        }
        let Some((mut server, target)) = self.connect().await else { return reset(&client) };
        let (cut, frozen) = (CancellationToken::new(), watch::Sender::new(false));
        let passing = Passing { target, cut: cut.clone(), frozen: frozen.clone() };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections().insert(number, passing);
        // Whoever began to refuse meanwhile has not cut this one.
        if *self.mode.borrow() == Mode::Refuse {
            cut.cancel();
        }

        let lose_answer = watch::Sender::new(false);
        let ended_well = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::select! {
                () = cut.cancelled() => false,
                both = async { tokio::try_join!(
                    self.up(from_client, to_server, &frozen, &lose_answer),
                    self.down(from_server, to_client, &frozen, &lose_answer),
                ) } => both.is_ok(),
            }
        };
        if !ended_well {
            reset(&client);
            reset(&server);
        }
        drop((client, server));
        self.connections().remove(&number);
    }

    async fn connect(&self) -> Option<(TcpStream, SocketAddr)> {
        for target in (self.targets)() {
            let connected = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await;
            if let Ok(Ok(server)) = connected {
                let _ = server.set_nodelay(true);
                return Some((server, target));
            }
        }
        None
    }

    async fn up(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        frozen: &watch::Sender<bool>,
        lose_answer: &watch::Sender<bool>,
    ) -> Outcome<()> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        while from.read_buf(&mut bytes).await? > 0 {
            let strike = match bytes.windows(APPEND.len()).any(|window| window == APPEND) {
                true => lock(&self.armed).take(),
                false => None,
            };
            match strike {
                Some(Strike::LoseCall) => {}
                Some(Strike::LoseAnswer) => drop(lose_answer.send_replace(true)),
                Some(Strike::FreezeAfterCall) => drop(frozen.send_replace(true)),
                Some(Strike::CutAfterCall) | None => {}
            }
            if strike != Some(Strike::LoseCall) {
                if strike.is_none() {
                    self.may_pass(frozen).await;
                }
                to.write_all(&bytes).await?;
            }
            bytes.clear();
            if strike.is_some() {
                self.struck.notify_waiters();
            }
            if matches!(strike, Some(Strike::LoseCall | Strike::CutAfterCall)) {
                return Err("struck".into());
            }
        }
        self.may_pass(frozen).await;
        Ok(to.shutdown().await?)
    }

    async fn down(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        frozen: &watch::Sender<bool>,
        lose_answer: &watch::Sender<bool>,
    ) -> Outcome<()> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        while from.read_buf(&mut bytes).await? > 0 {
            if *lose_answer.borrow() {
                return Err("struck".into());
            }
            self.may_pass(frozen).await;
            to.write_all(&bytes).await?;
            bytes.clear();
        }
        self.may_pass(frozen).await;
        Ok(to.shutdown().await?)
    }

    /// Waits as long as this connection, or everything, is frozen.
    async fn may_pass(&self, frozen: &watch::Sender<bool>) {
        // The senders outlive the connection.
        let _ = frozen.subscribe().wait_for(|frozen| !frozen).await;
        self.thawed().await;
    }

    async fn thawed(&self) {
        let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::Frozen).await;
    }
}

/// The other side sees RST once the socket is dropped.
fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate before a server that sends back what it gets.
    async fn gate_to_echo() -> Gate {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        Gate::open(Box::new(move || vec![target])).await.unwrap()
    }

    async fn echo(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        socket.write_all(text).await?;
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn what_is_cut_is_reset_and_counted() {
        let gate = gate_to_echo().await;
        let mut sockets = Vec::new();
        for _ in 0..3 {
            let mut socket = TcpStream::connect(gate.address).await.unwrap();
            assert_eq!(echo(&mut socket, b"hello").await.unwrap(), b"hello");
            sockets.push(socket);
        }
        assert_eq!(gate.cut(None).await, 3);
        for mut socket in sockets {
            let error = echo(&mut socket, b"hello").await.unwrap_err();
            assert!(matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            ));
        }
    }

    #[tokio::test]
    async fn what_is_frozen_arrives_after_the_thaw() {
        let gate = gate_to_echo().await;
        let mut socket = TcpStream::connect(gate.address).await.unwrap();
        echo(&mut socket, b"hello").await.unwrap();
        gate.set(Mode::Frozen);
        let late =
            tokio::time::timeout(Duration::from_millis(100), echo(&mut socket, b"again")).await;
        assert!(late.is_err());
        gate.set(Mode::Pass);
        let mut back = [0; 5];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"again");
    }

    #[tokio::test]
    async fn an_append_is_struck_and_nothing_else() {
        let gate = Arc::new(gate_to_echo().await);
        let mut other = TcpStream::connect(gate.address).await.unwrap();
        let mut writer = TcpStream::connect(gate.address).await.unwrap();
        let striking = gate.clone();
        let strike = tokio::spawn(async move {
            striking.strike(Strike::CutAfterCall, Duration::from_secs(10)).await
        });
        while lock(&gate.shared.armed).is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(echo(&mut other, b"select 1").await.unwrap(), b"select 1");
        assert!(echo(&mut writer, b"call {\"n\":1}").await.is_err());
        assert!(strike.await.unwrap());
        assert_eq!(echo(&mut other, b"select 2").await.unwrap(), b"select 2");
    }
}
