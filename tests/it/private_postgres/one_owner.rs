//! One folder, one server.

use std::fs::File;
use std::thread;

use tidings::postgres::Error;

use super::harness::{Folder, Tidings};

#[test]
fn a_second_tidings_is_turned_away_and_the_first_does_not_notice() {
    let folder = Folder::with_database();
    let first = Tidings::start(&folder);
    let server = folder.postmaster();

    let error = folder.refusal();

    assert!(matches!(error, Error::Owned { pid: Some(pid), .. } if pid == first.pid()), "{error}");
    assert!(error.to_string().contains(&format!("process {}", first.pid())), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    assert_eq!(folder.postmaster(), server);
    assert!(!folder.log().contains("shutdown request"), "{}", folder.log());
    first.end();
}

#[test]
fn of_many_that_start_at_once_on_a_new_folder_exactly_one_runs() {
    let folder = Folder::new();
    let start = || tidings::postgres::PrivatePostgres::start(&folder.settings());
    let outcomes: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });

    let refused = outcomes.iter().filter(|one| matches!(one, Err(Error::Owned { .. }))).count();
    assert_eq!(refused, 3, "{outcomes:?}");
    let postgres = outcomes.iter().flatten().next().unwrap();
    assert_eq!(folder.ask(postgres, "select 1"), "1");
}

#[test]
fn nobody_else_may_open_the_locks() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with_database();
    let _postgres = folder.start();
    for name in ["owner.lock", "server.lock", "postgres.log"] {
        let mode = File::open(folder.path().join(name)).unwrap().metadata().unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}
