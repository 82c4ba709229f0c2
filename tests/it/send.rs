//! A send is stored once, durably, as it was sent, and acknowledged by the id it is delivered under.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::harness::{Request, Sent, TestApp};

const SEND: &str = "/api/notifications/send/shop/ada";

/// The data of the newest notification in the history, byte for byte.
async fn newest_in_history(app: &TestApp) -> String {
    #[derive(Deserialize)]
    struct History {
        notifications: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        data: Box<RawValue>,
    }
    let answer =
        Request::get("/api/notifications/history/shop/ada?limit=1").send(app.address).await;
    let history: History = serde_json::from_slice(&answer.body).unwrap();
    history.notifications[0].data.get().to_owned()
}

async fn newest_in_table(app: &TestApp) -> String {
    app.database.value("select data::text from tidings.notification order by id desc limit 1").await
}

/// What is sent arrives as `kept` in all places where it can be seen.
async fn is_kept_as(app: &TestApp, request: Request, kept: &str) {
    let case = String::from_utf8_lossy(&request.body).into_owned();
    let mut live = app.subscribe("shop/ada").await;
    let before = live.cursor.clone().unwrap();
    let answer = request.send(app.address).await;
    assert_eq!(answer.status, 201, "{case}: {}", answer.text());

    let live = live.notification().await;
    let replayed = app.subscribe_after("shop/ada", before).await.notification().await;

    assert_eq!(live.data.as_deref(), Some(kept), "{case}: live");
    assert_eq!(replayed, live, "{case}: replayed");
    assert_eq!(newest_in_history(app).await, kept, "{case}: in the history");
    assert_eq!(newest_in_table(app).await, kept, "{case}: in the table");
}

#[tokio::test]
async fn json_arrives_byte_for_byte_but_for_white_space_between_tokens() {
    let app = TestApp::start().await;
    for (sent, kept) in [
        ("1.0", "1.0"),
        ("18446744073709551616", "18446744073709551616"),
        ("-0", "-0"),
        ("1E400", "1E400"),
        ("null", "null"),
        ("{\"b\":1,\"a\":2}", "{\"b\":1,\"a\":2}"),
        ("{\"a\":1,\"a\":2,\"a\":1}", "{\"a\":1,\"a\":2,\"a\":1}"),
        (r#""\u00e4 \/ \" \\u0000 \ud83d\ude00 \n""#, r#""\u00e4 \/ \" \\u0000 \ud83d\ude00 \n""#),
        ("\"ä 😀 \u{2028}\"", "\"ä 😀 \u{2028}\""),
        (" { \"a b\" :\t[ 1 ,\r\n2 , { } ] } ", "{\"a b\":[1,2,{}]}"),
    ] {
        is_kept_as(&app, Request::json(SEND, format!("{{ \"data\" : {sent} }}")), kept).await;
    }
}

#[tokio::test]
async fn data_may_be_nested_128_deep() {
    let app = TestApp::start().await;
    let nested = format!("{}{}", "[".repeat(128), "]".repeat(128));
    is_kept_as(&app, Request::json(SEND, format!("{{\"data\":{nested}}}")), &nested).await;
}

#[tokio::test]
async fn a_text_becomes_a_json_string() {
    let app = TestApp::start().await;
    for (sent, kept) in [
        ("", "\"\""),
        ("hello", "\"hello\""),
        ("one\r\ntwo\n\nid: 1\rthree", "\"one\\r\\ntwo\\n\\nid: 1\\rthree\""),
        ("{\"data\": 1}", "\"{\\\"data\\\": 1}\""),
        (" say \"hi\" \\ ", "\" say \\\"hi\\\" \\\\ \""),
        ("\u{feff}after the mark", "\"after the mark\""),
        ("\u{feff}\u{feff}two", "\"\u{feff}two\""),
        ("ä 😀", "\"ä 😀\""),
    ] {
        is_kept_as(&app, Request::text(SEND, sent), kept).await;
    }
    let upper = Request::new("POST", SEND).header("content-type", "Text/Plain; Charset=UTF-8");
    is_kept_as(&app, upper.body("ä"), "\"ä\"").await;
}

#[tokio::test]
async fn the_event_name_reaches_the_subscriber() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    for name in ["order.shipped", "A-b_c:9", "Open", "tidings", &"x".repeat(64)] {
        let body = format!("{{\"event\":\"{name}\",\"data\":1}}");
        assert_eq!(Request::json(SEND, body).send(app.address).await.status, 201, "{name}");
        assert_eq!(client.notification().await.event.as_deref(), Some(name));
    }
    app.send("shop/ada", "1").await;
    assert_eq!(client.notification().await.event, None, "no name, no field");
}

#[tokio::test]
async fn names_are_taken_as_they_are_after_percent_decoding() {
    let app = TestApp::start().await;
    for (raw, name) in [
        ("a%2Fb", "a/b"),
        ("100%25", "100%"),
        ("%E4%BD%A0%F0%9F%98%80", "你😀"),
        ("a%20b%20", "a b "),
        ("a+b", "a+b"),
        ("%3F%23%26;,", "?#&;,"),
        ("...", "..."),
        ("user:ada", "user:ada"),
    ] {
        let mut client = app.subscribe(&format!("{raw}/{raw}")).await;
        let sent = app.send(&format!("{raw}/{raw}"), "1").await;
        client.expect([&sent]).await;
        let stored = app.database.ids(name, &format!("user:{name}")).await;
        assert_eq!(stored, [sent.id], "{name}");
    }
}

#[tokio::test]
async fn a_send_is_acknowledged_by_id_and_time_alone() {
    let app = TestApp::start().await;
    let answer = Request::text(SEND, "hello").send(app.address).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body.keys().collect::<Vec<_>>(), ["created_at", "id"]);
    let stored = app.database.ids("shop", "user:ada").await;
    assert_eq!(body["id"], stored[0]);
    let of_table =
        "select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
        from tidings.notification";
    assert_eq!(body["created_at"], app.database.value::<String>(of_table).await);
}

#[tokio::test]
async fn ids_increase_and_times_have_milliseconds() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 50).await;
    assert!(sent.is_sorted_by(|a, b| a.id < b.id), "{sent:?}");
    for Sent { id, created_at } in sent {
        assert!(id.len() == 26 && id == id.to_uppercase(), "{id}");
        let time = chrono::DateTime::parse_from_rfc3339(&created_at).unwrap();
        assert_eq!(created_at, tidings::clock::rfc3339(time.to_utc()));
        assert_eq!(created_at.len(), "2026-11-22T12:00:00.123Z".len(), "{created_at}");
    }
}

#[tokio::test]
async fn concurrent_sends_get_ids_of_their_own_and_arrive_in_order() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;

    let sends = (0..100).map(async |n: u32| (app.send("shop/ada", &n.to_string()).await.id, n));
    let mut sent: Vec<(String, u32)> = join_all(sends).await;

    sent.sort();
    assert_eq!(sent.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), 100);
    for (id, number) in sent {
        let frame = client.notification().await;
        assert_eq!((frame.id(), frame.json()), (id.as_str(), number.into()));
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_database_that_would_acknowledge_early_is_overruled() {
    let app = TestApp::start().await;
    // A deferred trigger runs in the commit itself, so it sees what the commit goes by.
    app.database
        .run(&format!(
            "alter database {name} set synchronous_commit = off;
            create table public.seen (setting text);
            create function see() returns trigger language plpgsql as
                $$ begin insert into public.seen values (current_setting('synchronous_commit')); return null; end $$;
            create constraint trigger see after insert on tidings.notification
                deferrable initially deferred for each row execute function see();
            select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()",
            name = app.database.name
        ))
        .await;

    app.send("shop/ada", "1").await;

    let by_default: String =
        app.database.value("select current_setting('synchronous_commit')").await;
    assert_eq!(by_default, "off");
    assert_eq!(app.database.value::<String>("select setting from public.seen").await, "on");
}
