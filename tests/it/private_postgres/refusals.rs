//! What cannot work is refused with one sentence that says what to do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use tidings::postgres::{Error, find_programs, unprivileged_user};

use super::harness::{Folder, is_root, refusal};
use crate::harness::skipped;

#[test]
fn a_folder_that_the_servers_user_cannot_reach_is_named() {
    if !is_root() {
        return skipped("only root runs the server as somebody else");
    }
    let folder = Folder::named("closed/data");
    let closed = folder.root().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();

    let error = folder.refusal();

    assert!(
        matches!(&error, Error::Unreachable { blocking, .. } if *blocking == closed),
        "{error}"
    );
    says(&error, &["TIDINGS_DATA_DIR", "chmod o+x", closed.to_str().unwrap()]);
}

#[test]
fn programs_that_the_servers_user_cannot_reach_are_named() {
    if !is_root() {
        return skipped("only root runs the server as somebody else");
    }
    let folder = Folder::new();
    let closed = folder.root().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let programs = find_programs(None, None).unwrap();
    for program in [&programs.initdb, &programs.postgres] {
        fs::copy(program, closed.join(program.file_name().unwrap())).unwrap();
    }
    let mut settings = folder.settings();
    settings.bin_dir = Some(closed.clone());

    let error = refusal(&settings);

    assert!(
        matches!(&error, Error::Unreachable { blocking, .. } if *blocking == closed),
        "{error}"
    );
    says(&error, &["TIDINGS_POSTGRES_BIN"]);
}

#[test]
fn a_folder_we_may_not_write_to_is_refused() {
    if is_root() {
        return skipped("root may write anywhere");
    }
    let mut settings = Folder::new().settings();
    settings.data_dir = Some(PathBuf::from("/tidings-of-an-ordinary-user"));
    let error = refusal(&settings);
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    says(&error, &["/tidings-of-an-ordinary-user", "TIDINGS_DATA_DIR"]);
}

#[test]
fn a_database_of_another_user_is_refused() {
    if !is_root() {
        return skipped("only root can give files away");
    }
    let folder = Folder::with_database();
    chown(folder.cluster(), Some(12345), None).unwrap();
    let error = folder.refusal();
    assert!(matches!(error, Error::WrongOwner { uid: 12345, .. }), "{error}");
    says(&error, &["12345", "TIDINGS_POSTGRES_USER", "chown -R"]);
}

#[test]
fn a_database_of_another_major_is_refused_and_left_alone() {
    let folder = Folder::with_database();
    fs::write(folder.cluster().join("PG_VERSION"), "99\n").unwrap();
    let error = folder.refusal();
    assert!(matches!(error, Error::WrongMajor { wanted: 99, .. }), "{error}");
    let installed = find_programs(None, None).unwrap().major.to_string();
    says(&error, &["Postgres 99", &installed, "TIDINGS_POSTGRES_BIN"]);
}

#[test]
fn a_folder_that_is_no_database_is_not_overwritten() {
    let folder = Folder::new();
    fs::create_dir_all(folder.cluster()).unwrap();
    fs::write(folder.cluster().join("precious"), "data").unwrap();
    let error = folder.refusal();
    assert!(matches!(error, Error::NotADatabase { .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.cluster().join("precious")).unwrap(), "data");
}

#[test]
fn without_programs_every_way_out_is_named() {
    let folder = Folder::new();
    let mut settings = folder.settings();
    settings.bin_dir = Some(folder.root().to_owned());
    let error = refusal(&settings);
    assert!(matches!(error, Error::NoPrograms { .. }), "{error}");
    says(&error, &["install PostgreSQL", "TIDINGS_POSTGRES_BIN", "DATABASE_URL"]);
    assert!(!folder.path().exists(), "a refused start left a folder behind");
}

#[test]
fn a_postgres_that_is_too_old_for_the_store_is_refused() {
    let folder = Folder::new();
    for name in ["initdb", "postgres"] {
        let program = folder.root().join(name);
        fs::write(&program, "#!/bin/sh\necho 'postgres (PostgreSQL) 13.18'\n").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    let error = find_programs(Some(folder.root()), None).unwrap_err();
    says(&error, &["13 (", "too old", "PostgreSQL 14 or newer"]);
    assert_eq!(find_programs(Some(folder.root()), Some(13)).unwrap().major, 13);
}

#[test]
fn a_socket_path_that_does_not_fit_is_refused_before_anything_is_made() {
    let longest = |root: usize| 107 - root - "//run/.s.PGSQL.5432".len();
    let root = Folder::new().root().as_os_str().len();
    let fits = Folder::named("x".repeat(longest(root)));
    drop(fits.start());

    let folder = Folder::named("x".repeat(longest(root) + 1));
    let error = folder.refusal();

    assert!(matches!(error, Error::SocketPath { .. }), "{error}");
    says(&error, &["has 108 bytes", "allows 107", "TIDINGS_DATA_DIR"]);
    assert!(!folder.path().exists());
}

#[test]
fn a_folder_with_a_comma_is_refused_since_clients_cannot_name_it() {
    let error = Folder::named("a,b").refusal();
    assert!(matches!(error, Error::FolderName { .. }), "{error}");
    says(&error, &["comma", "TIDINGS_DATA_DIR"]);
}

#[test]
fn as_root_the_server_gets_a_user_that_exists_and_is_not_root() {
    if !is_root() {
        assert_eq!(unprivileged_user(Some("nobody")).unwrap(), None);
        return;
    }
    assert_eq!(unprivileged_user(Some("nobody")).unwrap().unwrap().name, "nobody");
    for name in ["root", "no-such-user", ""] {
        let error = unprivileged_user(Some(name)).unwrap_err();
        says(&error, &["TIDINGS_POSTGRES_USER"]);
    }
}

#[test]
fn as_root_a_server_can_run_as_the_user_that_was_asked_for() {
    if !is_root() {
        return skipped("only root chooses");
    }
    let folder = Folder::new();
    let mut settings = folder.settings();
    settings.user = Some("nobody".to_owned());
    let postgres = tidings::postgres::PrivatePostgres::start(&settings).unwrap();
    assert_eq!(folder.ask(&postgres, "select 1"), "1");
}

/// One sentence, with these words in it.
fn says(error: &Error, words: &[&str]) {
    let sentence = error.to_string();
    for word in words {
        assert!(sentence.contains(word), "{word:?} is missing: {sentence}");
    }
    assert!(!sentence.contains('\n') && !sentence.contains(". "), "not one sentence: {sentence}");
}
