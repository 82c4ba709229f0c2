//! The guard of the test cluster: nothing is left of it, however the tests end.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{TestDatabase, eventually};

const IS_CHILD: &str = "TIDINGS_TEST_GUARDED";
const FOLDER_IS: &str = "the cluster is in ";

#[tokio::test]
async fn the_cluster_is_removed_when_the_tests_are_killed() {
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guard::child_with_a_cluster", "--ignored", "--nocapture"])
        .env(IS_CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tests.stdout.take().unwrap()).lines();
    let folder = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once(FOLDER_IS)?.1.to_owned()))
        .expect("it says where");
    assert!(Path::new(&folder).join("data").exists());
    assert!(!processes_in(&folder).is_empty());

    tests.kill().unwrap();
    tests.wait().unwrap();

    eventually("its folder and processes are gone", async || {
        !Path::new(&folder).exists() && processes_in(&folder).is_empty()
    })
    .await;
}

/// Not a test: the test run that is killed.
#[tokio::test]
#[ignore = "run by another test, as a process of its own"]
async fn child_with_a_cluster() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let pool = TestDatabase::empty().await.pool().await;
    let folder: String =
        sqlx::query_scalar("show unix_socket_directories").fetch_one(&pool).await.unwrap();
    writeln!(std::io::stdout(), "{FOLDER_IS}{folder}").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Those that work in the folder, or were told of it.
fn processes_in(folder: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let place = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        place.starts_with(folder) || String::from_utf8_lossy(&command).contains(folder)
    })
    .collect()
}
