//! Other people's programs: found where distributions put them, started on ports of their own, and
//! ended with the value.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal};
use tokio::net::TcpStream;

use super::missing;

/// A program that runs until this is dropped.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

/// Where a program is; else says that it is missing.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        missing(&format!("there is no {name}: install the package {name}"));
    }
    found
}

/// A port for a program that has to be told which. It is below those that the kernel gives to
/// connections, and given once, so that no other test takes it in between.
pub fn free_address() -> SocketAddr {
    static FIRST: OnceLock<u16> = OnceLock::new();
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const PORTS: u16 = 12_000;
    let first = FIRST.get_or_init(|| fastrand::u16(..PORTS));
    let next = || 20_000 + (first + GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(next).take(1000).find(free);
    SocketAddr::from(([127, 0, 0, 1], port.expect("a free port")))
}

impl Program {
    /// Starts `command`, whose standard error is to be the file `log` in `folder`, and waits until it
    /// listens.
    pub async fn start(mut command: Command, folder: &Path, address: SocketAddr) -> Program {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = folder.join("log");
        let stderr = std::fs::File::create(&log).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut program = Program { child, name, log };
        super::eventually("it listens", async || {
            program.expect_running();
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        program
    }

    fn expect_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            let log = std::fs::read_to_string(&self.log);
            panic!("{} ended ({status}): {}", self.name, log.unwrap_or_default());
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        let _ = rustix::process::kill_process(pid, signal);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }
}
