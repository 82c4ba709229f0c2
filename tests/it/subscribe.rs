//! Where a stream starts, and what it says about itself.

use serde_json::json;

use crate::harness::{Frame, Sent, SseClient, TestApp, TestDatabase, eventually};

const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const ZERO: &str = "00000000000000000000000000";
/// Of the year 10889: above everything ever issued.
const FUTURE: &str = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ";

async fn open(app: &TestApp, query: &str, header: Option<&str>) -> SseClient {
    SseClient::connect(app.address, &format!("{SUBSCRIBE}{query}"), header).await
}

/// The first frame, which is always `tidings.ready`, but for the pings of a stream whose start is not known
/// yet, which have no id.
async fn ready(client: &mut SseClient) -> Frame {
    let ready = client.next_that(|frame| !frame.is("tidings.ping") || frame.id.is_some()).await;
    assert!(ready.is("tidings.ready"), "{ready:?}");
    ready
}

/// The next frame but pings is a gap; its data.
async fn gap(client: &mut SseClient) -> serde_json::Value {
    let gap = client.next_but_pings().await;
    assert!(gap.is("tidings.gap"), "{gap:?}");
    assert_eq!(gap.id(), gap.json()["resumes_after"].as_str().unwrap());
    gap.json()
}

async fn set_edge(database: &TestDatabase, id: &str) {
    let edge = uuid::Uuid::from(ulid::Ulid::from_string(id).unwrap());
    database.run(&format!("update tidings.retention_edge set edge = '{edge}'")).await;
}

#[tokio::test]
async fn the_header_beats_the_query_and_the_query_the_head() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 3).await;
    let [a, b, head] = [&sent[0].id, &sent[1].id, &sent[2].id].map(String::as_str);
    let lower = a.to_lowercase();
    for (query, header, start) in [
        ("".to_owned(), None, head),
        ("?_=1700000000".into(), None, head),
        ("".into(), Some(""), head),
        ("".into(), Some(a), a),
        ("".into(), Some(&lower), a),
        (format!("?last_event_id={b}"), None, b),
        (format!("?lastEventId={b}&_=1"), None, b),
        (format!("?lastEventID={}", b.to_lowercase()), None, b),
        ("?last_event_id=".into(), None, head),
        ("?last_event_id=earliest".into(), None, ZERO),
        (format!("?last_event_id={b}"), Some(a), a),
        ("?last_event_id=earliest".into(), Some(b), b),
        (format!("?last_event_id={b}"), Some(""), b),
        ("?since=2020-01-01T00:00:00Z".into(), Some(b), b),
        ("?since=2100-01-01T00:00:00Z".into(), None, head),
        ("?since=9999-12-31T23:59:59%2B00:00".into(), None, head),
    ] {
        let case = format!("{query} {header:?}");
        let mut client = open(&app, &query, header).await;
        let ready = ready(&mut client).await;
        assert_eq!(ready.id(), start, "{case}");
        assert_eq!(ready.json(), json!({"cursor": start, "heartbeat_seconds": 0.3}), "{case}");
        assert!(ready.retry.is_some_and(|ms| (500..=1500).contains(&ms)), "{case}: {ready:?}");

        let missed: Vec<&Sent> = sent.iter().filter(|sent| sent.id.as_str() > start).collect();
        client.expect(&missed).await;
        let live = client.next_but_pings().await;
        assert!(live.is("tidings.live"), "{case}: {live:?}");
        assert_eq!((live.json(), &live.id), (json!({"replayed": missed.len()}), &None), "{case}");
    }
}

#[tokio::test]
async fn the_head_of_an_empty_feed_is_the_zero_ulid() {
    let app = TestApp::start().await;
    assert_eq!(ready(&mut open(&app, "", None).await).await.id(), ZERO);
}

#[tokio::test]
async fn since_is_inclusive_to_the_millisecond() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 9).await;
    let ms = |sent: &Sent| ulid::Ulid::from_string(&sent.id).unwrap().timestamp_ms() as i64;
    let first = ms(&sent[4]);
    let since = tidings::clock::rfc3339(chrono::DateTime::from_timestamp_millis(first).unwrap());

    let mut client = open(&app, &format!("?since={since}"), None).await;

    client.expect(sent.iter().filter(|sent| ms(sent) >= first)).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_header_that_is_no_id_opens_the_stream_with_a_gap_at_the_head() {
    let app = TestApp::start().await;
    let head = app.send("shop/ada", "1").await.id;
    for header in ["17", "earliest", "null", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "\u{e4}"] {
        let mut client = open(&app, "", Some(header)).await;
        assert_eq!(ready(&mut client).await.id(), head, "{header}");
        let expected = json!({"after": null, "resumes_after": head, "reason": "bad-cursor"});
        assert_eq!(gap(&mut client).await, expected, "{header}");
        assert_eq!(client.until("tidings.live").await.1.json()["replayed"], 0, "{header}");
    }
    for second in [&head, ZERO] {
        let headers = [("Last-Event-ID", ""), ("Last-Event-ID", second)];
        let mut client = SseClient::request(app.address, SUBSCRIBE, &headers).await;
        ready(&mut client).await;
        assert_eq!(gap(&mut client).await["reason"], "bad-cursor", "two of them");
    }
    let mut client = open(&app, "?last_event_id=earliest", Some("17")).await;
    client.until("tidings.live").await;
    let next = app.send("shop/ada", "2").await;
    client.expect([next]).await;
}

#[tokio::test]
async fn a_cursor_above_everything_ever_issued_is_a_gap_down_to_the_head() {
    let app = TestApp::start().await;
    let head = app.send("shop/ada", "1").await.id;
    let mut client = open(&app, "", Some(&FUTURE.to_lowercase())).await;
    assert_eq!(ready(&mut client).await.id(), FUTURE);

    let expected = json!({"after": FUTURE, "resumes_after": head, "reason": "ahead"});
    assert_eq!(gap(&mut client).await, expected);
    client.until("tidings.live").await;
    assert_eq!(client.until("tidings.ping").await.1.id(), head, "a ping's id goes down with it");
    let next = app.send("shop/ada", "2").await;
    client.expect([next]).await;
}

#[tokio::test]
async fn a_cursor_below_the_retention_edge_is_a_gap_up_to_it() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 4).await;
    let edge = sent[1].id.as_str();
    set_edge(&app.database, edge).await;

    for cursor in [sent[0].id.as_str(), ZERO] {
        let mut client = open(&app, "", Some(cursor)).await;
        assert_eq!(ready(&mut client).await.id(), cursor);
        let expected = json!({"after": cursor, "resumes_after": edge, "reason": "expired"});
        assert_eq!(gap(&mut client).await, expected);
        client.expect(&sent[2..]).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn neither_earliest_nor_a_cursor_on_the_edge_is_told_of_a_gap() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 4).await;
    set_edge(&app.database, &sent[1].id).await;
    for query in ["earliest", sent[1].id.as_str()] {
        let mut client = open(&app, &format!("?last_event_id={query}"), None).await;
        ready(&mut client).await;
        for expected in &sent[2..] {
            assert_eq!(client.next_but_pings().await.id(), expected.id, "{query}");
        }
        assert!(client.next_but_pings().await.is("tidings.live"), "{query}");
    }
}

#[tokio::test]
async fn an_edge_that_overtakes_a_replay_is_a_gap_in_the_middle_of_it() {
    let app = TestApp::start().await;
    // More than the sockets' buffers hold, so that the replay waits for the client.
    let long = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..10 {
        app.database.append("shop", "user:ada", &vec![long.as_str(); 100]).await;
    }
    let ids = app.database.ids("shop", "user:ada").await;
    let mut client = open(&app, "?last_event_id=earliest", None).await;
    client.expect(&ids[..1]).await;
    let edge = &ids[997];
    set_edge(&app.database, edge).await;

    let (before, gap) = client.until("tidings.gap").await;

    let last_before = &ids[before.len()];
    assert!(before.iter().map(Frame::id).eq(ids[1..=before.len()].iter()), "no hole before it");
    let expected = json!({"after": last_before, "resumes_after": edge, "reason": "expired"});
    assert_eq!(gap.json(), expected);
    client.expect(&ids[998..]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn pings_move_an_idle_cursor_on() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let elsewhere = app.send("shop/bob", "1").await;

    let moved = async || client.until("tidings.ping").await.1.id() == elsewhere.id;
    eventually("the ping's id is the head", moved).await;

    let ping = client.until("tidings.ping").await.1.json();
    assert_eq!(ping["database"], "up");
    assert_eq!(ping.as_object().unwrap().len(), 2);
    let time = ping["time"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
}

#[tokio::test]
async fn two_instances_give_the_same_bytes_live_and_replayed() {
    let one = TestApp::start().await;
    let two = TestApp::on(one.database.clone(), |_| {}).await;
    let mut live = [one.subscribe("shop/ada").await, two.subscribe("shop/ada").await];
    let body = r#"{"data": {"b" : 1.0, "a":"\u00e4ä"}, "event": "order.shipped"}"#;
    assert_eq!(one.post("shop/ada", "application/json", body).await.status(), 201);

    let first = live[0].notification().await;
    assert_eq!(first.data.as_deref(), Some(r#"{"b":1.0,"a":"\u00e4ä"}"#));
    assert_eq!(live[1].notification().await, first);
    for app in [&one, &two] {
        assert_eq!(app.subscribe_after("shop/ada", ZERO).await.notification().await, first);
    }
}

#[tokio::test]
async fn what_is_for_everyone_reaches_the_users_of_its_app_alone() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let mut other_app = app.subscribe("shop2/ada").await;
    app.database.append("shop", "everyone", &["1", "2"]).await;

    let ids = app.database.ids("shop", "everyone").await;
    ada.expect(&ids).await;
    app.subscribe_after("shop/bob", ZERO).await.expect(&ids).await;
    other_app.expect_silence().await;
}

#[tokio::test]
async fn nothing_crosses_to_another_app_or_user() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    for neighbour in [
        "shop/Ada",
        "shop/ada%20",
        "shop/ad",
        "shop/adaa",
        "Shop/ada",
        "shop2/ada",
        "ada/shop",
        "shop/everyone",
        "shop/user:ada",
        "shop/%61d%C3%A4",
    ] {
        app.send(neighbour, "\"not for ada\"").await;
    }
    let own = app.send("shop/%61da", "\"for ada\"").await;
    client.expect([&own]).await;
    client.expect_silence().await;
    let mut replayed = app.subscribe_after("shop/ada", ZERO).await;
    replayed.expect([&own]).await;
    replayed.expect_silence().await;
}
