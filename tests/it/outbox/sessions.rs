//! The promise to those who send: what they commit arrives once, in the order of each session, whatever
//! the others do meanwhile.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{connect, drain, run, stored, waiting};
use crate::harness::{TestApp, TestDatabase, eventually};

const SESSIONS: usize = 8;
const SENDS_EACH: usize = 125;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_committed_sends_arrive_once_in_the_order_of_each_session() {
    let database = TestDatabase::new().await;
    sessions_that_roll_back_half_of_their_transactions(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_while_an_old_snapshot_is_held() {
    let database = TestDatabase::new().await;
    let mut old = connect(&database).await;
    run(&mut old, "begin isolation level repeatable read; select 1").await;
    sessions_that_roll_back_half_of_their_transactions(&database).await;
    run(&mut old, "commit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_transactions_that_send_very_much() {
    let database = TestDatabase::new().await;
    // As if two rows were very much.
    database
        .run(
            "create or replace function tidings.bulk_after() returns integer
            immutable parallel safe language sql return 2",
        )
        .await;
    sessions_that_roll_back_half_of_their_transactions(&database).await;
}

/// Over two instances, beside drainers that nobody asked for and a table that turns all the time.
async fn sessions_that_roll_back_half_of_their_transactions(database: &TestDatabase) {
    let instances =
        [TestApp::on(database.clone(), |_| {}).await, TestApp::on(database.clone(), |_| {}).await];
    let clients = join_all(instances.iter().map(|app| app.subscribe("shop/ada"))).await;
    let done = CancellationToken::new();
    let rivals = join_all((0..2).map(|number| {
        let done = &done;
        async move {
            let mut conn = connect(database).await;
            while !done.is_cancelled() {
                drain(&mut conn, 20 + number).await;
                run(&mut conn, "call tidings.rotate_outbox(0)").await;
            }
        }
    }));
    let sessions = async {
        let committed = join_all((0..SESSIONS).map(|session| send_session(database, session)));
        let committed = committed.await;
        done.cancel();
        committed
    };
    let (committed, _) = tokio::join!(sessions, rivals);

    let expected: usize = committed.iter().map(Vec::len).sum();
    assert!((1..SESSIONS * SENDS_EACH).contains(&expected), "some of each: {expected}");
    for mut client in clients {
        let mut arrived: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for _ in 0..expected {
            let data = client.notification().await.json();
            let session = data["session"].as_u64().unwrap();
            arrived.entry(session).or_default().push(data["number"].as_u64().unwrap());
        }
        client.expect_silence().await;
        for (session, numbers) in committed.iter().enumerate() {
            assert_eq!(arrived[&(session as u64)], *numbers, "session {session}");
        }
    }
    assert_eq!(database.count().await, expected as i64);
    assert_eq!(waiting(database).await, 0);
}

/// Sends numbers in transactions of one to five, of which about half roll back; those committed.
async fn send_session(database: &TestDatabase, session: usize) -> Vec<u64> {
    let mut conn = connect(database).await;
    let mut committed = Vec::new();
    let mut number = 0;
    while number < SENDS_EACH as u64 {
        let sends = fastrand::u64(1..=5).min(SENDS_EACH as u64 - number);
        run(&mut conn, "begin").await;
        for number in number..number + sends {
            sqlx::query("select tidings.send('shop', 'ada', json_build_object('session', $1, 'number', $2))")
                .bind(session as i64)
                .bind(number as i64)
                .execute(&mut conn)
                .await
                .unwrap();
        }
        if fastrand::bool() {
            run(&mut conn, "commit").await;
            committed.extend(number..number + sends);
        } else {
            run(&mut conn, "rollback").await;
        }
        number += sends;
    }
    committed
}

#[tokio::test]
async fn a_caller_that_keeps_its_transaction_open_delays_nobody() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let mut held = connect(&app.database).await;
    // So much that some of it is kept apart.
    let send =
        "select count(tidings.send('shop', 'ada', to_json(i))) from generate_series(1, 800) i";
    run(&mut held, &format!("begin; {send}")).await;

    app.database.run("select tidings.send('shop', 'ada', '\"sql\"')").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"sql\""));
    app.send("shop/ada", "\"http\"").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"http\""));
    client.expect_silence().await;

    run(&mut held, "commit").await;
    for number in 1..=800 {
        assert_eq!(client.notification().await.data, Some(number.to_string()));
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_big_transaction_keeps_its_order_and_what_a_savepoint_took_back_is_not_in_it() {
    let database = TestDatabase::new().await;
    let mut session = connect(&database).await;
    let send = |from: i32, to: i32| {
        format!(
            "select tidings.send(app, 'ada', to_json(i))
            from generate_series({from}, {to}) i, unnest(array['shop', 'blog']) app"
        )
    };
    let sql = format!(
        "begin; {}; savepoint s; {}; rollback to s; {}; commit; begin; {}; commit; {}",
        send(1, 700),
        send(701, 720),
        send(721, 730),
        send(731, 1400),
        send(1401, 1401)
    );
    run(&mut session, &sql).await;
    let app = TestApp::on(database, |_| {}).await;
    eventually("nothing waits", async || waiting(&app.database).await == 0).await;
    let expected: Vec<String> =
        (1..=1401).filter(|i| !(701..=720).contains(i)).map(|i| i.to_string()).collect();
    for name in ["shop", "blog"] {
        assert!(stored(&app.database, name).await == expected, "{name}");
    }
    app.database.run("call tidings.rotate_outbox(0)").await;
    let runs = "select count(*) from tidings.outbox_run";
    eventually("the runs are forgotten", async || app.database.value::<i64>(runs).await == 0).await;
}
