//! Everything that can be killed is killed, and the next start finds what was committed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use tidings::postgres::PrivatePostgres;

use super::harness::{
    Folder, Tidings, as_the_server, is_alive, is_root, kill, stat_field, try_ask, wait_until,
};
use crate::harness::skipped;

#[test]
fn a_kill_9_of_tidings_shuts_the_database_down_cleanly() {
    let folder = Folder::with_database();
    let tidings = Tidings::start(&folder);

    tidings.kill_9();

    folder.wait_until_nothing_runs();
    assert!(folder.log().contains("database system is shut down"), "{}", folder.log());
    let postgres = folder.start();
    assert!(!folder.log().contains("not properly shut down"), "{}", folder.log());
    assert_eq!(folder.ask(&postgres, "select 1"), "1");
}

#[test]
fn a_start_right_after_a_kill_9_waits_for_the_old_server() {
    let folder = Folder::with_database();
    let tidings = Tidings::start(&folder);
    let old = folder.postmaster();

    tidings.kill_9();
    let postgres = folder.start();

    assert!(!is_alive(old));
    assert_eq!(folder.ask(&postgres, "select 1"), "1");
}

#[test]
fn what_was_committed_survives_the_death_of_tidings_and_server_together() {
    let folder = Folder::with_database();
    let tidings = Tidings::start(&folder);
    let committed = as_the_server("psql")
        .args(["-XAtq", "-U", "tidings", "-c", "create table kept as select 'yes' as word", "-h"])
        .arg(folder.path().join("run"))
        .status();
    assert!(committed.unwrap().success());

    // Stopped, so that it does not start the server again in between.
    kill("STOP", tidings.pid());
    kill("KILL", folder.postmaster());
    tidings.kill_9();

    let postgres = folder.start();
    assert!(folder.log().contains("not properly shut down"), "{}", folder.log());
    assert_eq!(folder.ask(&postgres, "select word from kept"), "yes");
}

#[test]
fn a_kill_9_in_the_first_start_leaves_nothing_half_made() {
    let folder = Folder::new();
    let mut tidings = Tidings::command(&[], &folder).spawn().unwrap();
    wait_until("initdb works", || folder.path().join("postgres.new/base").exists());
    tidings.kill().unwrap();
    tidings.wait().unwrap();
    assert!(!folder.cluster().exists(), "initdb was faster than the kill");

    let postgres = folder.start();

    assert_eq!(folder.ask(&postgres, "select 1"), "1");
}

#[test]
fn a_recycled_number_in_the_pid_files_does_not_stop_the_start() {
    let folder = Folder::with_database();
    let tidings = Tidings::start(&folder);
    let pid_file = folder.cluster().join("postmaster.pid");
    let socket_lock = folder.path().join("run/.s.PGSQL.5432.lock");
    let mut bystander = Bystander::sleep(as_the_server("sleep"));
    let now_somebody_else = |path| {
        let text = fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        format!("{}\n{rest}", bystander.pid())
    };
    let (left_pid_file, left_socket_lock) =
        (now_somebody_else(&pid_file), now_somebody_else(&socket_lock));
    tidings.kill_9();
    folder.wait_until_nothing_runs();
    fs::write(pid_file, left_pid_file).unwrap();
    fs::write(socket_lock, left_socket_lock).unwrap();

    let postgres = folder.start();

    assert_eq!(folder.ask(&postgres, "select 1"), "1");
    assert!(bystander.is_unharmed());
}

#[test]
fn a_server_left_running_is_stopped_cleanly_before_ours_starts() {
    let folder = Folder::with_database();
    let mut left_over = run_unsupervised(&folder);

    let postgres = folder.start();

    assert!(left_over.0.try_wait().unwrap().is_some(), "the left-over still runs");
    assert!(!folder.log().contains("not properly shut down"), "{}", folder.log());
    assert_eq!(folder.ask(&postgres, "select 1"), "1");
}

#[test]
fn a_left_over_is_found_without_the_right_to_look_into_other_processes() {
    if !is_root() {
        return skipped("only root's server belongs to somebody else");
    }
    let folder = Folder::with_database();
    let mut left_over = run_unsupervised(&folder);

    let container = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    let tidings = Tidings::start_under(&container, &folder);

    assert!(left_over.0.try_wait().unwrap().is_some(), "the left-over still runs");
    tidings.end();
}

#[test]
fn a_persons_shell_in_the_folder_is_left_alone() {
    let folder = Folder::with_database();
    let mut command = as_the_server("sleep");
    command.current_dir(folder.cluster());
    let mut shell = Bystander::sleep(command);

    drop(folder.start());

    assert!(shell.is_unharmed());
}

#[test]
fn the_server_lock_is_held_until_the_last_process_of_the_server_is_gone() {
    let folder = Folder::with_database();
    let postgres = folder.start();
    let lock = fs::File::open(folder.path().join("server.lock")).unwrap();
    assert!(lock.try_lock().is_err());

    postgres.stop();

    lock.try_lock().unwrap();
}

#[test]
fn as_pid_1_it_starts_restarts_its_server_and_reaps_what_that_leaves() {
    let Some(wrapper) = new_pid_namespace() else { return };
    let folder = Folder::with_database();
    let tidings = Tidings::start_under(&wrapper, &folder);
    let unshare = tidings.pid();
    let first = find_child(find_child(unshare, "").unwrap(), "postgres").unwrap();

    kill("KILL", first);
    let pid_1 = find_child(unshare, "").unwrap();
    let another = || find_child(pid_1, "postgres").is_some_and(|pid| pid != first);
    wait_until("the server is back", || another() && UnixStream::connect(folder.socket()).is_ok());
    wait_until("nothing is left unreaped", || find_zombie_child(pid_1).is_none());

    tidings.end();
    folder.wait_until_nothing_runs();
    assert!(folder.log().contains("database system is shut down"), "{}", folder.log());
}

#[test]
fn a_kill_9_of_tidings_as_pid_1_is_recovered_from() {
    let Some(wrapper) = new_pid_namespace() else { return };
    let folder = Folder::with_database();
    let tidings = Tidings::start_under(&wrapper, &folder);

    kill("KILL", find_child(tidings.pid(), "").unwrap());
    folder.wait_until_nothing_runs();

    Tidings::start_under(&wrapper, &folder).end();
}

#[test]
fn a_left_over_that_cannot_be_seen_from_here_is_waited_for() {
    let Some(wrapper) = new_pid_namespace() else { return };
    let folder = Folder::with_database();
    let unseen = PrivatePostgres::start(&folder.settings()).unwrap();
    // As after a kill -9 elsewhere: the server still runs, its Tidings no longer owns the folder.
    fs::rename(folder.path().join("owner.lock"), folder.path().join("owner.lock.gone")).unwrap();
    let mut tidings = Tidings::command(&wrapper, &folder).spawn().unwrap();
    let owner = folder.path().join("owner.lock");
    wait_until("it owns the folder", || fs::read_to_string(&owner).is_ok_and(|pid| pid == "1\n"));

    assert_eq!(try_ask(&unseen, "select pg_sleep(0.5)"), Ok(String::new()));
    assert!(tidings.try_wait().unwrap().is_none());
    assert!(folder.cluster().join("postmaster.pid").exists(), "it removed a live server's file");

    unseen.stop();
    drop(tidings.stdin.take());
    assert!(tidings.wait().unwrap().success());
}

/// A server on the folder that nobody looks after.
fn run_unsupervised(folder: &Folder) -> Reaped {
    drop(folder.start());
    let mut command = as_the_server("postgres");
    command.arg("-D").arg(folder.cluster()).args(["-c", "listen_addresses=", "-c"]);
    command.arg(format!("unix_socket_directories={}", folder.path().join("run").display()));
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it accepts connections", || UnixStream::connect(folder.socket()).is_ok());
    Reaped(child)
}

/// Any other process, which must not be harmed.
struct Bystander(Reaped);

impl Bystander {
    fn sleep(mut command: Command) -> Bystander {
        Bystander(Reaped(command.arg("600").spawn().unwrap()))
    }

    fn pid(&self) -> u32 {
        self.0.0.id()
    }

    fn is_unharmed(&mut self) -> bool {
        self.0.0.try_wait().unwrap().is_none()
    }
}

/// Killed at the end of the test, whatever happens.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn new_pid_namespace() -> Option<Vec<&'static str>> {
    let mut wrapper = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !is_root() {
        wrapper.extend(["--user", "--map-current-user"]);
    }
    let tried = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(wrapper);
    }
    skipped("this system does not let us make a PID namespace");
    None
}

/// A living child by the beginning of its name, numbered as we see it.
fn find_child(parent: u32, name: &str) -> Option<u32> {
    children(parent).find(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.starts_with(name) && is_alive(*pid)
    })
}

fn find_zombie_child(parent: u32) -> Option<u32> {
    children(parent).find(|pid| !is_alive(*pid))
}

fn children(parent: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(move |pid| stat_field(*pid, 4) == Some(parent))
}
