//! What `tidings.send` and its like take, and what they refuse: in the transaction of the caller, with a
//! sentence that names the thing.

use sqlx::AssertSqlSafe;

use crate::harness::{SseClient, TestApp, TestDatabase};
use crate::outbox::{connect, drain, run, waiting};

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
async fn a_caller_may_have_any_settings() {
    let database = TestDatabase::new().await;
    let data = r#"{"a":"\u00e9 \\ud800 \ud83d\ude00"}"#;
    let settings = [
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "bytea_output = 'escape'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "search_path = ''",
        "timezone = 'Asia/Kathmandu'",
        "array_nulls = off",
        "transform_null_equals = on",
        "default_transaction_isolation = 'serializable'",
    ];
    for setting in settings {
        // What a session has prepared once it keeps.
        let mut conn = connect(&database).await;
        run(&mut conn, &format!("set {setting}")).await;
        for call in [
            format!("send('shop', 'ada', $${data}$$, 'e', '1 hour')"),
            format!("send_topic('shop', 'news', $${data}$$)"),
            format!("send_everyone('shop', $${data}$$)"),
        ] {
            run(&mut conn, &format!("select tidings.{call}")).await;
        }
        let bad = r#"select tidings.send('shop', 'ada', $$"\ud800"$$)"#;
        let error = sqlx::raw_sql(bad).execute(&mut conn).await.unwrap_err();
        let message = error.as_database_error().unwrap().message();
        assert!(message.starts_with("data has the escape"), "{setting}: {message}");
    }
    let mut conn = connect(&database).await;
    drain(&mut conn, 100).await;
    let whole = format!("select count(*) from tidings.notification where data::text = $${data}$$");
    assert_eq!(database.value::<i64>(&whole).await, 3 * settings.len() as i64);

    run(&mut conn, "set default_transaction_read_only = on").await;
    let send = "select tidings.send('shop', 'ada', '1')";
    let error = sqlx::raw_sql(send).execute(&mut conn).await.unwrap_err();
    let message = error.as_database_error().unwrap().message();
    assert_eq!(message, "cannot execute INSERT in a read-only transaction");
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
        let run = format!(
            "insert into tidings.outbox_run (run, app, xid, began, part, next_seq)
            values (1, {app}, '1', now(), 0, 1)"
        );
        let rows = |table: &str, key: &str, value: &str| {
            format!(
                "insert into tidings.{table} ({key}, seq, audience, event, data, bytes, queued_at)
                values ({value}, 1, {audience}, {event}, {data}, 1, now())"
            )
        };
        let inserts = [
            rows("outbox_0", "app", app),
            rows("outbox_1", "app", app),
            // The app of a row in bulk is that of its run.
            if app == "'shop'" { rows("outbox_bulk_0", "run", "1") } else { run.clone() },
            if app == "'shop'" { rows("outbox_bulk_1", "run", "1") } else { run },
        ];
        for insert in inserts {
            let error = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut conn).await.unwrap_err();
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "23514", "{app} {audience} {event} {data}: {error}");
        }
    }
    assert_eq!(waiting(&database).await, 0);
}
