//! Sends from SQL: delivered if and only if their transaction commits, once, in the order of each
//! session; and nobody waits for another.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    DatabaseProxy, Lane, ServerProcess, SseClient, TestApp, TestDatabase, eventually,
};

const SESSIONS: usize = 8;
const SENDS_EACH: usize = 125;

async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.expect("the test database")
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect(sql);
}

/// How many rows wait.
async fn waiting(database: &TestDatabase) -> i64 {
    let rows =
        "select (select count(*) from tidings.outbox_0) + (select count(*) from tidings.outbox_1)";
    database.value(rows).await
}

/// Drains as a server does, without one.
async fn drain(conn: &mut PgConnection, most_rows: i32) {
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
    run(&mut held, "begin; select tidings.send('shop', 'ada', '\"held\"')").await;

    app.database.run("select tidings.send('shop', 'ada', '\"sql\"')").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"sql\""));
    app.send("shop/ada", "\"http\"").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"http\""));
    client.expect_silence().await;

    run(&mut held, "commit").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"held\""));
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
async fn an_app_that_comes_in_the_middle_of_a_slice_does_not_wait_for_its_end() {
    let database = TestDatabase::new().await;
    database
        .run(
            "select count(tidings.put_into_outbox('noisy', 'everyone', null, '1', null, null))
            from generate_series(1, 80000) i",
        )
        .await;
    let mut drainer = connect(&database).await;
    let slice = drain(&mut drainer, 80_000);
    let other = async {
        eventually("it is draining", async || database.count().await > 0).await;
        database.run("select tidings.send('shop', 'ada', '1')").await;
    };
    // One slice and no more.
    tokio::join!(slice, other);
    let followed = "select exists (select from tidings.notification where app = 'noisy' and id >
        (select id from tidings.notification where app = 'shop'))";
    assert!(database.value::<bool>(followed).await, "it was moved in the middle");
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
    let sizes = "select pg_total_relation_size('tidings.outbox_0') + pg_total_relation_size('tidings.outbox_1')";
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

#[tokio::test]
async fn the_time_to_live_begins_with_the_delivery() {
    let database = TestDatabase::new().await;
    database
        .run("select tidings.send('shop', 'ada', '1', 'order.shipped', interval '1 hour 1 second')")
        .await;
    let mut conn = connect(&database).await;
    drain(&mut conn, 100).await;
    let lifetime =
        "select (expires_at - created_at)::text || ' ' || event from tidings.notification";
    assert_eq!(database.value::<String>(lifetime).await, "01:00:01 order.shipped");
}

#[tokio::test]
async fn topics_and_everyone_are_reached_and_data_keeps_its_bytes() {
    let app = TestApp::start().await;
    let mut client =
        SseClient::connect(app.address, "/api/notifications/subscribe/shop/ada?topics=news", None)
            .await;
    client.until("tidings.live").await;
    let pretty = "{ \"b\" : 1.0,\r\n\t\"a\" : [ ],  \"b\":\"  \\\" { \\\\\" ,\n\"c\": \"\\u00e9 \\\\u0000\" }";
    let compact = r#"{"b":1.0,"a":[],"b":"  \" { \\","c":"\u00e9 \\u0000"}"#;
    let mut conn = connect(&app.database).await;
    for (call, audience) in [
        ("select tidings.send('shop', 'ada', $1::json, 'e')", "user:ada"),
        ("select tidings.send_topic('shop', 'news', $1::json, 'e')", "topic:news"),
        ("select tidings.send_everyone('shop', $1::json, 'e')", "everyone"),
    ] {
        sqlx::query(call).bind(pretty).execute(&mut conn).await.unwrap();
        let frame = client.notification().await;
        assert_eq!(frame.data.as_deref(), Some(compact), "{audience}");
        assert_eq!(frame.event.as_deref(), Some("e"));
        let stored: String = app
            .database
            .value("select audience from tidings.notification order by id desc limit 1")
            .await;
        assert_eq!(stored, audience);
    }
}

#[tokio::test]
async fn every_bad_argument_raises_in_the_transaction_of_its_caller() {
    let database = TestDatabase::new().await;
    let too_long = format!("'{}'", "a".repeat(129));
    let too_long = too_long.as_str();
    let names = [
        ("null", "is null: give a name of 1 to 128 characters"),
        ("''", "is empty: give a name of 1 to 128 characters"),
        (too_long, "is longer than 128 characters: give a shorter name"),
        ("e'a\\nb'", "has a control character: remove it"),
        ("e'a\\u0085b'", "has a control character: remove it"),
        ("e' \\u2003\\u00a0\\u3000'", "is only white space: give a name"),
        ("'.'", "is a path of dots, which clients resolve away: give another name"),
        ("'..'", "is a path of dots, which clients resolve away: give another name"),
    ];
    let mut cases = Vec::new();
    for (name, why) in names {
        cases.push((format!("tidings.send({name}, 'ada', '1')"), format!("app_id {why}")));
        cases.push((format!("tidings.send('shop', {name}, '1')"), format!("user_id {why}")));
        cases.push((format!("tidings.send_topic({name}, 't', '1')"), format!("app_id {why}")));
        cases.push((format!("tidings.send_topic('shop', {name}, '1')"), format!("topic {why}")));
        cases.push((format!("tidings.send_everyone({name}, '1')"), format!("app_id {why}")));
    }
    let comma = "topic has a comma, which separates topics: remove it";
    cases.push(("tidings.send_topic('shop', 'a,b', '1')".into(), comma.into()));
    let form = "event_name has to be 1 to 64 characters of A-Z a-z 0-9 _ . : -";
    let reserved = "event_name is reserved: tidings.* are control events; open, error and message are the browser's own";
    let long_event = "e".repeat(65);
    for (event, why) in [
        ("", form),
        ("a b", form),
        ("ä", form),
        (long_event.as_str(), form),
        ("open", reserved),
        ("error", reserved),
        ("message", reserved),
        ("tidings.state", reserved),
        ("tidings.", reserved),
    ] {
        cases.push((format!("tidings.send('shop', 'ada', '1', '{event}')"), why.into()));
    }
    let lifetime = "expires_in is not whole seconds from 1 second to 365 days: give such an interval, or leave it out";
    for interval in ["0 s", "-1 s", "0.5 s", "1.5 s", "366 days", "1 year", "100000 years"] {
        let call = format!("tidings.send('shop', 'ada', '1', null, '{interval}')");
        cases.push((call, lifetime.into()));
    }
    let surrogate = "data has the escape \\u0000 or an unpaired surrogate escape, which strict parsers refuse: remove it, or send the whole pair";
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let big = format!("[{}1]", "1,".repeat(32_768));
    for (data, why) in [
        ("null", "data is null: give any JSON, 'null'::json for none"),
        (r#"'"\u0000"'"#, surrogate),
        (r#"'{"\u0000":1}'"#, surrogate),
        (r#"'"\ud800"'"#, surrogate),
        (r#"'"\udc00\ud800"'"#, surrogate),
        (r#"'"\ud83d \ude00"'"#, surrogate),
        (&format!("'{deep}'"), "data is nested deeper than 128: flatten it"),
        (
            &format!("'{big}'"),
            "data has 65539 bytes as compact JSON, over the limit of 65536: send less, or a link to it",
        ),
        ("'{'", "invalid input syntax for type json"),
    ] {
        cases.push((format!("tidings.send('shop', 'ada', {data})"), why.into()));
        cases.push((format!("tidings.send_everyone('shop', {data})"), why.into()));
    }

    let mut conn = connect(&database).await;
    for (call, why) in cases {
        run(&mut conn, "begin; select tidings.send('shop', 'ada', '1')").await;
        let sql = AssertSqlSafe(format!("select {call}"));
        let error = sqlx::raw_sql(sql).execute(&mut conn).await.expect_err(&call);
        assert_eq!(error.as_database_error().unwrap().message(), why, "{call:.200}");
        run(&mut conn, "commit").await;
    }
    assert_eq!(waiting(&database).await, 0, "the caller's whole transaction is undone");
}

#[tokio::test]
async fn what_is_at_the_bounds_is_taken() {
    let database = TestDatabase::new().await;
    let longest = "😀".repeat(128);
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let wide = format!("[{}1]", "[],".repeat(200));
    let big = format!("[{}11]", "1,".repeat(32_766));
    assert_eq!(big.len(), 65_536);
    for call in [
        &format!("send('shop', '{longest}', '1')"),
        "send(' shop', e'\\u00a0a', '1')",
        "send('shop', 'a,b', '1')",
        "send_topic('shop', 'a:b', 'null')",
        &format!("send('shop', 'ada', '{deep}')"),
        &format!("send('shop', 'ada', '{wide}')"),
        &format!("send('shop', 'ada', '{big}')"),
        r#"send('shop', 'ada', '"[[ {{ \\u0000 \ud83d\ude00"')"#,
        "send('shop', 'ada', '1', 'A-b_c.d:9', interval '365 days')",
        "send_everyone('shop', '1', expires_in => '1 s')",
    ] {
        database.run(&format!("select tidings.{call}")).await;
    }
    let mut conn = connect(&database).await;
    drain(&mut conn, 100).await;
    assert_eq!(database.count().await, 10);
}

#[tokio::test]
async fn the_outbox_refuses_what_the_feed_would_refuse_whoever_writes_it() {
    let database = TestDatabase::new().await;
    let mut conn = connect(&database).await;
    for [app, audience, event, data] in [
        ["e'a\\nb'", "'everyone'", "null", "'1'"],
        ["'shop'", "'nobody'", "null", "'1'"],
        ["'shop'", "e'user:a\\r'", "null", "'1'"],
        ["'shop'", "'everyone'", "'tidings.state'", "'1'"],
        ["'shop'", "'everyone'", "e'a\\nid: 1'", "'1'"],
        ["'shop'", "'everyone'", "null", "e'{\\n}'"],
        ["'shop'", "'everyone'", "null", "e'[1,\\r2]'"],
        ["'shop'", "'everyone'", "null", r#"'"\u0000"'"#],
        ["'shop'", "'everyone'", "null", r#"'"\ud800"'"#],
    ] {
        for table in ["outbox_0", "outbox_1"] {
            let insert = format!(
                "insert into tidings.{table} (app, seq, audience, event, data, bytes, queued_at)
                values ({app}, 1, {audience}, {event}, {data}, 1, now())"
            );
            let error = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut conn).await.unwrap_err();
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "23514", "{app} {audience} {event} {data}: {error}");
        }
    }
    assert_eq!(waiting(&database).await, 0);
}
