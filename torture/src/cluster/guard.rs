//! Processes that end with the tester, even when it is killed. A shell beside it knows their pids.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wire::Outcome;

/// Removes `folder` and ends all processes when it is dropped, which its parent's end does.
pub(crate) struct Guard {
    shell: Mutex<Child>,
}

/// A child process that is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    guard: Arc<Guard>,
}

impl Guard {
    pub(crate) fn over(folder: &Path) -> Outcome<Arc<Self>> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(include_str!("guard.sh")).arg("guard").arg(folder);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).current_dir("/");
        let shell = shell.spawn().map_err(|error| format!("cannot start a shell: {error}"))?;
        Ok(Arc::new(Self { shell: Mutex::new(shell) }))
    }

    /// Starts a program in a process group of its own: ctrl-C is for the tester, which ends it.
    pub(crate) fn spawn(self: &Arc<Self>, command: &mut Command) -> Outcome<Process> {
        let name = command.get_program().to_owned();
        let child = command.process_group(0).stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("cannot start {}: {error}", name.display()))?;
        self.tell('+', child.id());
        Ok(Process { child, guard: self.clone() })
    }

    fn tell(&self, what: char, pid: u32) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stdin) = &mut shell.stdin {
            let _ = writeln!(stdin, "{what}{pid}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let shell = self.shell.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(shell.stdin.take());
        let _ = shell.wait();
    }
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Outcome<()> {
        send_signal(self.pid(), signal)
    }

    pub(crate) fn has_ended(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it is gone.
    pub(crate) async fn ended(&mut self, deadline: Duration) -> Outcome<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("process {} was still there after {deadline:?}", self.pid()).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.guard.tell('-', self.pid());
    }
}

/// Of a process of ours, or of a backend of our Postgres.
pub(crate) fn send_signal(pid: u32, signal: Signal) -> Outcome<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("not a pid")?;
    Ok(kill_process(pid, signal)?)
}
