//! The real program.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::DEADLINE;

/// A running `tidings serve` that is killed when dropped.
pub struct ServerProcess {
    pub child: Child,
    pub address: SocketAddr,
    /// What it printed at start.
    pub banner: Vec<String>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl ServerProcess {
    /// A command with a clean environment and no `.env` in its folder.
    pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .args(arguments)
            .current_dir(std::env::temp_dir())
            .kill_on_drop(true)
            .stdin(Stdio::null());
        for (name, _) in std::env::vars()
            .filter(|(name, _)| name.starts_with("TIDINGS_") || name == "DATABASE_URL")
        {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        command
    }

    /// Starts a server on a free port and waits until it says that it is ready.
    pub async fn start(variables: &[(&str, &str)]) -> ServerProcess {
        ServerProcess::start_on("127.0.0.1:0", variables).await
    }

    /// The same on a given address.
    pub async fn start_on(listen: &str, variables: &[(&str, &str)]) -> ServerProcess {
        ServerProcess::spawn(ServerProcess::command(&["serve", "--listen", listen], variables))
            .await
    }

    /// Starts what [`ServerProcess::command`] made.
    pub async fn spawn(mut command: Command) -> ServerProcess {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let mut banner = Vec::new();
        let address = timeout(DEADLINE, async {
            let mut address = None;
            // The curl lines come last.
            while let Some(line) = stdout.next_line().await.expect("text") {
                if let Some(at) = line.find("http://")
                    && address.is_none()
                {
                    let end = line[at + 7..]
                        .find(|c: char| c == '/' || c.is_whitespace())
                        .unwrap_or(line.len() - at - 7);
                    address = line[at + 7..at + 7 + end].parse().ok();
                }
                banner.push(line);
                if banner.iter().filter(|line| line.contains("curl ")).count() == 3 {
                    break;
                }
            }
            address
        });
        let address = address
            .await
            .expect("a start in time")
            .unwrap_or_else(|| panic!("no address in {banner:?}"));
        ServerProcess { child, address, banner, stdout }
    }

    /// The next line that it prints.
    pub async fn next_line(&mut self) -> Option<String> {
        timeout(DEADLINE, self.stdout.next_line()).await.expect("a line in time").expect("text")
    }

    pub fn pid(&self) -> i32 {
        self.child.id().expect("not reaped yet") as i32
    }

    /// What it holds in memory.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that it ever held.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs, on Linux");
        let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        value.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("our own child");
    }
}
