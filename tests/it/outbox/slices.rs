//! What one move takes: a share for each app, in bounded time, however much waits and whatever cannot be
//! moved yet.

use super::{connect, drain, run, stored, waiting};
use crate::harness::{TestApp, TestDatabase, eventually};

/// Pages of 8 KiB that a plan touched, all of which were in memory.
fn buffers(plan: &[String]) -> u32 {
    let hit = plan.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared hit="));
    hit.and_then(|hit| hit.split(' ').next()?.parse().ok()).expect("buffers")
}

#[tokio::test]
async fn a_big_send_of_one_app_does_not_delay_the_others() {
    let database = TestDatabase::new().await;
    // All of it waits when the drainer comes.
    database
        .run(
            "begin;
            select count(tidings.send('noisy', 'u' || i, to_json(i))) from generate_series(1, 12000) i;
            select tidings.send('a-shop', 'ada', '1');
            select tidings.send('z-shop', 'ada', '1');
            commit",
        )
        .await;
    let app = TestApp::on(database, |_| {}).await;
    eventually("all are moved", async || app.database.count().await == 12_002).await;

    for other in ["a-shop", "z-shop"] {
        let before = format!(
            "select count(*) from tidings.notification
            where app = 'noisy' and id < (select id from tidings.notification where app = '{other}')"
        );
        let before: i64 = app.database.value(&before).await;
        assert!(before < 1000, "{before} before {other}");
    }
    let noisy: Vec<String> = (1..=12_000).map(|number| number.to_string()).collect();
    assert!(stored(&app.database, "noisy").await == noisy, "in the order of the calls");
}

#[tokio::test]
async fn a_slice_ends_early_however_much_waits() {
    let database = TestDatabase::new().await;
    let send = "select count(tidings.put_into_outbox('noisy', 'everyone', null, '1', null, null))
        from generate_series(1, 80000) i";
    database.run(send).await;
    drain(&mut connect(&database).await, 80_000).await;
    // A quarter of a second is not enough for all, so an app that comes meanwhile soon has its turn.
    assert!((1..80_000).contains(&database.count().await));
}

#[tokio::test]
async fn what_others_have_not_committed_or_an_old_snapshot_keeps_is_not_read_past() {
    let database = TestDatabase::new().await;
    let send =
        "select count(tidings.send('noisy', 'ada', to_json(i))) from generate_series(1, 20000) i";
    let mut old = connect(&database).await;
    run(&mut old, "begin isolation level repeatable read; select 1").await;
    database.run(send).await;
    let mut drainer = connect(&database).await;
    while waiting(&database).await > 0 {
        drain(&mut drainer, 5000).await;
    }
    let mut open = connect(&database).await;
    run(&mut open, &format!("begin; {send}")).await;
    database.run("select tidings.send('shop', 'ada', '1')").await;

    let plan: Vec<String> = sqlx::query_scalar(
        "explain (analyze, buffers, costs off) select * from tidings.read_slice('', 500, 5000)",
    )
    .fetch_all(&mut drainer)
    .await
    .unwrap();

    // 20,000 rows of both kinds are some 800 pages.
    assert!(buffers(&plan) < 200, "{plan:?}");
    run(&mut open, "commit").await;
    run(&mut old, "commit").await;
}

#[tokio::test]
async fn to_move_some_of_a_big_transaction_the_rest_of_it_is_not_read() {
    let database = TestDatabase::new().await;
    // Nobody has analyzed the tables: that comes a minute later, when most has been moved.
    let send =
        "select count(tidings.send('noisy', 'ada', to_json(i))) from generate_series(1, 60000) i";
    database.run(send).await;
    let mut drainer = connect(&database).await;
    drain(&mut drainer, 500).await;

    let plan: Vec<String> = sqlx::query_scalar(
        "explain (analyze, buffers, costs off)
        select tidings.move_chunk(s.apps[1:1], s.runs[1:1], s.seqs[1:1], 0)
        from tidings.read_slice('', 500, 1) s",
    )
    .fetch_all(&mut drainer)
    .await
    .unwrap();

    // The 60,000 rows are some 1,000 pages.
    assert!(buffers(&plan) < 400, "{plan:?}");
}

#[tokio::test]
async fn more_apps_than_one_slice_takes_all_have_their_turn() {
    let database = TestDatabase::new().await;
    database
        .run(
            "select count(tidings.send('app-' || i, 'ada', to_json(n)))
            from generate_series(1, 1200) i, generate_series(1, 2) n",
        )
        .await;
    let app = TestApp::on(database, |_| {}).await;
    eventually("all are moved", async || app.database.count().await == 2400).await;
    assert_eq!(stored(&app.database, "app-777").await, ["1", "2"]);
}
