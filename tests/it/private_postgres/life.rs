//! Starting, using, stopping.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::{fs, thread};

use sqlx::{Connection, PgConnection};
use tidings::postgres::{Error, running_url, unprivileged_user};

use super::harness::{Folder, is_root, kill, refusal, stat_field, try_ask, wait_until};

#[test]
fn a_new_folder_becomes_a_database_that_survives_a_stop() {
    let folder = Folder::new();
    let first = folder.start();
    folder.ask(&first, "create table kept as select 'still here' as word");
    first.stop();
    folder.wait_until_nothing_runs();

    let second = folder.start();

    assert_eq!(folder.ask(&second, "select word from kept"), "still here");
}

#[test]
fn an_acknowledged_write_is_durable_and_checked() {
    let folder = Folder::with_database();
    let postgres = folder.start();
    for setting in ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"] {
        assert_eq!(folder.ask(&postgres, &format!("show {setting}")), "on", "{setting}");
    }
    assert_eq!(folder.ask(&postgres, "show server_encoding"), "UTF8");
}

#[test]
fn the_database_is_reachable_through_its_socket_only() {
    let folder = Folder::with_database();
    let postgres = folder.start();

    assert_eq!(folder.ask(&postgres, "show listen_addresses"), "");
    let sockets = fs::metadata(folder.path().join("run")).unwrap();
    assert_eq!(sockets.permissions().mode() & 0o777, 0o700);
    let rules =
        "select string_agg(distinct type || ' ' || auth_method, ', ') from pg_hba_file_rules";
    assert_eq!(folder.ask(&postgres, rules), "host reject, local trust");
}

#[test]
fn the_server_runs_as_an_unprivileged_user() {
    let folder = Folder::with_database();
    let _postgres = folder.start();

    let server = fs::metadata(format!("/proc/{}", folder.postmaster())).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", folder.postmaster())).unwrap();
    match unprivileged_user(None).unwrap() {
        Some(user) => {
            assert_eq!((server.uid(), server.gid()), (user.uid, user.gid));
            assert!(
                status.contains("\nGroups:\t \n") || status.contains("\nGroups:\t\n"),
                "{status}"
            );
        }
        None => assert_eq!(server.uid(), rustix::process::geteuid().as_raw()),
    }
    assert_ne!(server.uid(), 0);
}

#[tokio::test]
async fn the_url_and_the_psql_line_work_for_any_folder_name() {
    let folder = Folder::named("it's a \"földer\" & $HOME");
    let postgres = folder.start();

    assert_eq!(
        folder.ask(&postgres, "select current_user || current_database()"),
        "tidingstidings"
    );
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    let (folder_of_data,): (String,) =
        sqlx::query_as("show data_directory").fetch_one(&mut connection).await.unwrap();
    assert_eq!(folder_of_data, folder.cluster().to_str().unwrap());
    assert_eq!(postgres.data_dir(), folder.path());
}

#[test]
fn a_client_command_finds_the_running_server_and_no_other() {
    let folder = Folder::with_database();
    assert_eq!(running_url(&folder.settings()).unwrap(), None);

    let postgres = folder.start();
    assert_eq!(running_url(&folder.settings()).unwrap(), Some(postgres.url()));

    let pid_file = folder.cluster().join("postmaster.pid");
    let left_by_a_crash = fs::read(&pid_file).unwrap();
    postgres.stop();
    fs::write(&pid_file, left_by_a_crash).unwrap();
    assert_eq!(running_url(&folder.settings()).unwrap(), None);
}

#[test]
fn the_server_outlives_the_thread_that_started_it() {
    let folder = Folder::with_database();
    let postgres = thread::scope(|scope| scope.spawn(|| folder.start()).join().unwrap());
    let postmaster = folder.postmaster();

    // Had the kernel sent the signal at that thread's end, the server would refuse connections now.
    assert_eq!(folder.ask(&postgres, "select 1"), "1");
    assert_eq!(folder.postmaster(), postmaster);
    assert!(!folder.log().contains("shutdown request"));
}

#[test]
fn a_ctrl_c_in_our_terminal_does_not_reach_the_server() {
    let folder = Folder::with_database();
    let _postgres = folder.start();
    let process_group = stat_field(folder.postmaster(), 5);
    assert_eq!(process_group, Some(folder.postmaster()));
}

#[test]
fn stopping_is_clean_and_may_be_asked_for_any_number_of_times() {
    let folder = Folder::with_database();
    let postgres = folder.start();

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                postgres.stop();
                assert!(folder.processes().is_empty(), "stop returned before the server was gone");
            });
        }
    });
    postgres.stop();

    assert!(folder.log().contains("database system is shut down"));
    assert!(UnixStream::connect(folder.socket()).is_err());
}

#[test]
fn dropping_it_stops_the_server_and_frees_the_folder() {
    let folder = Folder::with_database();
    drop(folder.start());
    assert!(folder.processes().is_empty());
    drop(folder.start());
}

#[test]
fn a_server_that_dies_alone_is_started_again() {
    let folder = Folder::with_database();
    let postgres = folder.start();
    folder.ask(&postgres, "create table kept as select 1 as one");

    for _ in 0..2 {
        let dead = folder.postmaster();
        kill("KILL", dead);
        wait_until("the server is back", || try_ask(&postgres, "select one from kept").is_ok());
        assert_ne!(folder.postmaster(), dead);
    }
}

#[test]
fn a_server_that_cannot_start_again_does_not_hold_up_the_stop() {
    let folder = Folder::with_database();
    let postgres = folder.start();
    fs::write(folder.cluster().join("postgresql.conf"), "no_such_setting = 1").unwrap();
    kill("KILL", folder.postmaster());
    wait_until("it tried again", || folder.log().contains("no_such_setting"));

    postgres.stop();

    assert!(folder.processes().is_empty());
}

#[test]
fn a_failed_start_quotes_the_server_and_frees_the_folder() {
    let folder = Folder::with_database();
    let configuration = folder.cluster().join("postgresql.conf");
    let good = fs::read(&configuration).unwrap();
    fs::write(&configuration, "max_connections = many").unwrap();

    let error = folder.refusal();

    assert!(matches!(error, Error::Start { .. }), "{error}");
    assert!(
        error.to_string().contains("invalid value for parameter \"max_connections\""),
        "{error}"
    );
    fs::write(&configuration, good).unwrap();
    drop(folder.start());
}

#[test]
fn an_interrupted_first_start_is_begun_again() {
    let folder = Folder::new();
    let unfinished = folder.path().join("postgres.new/base");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("rubbish"), "half a page").unwrap();

    let postgres = folder.start();

    assert_eq!(folder.ask(&postgres, "select 1"), "1");
    assert!(!folder.path().join("postgres.new").exists());
}

#[test]
fn a_failing_initdb_is_quoted_and_leaves_no_database() {
    let folder = Folder::new();
    let bin = folder.root().join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, script) in [
        ("postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n"),
        ("initdb", "#!/bin/sh\necho 'the disk is full' >&2\nexit 3\n"),
    ] {
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut settings = folder.settings();
    settings.bin_dir = Some(bin);

    let error = refusal(&settings);

    assert!(matches!(error, Error::Initdb { .. }), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(!folder.cluster().exists());
}

#[test]
fn a_careful_umask_does_not_lock_the_server_out() {
    if !is_root() {
        return crate::harness::skipped("only root runs the server as somebody else");
    }
    let folder = Folder::named("a/b/c");
    let under = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    super::harness::Tidings::start_under(&under, &folder).end();
}
