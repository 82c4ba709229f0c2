//! Sends from SQL: delivered if and only if their transaction commits, once, in the order of each
//! session; and nobody waits for another.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::harness::{DatabaseProxy, Lane, ServerProcess, TestApp, TestDatabase, eventually};

const SESSIONS: usize = 8;
const SENDS_EACH: usize = 125;

pub async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.expect("the test database")
}

pub async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect(sql);
}

/// Pages of 8 KiB that a plan touched, all of which were in memory.
fn buffers(plan: &[String]) -> u32 {
    let hit = plan.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared hit="));
    hit.and_then(|hit| hit.split(' ').next()?.parse().ok()).expect("buffers")
}

/// How many rows wait.
pub async fn waiting(database: &TestDatabase) -> i64 {
    let rows = "select coalesce(sum(waiting), 0)::bigint from tidings.outbox_by_app";
    database.value(rows).await
}

/// Drains as a server does, without one.
pub async fn drain(conn: &mut PgConnection, most_rows: i32) {
    let call = "call tidings.drain_outbox(500, $1, 9e15::bigint, '', null, null, null)";
    sqlx::query(call).bind(most_rows).execute(conn).await.expect("a drain");
}

/// Everything that was stored for a user, in order of the ids.
async fn stored(database: &TestDatabase, app: &str) -> Vec<String> {
    let pool = database.pool().await;
    let data = sqlx::query_scalar(
        "select data::text from tidings.notification where app = $1 order by id",
    )
    .bind(app)
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.close().await;
    data
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drainer_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let database = TestDatabase::new().await;
    let variables = [("DATABASE_URL", database.url.as_str())];
    let mut server = ServerProcess::start(&variables).await;
    let mut rows = 0;
    for _ in 0..5 {
        let send = format!(
            "select count(tidings.send('shop', 'ada', to_json(i)))
            from generate_series({}, {}) i",
            rows + 1,
            rows + 8000
        );
        rows += 8000;
        database.run(&send).await;
        let before = rows - 8000;
        eventually("it is draining", async || database.count().await > before).await;
        server.kill().await;
        server = ServerProcess::start(&variables).await;
    }
    eventually("nothing waits", async || waiting(&database).await == 0).await;
    let expected: Vec<String> = (1..=rows).map(|number| number.to_string()).collect();
    assert!(stored(&database, "shop").await == expected);
}

#[tokio::test]
async fn a_table_with_a_row_that_may_still_come_is_never_truncated() {
    let database = TestDatabase::new().await;
    let mut drainer = connect(&database).await;
    let mut held = connect(&database).await;
    run(&mut held, "begin; select tidings.send('shop', 'ada', '\"held\"')").await;
    database.run("select tidings.send('shop', 'ada', '\"moved\"')").await;
    let size = "select pg_relation_size('tidings.outbox_0')";
    let rotate = "call tidings.rotate_outbox(0)";

    drain(&mut drainer, 100).await;
    run(&mut drainer, rotate).await;
    assert_eq!(database.value::<i64>("select last_value from tidings.outbox_turn").await, 1);
    // The table is held open: refused, at once.
    run(&mut drainer, rotate).await;
    assert!(database.value::<i64>(size).await > 0);
    run(&mut held, "commit").await;
    // Now it is free, but for the row.
    run(&mut drainer, rotate).await;
    assert!(database.value::<i64>(size).await > 0);
    drain(&mut drainer, 100).await;
    run(&mut drainer, rotate).await;

    assert_eq!(database.value::<i64>(size).await, 0);
    assert_eq!(stored(&database, "shop").await, ["\"moved\"", "\"held\""]);
}

#[tokio::test]
async fn what_an_old_snapshot_keeps_is_let_go_by_turns() {
    let app = TestApp::start().await;
    let mut old = connect(&app.database).await;
    run(&mut old, "begin isolation level repeatable read; select 1").await;
    // More than one table may hold before the other has its turn.
    let send = "select count(tidings.send('shop', 'ada', to_json(repeat('x', 6000) || i)))
        from generate_series(1, 3000) i";
    app.database.run(send).await;
    let sizes = "select sum(pg_total_relation_size(oid))::bigint from pg_class where relname like 'outbox%' and relkind = 'r'";
    eventually("the room is let go", async || {
        waiting(&app.database).await == 0 && app.database.value::<i64>(sizes).await < 1 << 20
    })
    .await;
    assert_eq!(app.database.count().await, 3000);
    run(&mut old, "commit").await;
}

#[tokio::test]
async fn a_drainer_finds_its_database_again() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let mut client = app.subscribe("shop/ada").await;
    proxy.take_away();
    let send = "select tidings.send('shop', 'ada', '\"meanwhile\"')";
    database.run(send).await;
    eventually("the instance notices", async || {
        app.get("/readyz").await.is_ok_and(|answer| answer.status() == 503)
    })
    .await;
    assert_eq!(waiting(&database).await, 1);
    proxy.bring_back();
    assert_eq!(client.notification().await.data.as_deref(), Some("\"meanwhile\""));
    client.expect_silence().await;
}

#[tokio::test]
async fn a_stopped_lane_holder_is_ended_also_where_nobody_sends_over_http() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let mut lane = Lane::hold(&app.database).await;
    app.database.run("select tidings.send('shop', 'ada', '1')").await;
    client.notification().await;
    assert!(!lane.is_held().await);
    assert!(app.metric("tidings_lane_holders_ended_total").await >= 1.0);
}
