//! A proxy between a server and its database, which speaks over a unix socket. It can take the
//! database away, and strike in the middle of an append.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use super::TestDatabase;

/// The message by which a client asks only whether the server answers.
const SYNC: u8 = b'S';

/// The name that Postgres clients look for.
const SOCKET: &str = ".s.PGSQL.5432";

/// What happens to the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call does not arrive and the connection breaks.
    LoseCall,
    /// The call arrives; its answer is lost and the connection breaks.
    LoseAnswer,
    /// The call arrives; the connection stays open, and silent.
    HoldAnswer,
    /// As `LoseAnswer`, and the database is away from then on.
    Vanish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Away,
    Frozen,
}

/// A way to a database that can be closed.
pub struct DatabaseProxy {
    folder: TempDir,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
    database: TestDatabase,
}

struct Shared {
    target: PathBuf,
    mode: watch::Sender<Mode>,
    cut: Notify,
    armed: Mutex<Option<(Fault, &'static str)>>,
}

impl DatabaseProxy {
    pub async fn to(database: &TestDatabase) -> DatabaseProxy {
        let (_, host) = database.url.split_once("?host=").expect("the cluster's socket folder");
        let target = percent_encoding::percent_decode_str(host).decode_utf8().expect("UTF-8");
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let shared = Arc::new(Shared {
            target: PathBuf::from(target.as_ref()).join(SOCKET),
            mode: watch::Sender::new(Mode::Pass),
            cut: Notify::new(),
            armed: Mutex::new(None),
        });
        let forwarder = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forwarder.clone().forward(client));
            }
        });
        DatabaseProxy { folder, shared, accepting, database: database.clone() }
    }

    /// The same database, through here.
    pub fn database(&self) -> TestDatabase {
        let (base, _) = self.database.url.split_once("?host=").expect("split above");
        let folder = self.folder.path().to_str().expect("UTF-8");
        let host =
            percent_encoding::utf8_percent_encode(folder, percent_encoding::NON_ALPHANUMERIC);
        TestDatabase { name: self.database.name.clone(), url: format!("{base}?host={host}") }
    }

    /// Cuts all connections and lets none through.
    pub fn take_away(&self) {
        self.shared.mode.send_replace(Mode::Away);
    }

    /// Cuts all connections; new ones get through.
    pub fn cut(&self) {
        self.shared.cut.notify_waiters();
    }

    /// Nothing gets through any more, and nothing is cut.
    pub fn freeze(&self) {
        self.shared.mode.send_replace(Mode::Frozen);
    }

    /// Lets everything through again.
    pub fn bring_back(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// Strikes at the next append of a writer that has appended before.
    pub fn strike_next_append(&self, fault: Fault) {
        self.strike_next(fault, "tidings.append");
    }

    /// Strikes at the next send that is scheduled on a connection that has done so before.
    pub fn strike_next_schedule(&self, fault: Fault) {
        self.strike_next(fault, "tidings.schedule");
    }

    fn strike_next(&self, fault: Fault, call: &'static str) {
        *self.shared.armed.lock().expect("not poisoned") = Some((fault, call));
    }

    /// The fault that was asked for has happened.
    pub fn has_struck(&self) -> bool {
        self.shared.armed.lock().expect("not poisoned").is_none()
    }
}

impl Drop for DatabaseProxy {
    fn drop(&mut self) {
        self.take_away();
        self.accepting.abort();
    }
}

impl Shared {
    async fn forward(self: Arc<Shared>, client: UnixStream) {
        let Ok(server) = UnixStream::connect(&self.target).await else { return };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let fault = Mutex::new(None);
        let struck = || *fault.lock().expect("not poisoned");
        let up = async {
            // Once a statement is prepared, its text does not come again.
            let mut prepared: Vec<&str> = Vec::new();
            let mut bytes = Vec::new();
            while matches!(from_client.read_buf(&mut bytes).await, Ok(1..)) {
                // Such a connection carries nothing but calls, and questions whether it lives.
                if bytes[0] != SYNC {
                    let mut armed = self.armed.lock().expect("not poisoned");
                    if let Some((struck, _)) = armed.take_if(|(_, call)| prepared.contains(call)) {
                        *fault.lock().expect("not poisoned") = Some(struck);
                    }
                }
                if struck() == Some(Fault::LoseCall) {
                    return;
                }
                for call in ["tidings.append", "tidings.schedule"] {
                    if bytes.windows(call.len()).any(|window| window == call.as_bytes()) {
                        prepared.push(call);
                    }
                }
                self.thawed().await;
                if to_server.write_all(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        };
        let down = async {
            let mut bytes = Vec::new();
            while matches!(from_server.read_buf(&mut bytes).await, Ok(1..)) {
                match struck() {
                    Some(Fault::HoldAnswer) => std::future::pending().await,
                    Some(Fault::Vanish) => {
                        self.mode.send_replace(Mode::Away);
                        return;
                    }
                    Some(_) => return,
                    None => {}
                }
                self.thawed().await;
                if to_client.write_all(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        };
        let mut mode = self.mode.subscribe();
        tokio::select! {
            biased;
            _ = mode.wait_for(|mode| *mode == Mode::Away) => {}
            () = self.cut.notified() => {}
            () = up => {}
            () = down => {}
        }
    }

    async fn thawed(&self) {
        let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::Frozen).await;
    }
}
