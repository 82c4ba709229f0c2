//! `tidings prune`: the same by hand.

use std::process::Output;

use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::old_days::*;
use crate::harness::{DEADLINE, ServerProcess, TestDatabase};

async fn prune(database: &TestDatabase, arguments: &[&str]) -> Output {
    let arguments: Vec<&str> = ["prune"].iter().chain(arguments).copied().collect();
    let variables = [("DATABASE_URL", database.url.as_str()), ("TIDINGS_RETENTION", "2d")];
    let mut command = ServerProcess::command(&arguments, &variables);
    timeout(DEADLINE, command.output()).await.expect("it ends in time").expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two partitions to remove, and four rows of an app.
async fn with_old_rows() -> TestDatabase {
    let database = begun_ago(3).await;
    append_ago(&database, 3, "shop", "user:ada", 3).await;
    append_ago(&database, 2, "brief", "user:ada", 4).await;
    append_ago(&database, 0, "shop", "user:ada", 2).await;
    let settings = "insert into tidings.app_setting (app, retention)
        values ('brief', '30 hours'), ('long', '90 days')";
    database.run(settings).await;
    database
}

/// What `prune` prints for it.
async fn expected(database: &TestDatabase) -> [String; 3] {
    let day = async |days: i32| -> String {
        let day = format!("select ((clock_timestamp() at time zone 'UTC')::date - {days})::text");
        database.value(&day).await
    };
    let (first, second) = (day(3).await, day(2).await);
    let name = |day: &str| day.replace('-', "");
    [
        format!("partition notification_to_{}  before {first}  about ", name(&first)),
        format!("partition notification_{}  {first} to {second}  about ", name(&first)),
        "app brief  4 rows older than 30:00:00".to_owned(),
    ]
}

fn expect_lines(output: &Output, expected: &[String]) {
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), expected.len(), "{output:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line:?}, not {expected:?}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_prune_then_does_and_changes_nothing() {
    let database = with_old_rows().await;
    let everything = "select count(*) || ' ' || (select count(*) from tidings.partitions)
        || (select count(*) from tidings.app_edge) || (select edge from tidings.retention_edge)
        || (select last_value from tidings.position) from tidings.notification";
    let before: String = database.value(everything).await;
    let expected = expected(&database).await;

    let dry = prune(&database, &["--dry-run"]).await;

    assert_eq!(dry.status.code(), Some(0), "{dry:?}");
    expect_lines(&dry, &expected);
    let said = text(&dry.stderr);
    assert!(said.contains("would remove 2 partitions, and 4 rows"), "{said}");
    assert!(
        said.contains("the app long keeps its notifications for 90 days, which has no effect"),
        "{said}"
    );
    assert_eq!(database.value::<String>(everything).await, before);

    let done = prune(&database, &[]).await;

    assert_eq!(done.status.code(), Some(0), "{done:?}");
    expect_lines(&done, &expected);
    assert!(text(&done.stderr).contains("removed 2 partitions, and 4 rows"), "{done:?}");
    assert_eq!(database.count().await, 2);
    let again = prune(&database, &[]).await;
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    expect_lines(&again, &[]);
}

#[tokio::test]
async fn the_flag_says_how_long_to_keep() {
    let database = with_old_rows().await;
    let dry = prune(&database, &["--dry-run", "--retention", "3d"]).await;
    expect_lines(
        &dry,
        &[expected(&database).await[0].clone(), expected(&database).await[2].clone()],
    );
    let refused = prune(&database, &["--retention", "3 hours"]).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[tokio::test]
async fn what_prune_meets_is_in_its_exit_code() {
    let database = with_old_rows().await;
    let mut dump = PgConnection::connect(&database.url).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from tidings.notification";
    sqlx::raw_sql(begin).execute(&mut dump).await.unwrap();
    let in_use = prune(&database, &[]).await;
    assert_eq!(in_use.status.code(), Some(1), "{in_use:?}");
    assert!(text(&in_use.stderr).contains("is in use"), "{in_use:?}");
    dump.close().await.unwrap();
    let done = prune(&database, &[]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    expect_lines(&done, &expected(&database).await[..2]);

    let empty = TestDatabase::empty().await;
    let not_migrated = prune(&empty, &["--dry-run"]).await;
    assert_eq!(not_migrated.status.code(), Some(1), "{not_migrated:?}");
    assert!(text(&not_migrated.stderr).contains("run `tidings migrate` first"), "{not_migrated:?}");

    let nobody = TestDatabase { url: "postgres://127.0.0.1:1/nobody".to_owned(), ..empty };
    let unreachable = prune(&nobody, &[]).await;
    assert_eq!(unreachable.status.code(), Some(4), "{unreachable:?}");
}

#[tokio::test]
async fn without_a_database_prune_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("TIDINGS_DATA_DIR", folder.path().to_str().unwrap())];
    let mut command = ServerProcess::command(&["prune"], &variables);
    let output = timeout(DEADLINE, command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("there is no database"), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
