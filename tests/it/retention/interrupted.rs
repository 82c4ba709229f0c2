//! A removal that ends anywhere is finished by the next one, and no stream was silent meanwhile.

use serde_json::json;
use sqlx::{Connection, PgConnection};
use tidings::store::Step;

use super::old_days::*;
use super::removal::{gap_at_connect, gone};
use crate::harness::{TestDatabase, eventually};

/// Ends the session that has the maintenance lock, as a crash of its instance does.
async fn kill_the_maintainer(database: &TestDatabase) {
    let kill = "select count(pg_terminate_backend(pid)) from pg_locks
        where locktype = 'advisory' and classid = 7463 and objid = 2
          and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(database.value::<i64>(kill).await, 1);
    let free = "select pg_try_advisory_lock(7463, 2)";
    eventually("the lock is free", async || database.value::<bool>(free).await).await;
}

#[tokio::test]
async fn whatever_step_it_dies_after_the_next_run_finishes_and_nobody_missed_rows_in_silence() {
    for steps in 0..=3 {
        let database = begun_ago(3).await;
        let old = append_ago(&database, 3, "shop", "user:ada", 3).await;
        let kept = append_ago(&database, 0, "shop", "user:ada", 1).await;
        // Empty, and removed first.
        let store = store(&database);
        let mut first = store.maintenance().await.unwrap().unwrap();
        for _ in 0..3 {
            let (step, partition) = first.next_step(keep(2)).await.unwrap().unwrap();
            assert_eq!(partition.from(), None);
            first.perform(step, &partition).await.unwrap();
        }
        let mut done = Vec::new();
        for _ in 0..steps {
            let (step, partition) = first.next_step(keep(2)).await.unwrap().unwrap();
            assert_eq!(partition.rows_estimate.min(3), partition.rows_estimate);
            first.perform(step, &partition).await.unwrap();
            done.push(step);
        }
        assert_eq!(done, [Step::Retire, Step::Detach, Step::Drop][..steps]);

        kill_the_maintainer(&database).await;

        let app = server(&database, 365).await;
        let mut client = app.subscribe_after("shop/ada", &old[0]).await;
        client.next().await;
        if steps == 0 {
            client.expect(&old[1..]).await;
        } else {
            let gap = client.next_but_pings().await;
            let expected = json!({"after": old[0], "resumes_after": old[2], "reason": "expired"});
            assert_eq!(gap.json(), expected, "after {done:?}");
        }
        client.expect(&kept).await;
        client.expect_silence().await;

        let _next = server(&database, 2).await;
        gone(&database, 3).await;
        let leaving = "select count(*) from tidings.partitions where state <> 'kept'";
        eventually("nothing is left over", async || database.value::<i64>(leaving).await == 0)
            .await;
        let (_, gap) = gap_at_connect(&app, &old[0]).await;
        assert_eq!(gap["resumes_after"], old[2], "after {done:?}");
    }
}

#[tokio::test]
async fn a_detach_that_timed_out_is_finished_before_any_other_begins() {
    let database = begun_ago(3).await;
    append_ago(&database, 3, "shop", "user:ada", 3).await;
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from tidings.notification";
    sqlx::raw_sql(begin).execute(&mut reader).await.unwrap();
    let store = store(&database);
    let mut maintenance = store.maintenance().await.unwrap().unwrap();
    let (retire, first) = maintenance.next_step(keep(2)).await.unwrap().unwrap();
    maintenance.perform(retire, &first).await.unwrap();

    let (detach, same) = maintenance.next_step(keep(2)).await.unwrap().unwrap();
    assert_eq!((detach, &same.name), (Step::Detach, &first.name));
    let error = maintenance.perform(detach, &same).await.unwrap_err();
    assert!(error.is_lock_timeout(), "{error}");
    for _ in 0..2 {
        let (finish, same) = maintenance.next_step(keep(2)).await.unwrap().unwrap();
        assert_eq!((finish, &same.name), (Step::FinishDetach, &first.name));
        let error = maintenance.perform(finish, &same).await.unwrap_err();
        assert!(error.is_lock_timeout(), "{error}");
    }
    reader.close().await.unwrap();

    let mut steps = Vec::new();
    while let Some((step, partition)) = maintenance.next_step(keep(2)).await.unwrap() {
        maintenance.perform(step, &partition).await.unwrap();
        steps.push((step, partition.name == first.name));
    }
    let second = [Step::Retire, Step::Detach, Step::Drop].map(|step| (step, false));
    let mut expected = vec![(Step::FinishDetach, true), (Step::Drop, true)];
    expected.extend(second);
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn a_partition_that_somebody_detached_to_keep_it_is_left_alone() {
    let database = begun_ago(5).await;
    append_ago(&database, 4, "shop", "user:ada", 3).await;
    let detach = "do $$ begin
        execute format('alter table tidings.notification detach partition tidings.%I',
            'notification_' || to_char((clock_timestamp() at time zone 'UTC')::date - 4, 'YYYYMMDD'));
    end $$";
    database.run(detach).await;

    let _app = server(&database, 2).await;
    gone(&database, 3).await;

    assert_eq!(tables_of(&database, 4).await, 1);
}

#[tokio::test]
async fn partitions_are_made_ahead_while_one_is_on_its_way_out() {
    let database = begun_ago(3).await;
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from tidings.notification";
    sqlx::raw_sql(begin).execute(&mut reader).await.unwrap();
    let store = store(&database);
    let mut maintenance = store.maintenance().await.unwrap().unwrap();
    for timed_out in [false, true] {
        let (step, partition) = maintenance.next_step(keep(2)).await.unwrap().unwrap();
        assert_eq!(maintenance.perform(step, &partition).await.is_err(), timed_out);
    }
    reader.close().await.unwrap();
    let state = "select state from tidings.partitions where state <> 'kept'";
    assert_eq!(database.value::<String>(state).await, "detaching");

    assert_eq!(database.value::<i32>("select tidings.extend_partitions(9)").await, 2);

    assert_eq!(database.value::<String>(state).await, "detaching");
}
