//! What an earlier run left behind. Postgres itself tells a left-over server by the number in
//! `postmaster.pid`, and takes any process that happens to have that number now for a live server;
//! so we look for the processes themselves, end them, and only then remove the stale files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Error;
use super::folder::{self, Folder};
use super::server::{PID_FILE, PidFile, STOP_GRACE};

const POLL: Duration = Duration::from_millis(10);

/// Ends every process of an earlier server on this folder, removes the files it left, and returns
/// the server lock, taken: the proof that none is left. Needs the folder's ownership.
pub(super) fn end(folder: &Folder) -> Result<File, Error> {
    let lock = folder.server_lock()?;
    let began = Instant::now();
    let mut asked = Vec::new();
    let mut urged = false;
    loop {
        let processes = processes_on(folder);
        if processes.is_empty() && take(&lock, folder)? {
            break;
        }
        ask_to_stop(&processes, &mut asked, folder);
        // Never SIGKILL: a postmaster that cannot say goodbye leaves its children writing.
        if began.elapsed() > STOP_GRACE && !urged {
            urged = true;
            processes.iter().for_each(|pid| signal(*pid, Signal::QUIT));
        }
        if began.elapsed() > STOP_GRACE * 2 {
            return Err(give_up(&processes, folder));
        }
        thread::sleep(POLL);
    }
    reap_orphans(None);
    let stale = [folder.cluster().join(PID_FILE), folder.socket(), socket_lock(folder)];
    for path in stale {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::folder(&path, error));
            }
            _ => {}
        }
    }
    Ok(lock)
}

fn take(lock: &File, folder: &Folder) -> Result<bool, Error> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::folder(&folder.server_lock_path(), source)),
    }
}

/// A postmaster takes its children with it. Children whose postmaster is gone end by themselves
/// unless they are busy; those get SIGTERM, since SIGINT would make a checkpointer of Postgres 18
/// write a shutdown checkpoint while others may still write pages.
fn ask_to_stop(processes: &[u32], asked: &mut Vec<u32>, folder: &Folder) {
    let pid_file = fs::read_to_string(folder.cluster().join(PID_FILE)).unwrap_or_default();
    let postmaster = PidFile::parse(&pid_file).map(|file| file.pid);
    let postmaster = postmaster.filter(|pid| processes.contains(pid));
    let (targets, kind) = match &postmaster {
        Some(pid) => (std::slice::from_ref(pid), Signal::INT),
        None => (processes, Signal::TERM),
    };
    let new: Vec<u32> = targets.iter().filter(|pid| !asked.contains(pid)).copied().collect();
    if !new.is_empty() {
        tracing::warn!(pids = ?new, "stopping what an earlier run of the private Postgres left");
    }
    new.iter().for_each(|pid| signal(*pid, kind));
    asked.extend(new);
}

fn give_up(processes: &[u32], folder: &Folder) -> Error {
    let who = if processes.is_empty() {
        format!("`fuser {}` shows it", folder.server_lock_path().display())
    } else {
        let pids: Vec<String> = processes.iter().map(u32::to_string).collect();
        format!("process {}", pids.join(", "))
    };
    Error::LeftOver { cluster: folder.cluster(), who }
}

fn socket_lock(folder: &Folder) -> PathBuf {
    folder.sockets().join(format!(".s.PGSQL.{}.lock", folder::PORT))
}

/// Every Postgres process that works in the database's folder; not a person's shell in there.
fn processes_on(folder: &Folder) -> Vec<u32> {
    let clusters = [folder.cluster(), folder.unfinished_cluster()];
    let places: Vec<_> = clusters.iter().filter_map(|path| folder::identity(path).ok()).collect();
    let works_on = |process: &Path| match folder::identity(&process.join("cwd")) {
        Ok(place) => places.contains(&place) && runs_postgres(process),
        // Root of a container without CAP_SYS_PTRACE may not look, but may read the arguments.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            clusters.iter().any(|cluster| was_started_on(process, cluster))
        }
        Err(_) => false,
    };
    all_processes().into_iter().filter(|pid| works_on(&proc_folder(*pid))).collect()
}

fn runs_postgres(process: &Path) -> bool {
    let Ok(program) = fs::read_link(process.join("exe")) else { return false };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // An upgrade while it runs removes the file beneath it, which the kernel appends.
    name.trim_end_matches(" (deleted)") == "postgres"
}

fn was_started_on(process: &Path, cluster: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0);
    let program = arguments.next().unwrap_or_default();
    program.ends_with(b"postgres")
        && arguments.any(|argument| argument == cluster.as_os_str().as_encoded_bytes())
}

/// As PID 1 we inherit the children of a postmaster that died alone, and nobody else will ever
/// collect them. `ours` is left to whoever waits for it.
pub(super) fn reap_orphans(ours: Option<u32>) {
    if std::process::id() != 1 {
        return;
    }
    for pid in all_processes().into_iter().filter(|pid| Some(*pid) != ours) {
        let stat = fs::read_to_string(proc_folder(pid).join("stat")).unwrap_or_default();
        if stat.contains("(postgres) Z 1 ") {
            let _ = waitpid(raw(pid), WaitOptions::NOHANG);
        }
    }
}

fn all_processes() -> Vec<u32> {
    // Numbers of another PID namespace would be other processes here.
    let own = fs::read_link("/proc/self").unwrap_or_default();
    if own != Path::new(&std::process::id().to_string()) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn proc_folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

pub(super) fn signal(pid: u32, kind: Signal) {
    if let Some(pid) = raw(pid) {
        let _ = kill_process(pid, kind); // it may have ended this instant
    }
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}
