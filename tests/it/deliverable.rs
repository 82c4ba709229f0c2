//! What is not deliverable any more is not replayed, and its absence is no gap; and state entries are
//! replayed like notifications.

use serde_json::json;

use crate::harness::{Frame, Request, SseClient, TestApp, TestDatabase};

const ZERO: &str = "00000000000000000000000000";

/// Whether it is a row of the feed: a notification or a state entry.
fn is_row(frame: &Frame) -> bool {
    frame.is_notification() || frame.is("tidings.state")
}

/// All up to `tidings.live`, which says how many notifications these are. A gap would be one of them.
async fn replayed(app: &TestApp, to: &str, cursor: &str) -> (Vec<Frame>, SseClient) {
    let mut client = app.subscribe_after(to, cursor).await;
    let (frames, live) = client.replay().await;
    let notifications = frames.iter().filter(|frame| frame.is_notification());
    assert_eq!(live.json()["replayed"], notifications.count());
    (frames, client)
}

fn ids(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(Frame::id).collect()
}

fn uuid(id: &str) -> uuid::Uuid {
    ulid::Ulid::from_string(id).unwrap().into()
}

/// An expiry in the past for the rows that the condition names.
async fn expire(database: &TestDatabase, condition: &str) {
    let past = "now() - interval '1 millisecond'";
    let update = format!("update tidings.notification set expires_at = {past} where {condition}");
    database.run(&update).await;
}

/// Adds a state entry as whoever changes a state does: under the lane. Its id.
async fn add_state_entry(database: &TestDatabase, audience: &str, data: &str) -> String {
    let add = format!(
        "do $$ declare at record; begin
            perform tidings.take_lane();
            select * into at from tidings.next_positions(1, 9e15::bigint);
            insert into tidings.notification (id, app, audience, event, data, created_at)
            values (tidings.event_id(at.first, at.epoch, 99), 'shop', '{audience}', 'tidings.state',
                '{data}', at.created_at);
        end $$"
    );
    database.run(&add).await;
    database.ids("shop", audience).await.pop().unwrap()
}

#[tokio::test]
async fn what_has_expired_is_not_replayed_and_is_no_gap() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 6).await;
    let lasting =
        Request::json("/api/notifications/send/shop/ada", r#"{"data":6,"expires_in":999}"#);
    let lasting = lasting.send(app.address).await.json()["id"].as_str().unwrap().to_owned();
    for expired in [0, 2, 3] {
        expire(&app.database, &format!("id = '{}'", uuid(&sent[expired].id))).await;
    }
    let expected = [&sent[1].id, &sent[4].id, &sent[5].id, &lasting].map(String::as_str);

    for cursor in [ZERO, &sent[0].id] {
        let (frames, mut client) = replayed(&app, "shop/ada", cursor).await;
        assert_eq!(ids(&frames), expected);
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn what_was_withdrawn_is_not_replayed_and_is_no_gap() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 3).await;
    app.database
        .run(&format!("insert into tidings.gone (id) values ('{}')", uuid(&sent[1].id)))
        .await;

    let (frames, mut client) = replayed(&app, "shop/ada", ZERO).await;

    assert_eq!(ids(&frames), [&sent[0].id, &sent[2].id]);
    client.expect_silence().await;
}

#[tokio::test]
async fn what_was_replaced_is_not_replayed_and_a_state_entry_says_so() {
    let app = TestApp::start().await;
    let mut live = app.subscribe("shop/bob?topics=t").await;
    let mut sent = Vec::new();
    for number in 0..3 {
        let body = format!(r#"{{"to":{{"topic":"t"}},"data":{number},"replaces":"k"}}"#);
        let answer = Request::json("/api/notifications/send/shop", body).send(app.address).await;
        sent.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let stored = app.database.ids("shop", "topic:t").await;
    let said = |old: usize| json!({"ids": [sent[old]], "state": "replaced", "by": sent[old + 1]});

    // Live all of it came, while it was deliverable.
    let mut came = Vec::new();
    for _ in 0..5 {
        came.push(live.next_that(is_row).await);
    }
    let (frames, mut client) = replayed(&app, "shop/ada?topics=t", ZERO).await;

    assert_eq!(ids(&came), stored);
    assert_eq!([came[2].json(), came[4].json()], [said(0), said(1)]);
    assert_eq!(ids(&frames), [&stored[2], &sent[2], &stored[4]]);
    assert_eq!(frames, [came[2].clone(), came[3].clone(), came[4].clone()], "the same bytes");
    client.expect_silence().await;
}

#[tokio::test]
async fn a_state_entry_comes_live_and_replayed_in_its_place_and_counts_as_no_notification() {
    let one = TestApp::start().await;
    let two = TestApp::on(one.database.clone(), |_| {}).await;
    let mut live = [one.subscribe("shop/ada").await, two.subscribe("shop/ada").await];
    let data = r#"{"ids":["01ARZ3NDEKTSV4RRFFQ69G5FAV"],"state":"read"}"#;
    let mut expected = vec![one.send("shop/ada", "1").await.id];
    expected.push(add_state_entry(&one.database, "user:ada", data).await);
    add_state_entry(&one.database, "user:bob", data).await;
    expected.push(two.send("shop/ada", "2").await.id);
    expected.push(add_state_entry(&one.database, "everyone", data).await);

    for client in &mut live {
        for (place, id) in expected.iter().enumerate() {
            let frame = client.next_that(is_row).await;
            assert_eq!(frame.id(), id);
            assert_eq!(frame.is("tidings.state"), place % 2 == 1);
        }
    }
    for app in [&one, &two] {
        let (frames, _) = replayed(app, "shop/ada", ZERO).await;
        assert_eq!(ids(&frames), expected);
        assert_eq!(frames[1].data.as_deref(), Some(data));
        let (frames, _) = replayed(app, "shop/ada", &expected[0]).await;
        assert_eq!(ids(&frames), expected[1..]);
    }
}

#[tokio::test]
async fn thousands_of_undeliverable_rows_are_passed_without_a_gap() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let numbers: Vec<String> = (0..1100).map(|number| number.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    for audience in ["user:ada", "topic:t", "user:ada"] {
        database.append("shop", audience, &numbers).await;
    }
    let first = database.ids("shop", "user:ada").await;
    let topic = database.ids("shop", "topic:t").await;
    // All but a few around the edges of pages, and one in the middle.
    let kept = [&first[499], &first[500], &topic[700], &first[2199]];
    let list: Vec<String> = kept.iter().map(|id| format!("'{}'", uuid(id))).collect();
    let others = format!("id not in ({})", list.join(","));
    expire(&database, &format!("{others} and audience = 'user:ada'")).await;
    database
        .run(&format!(
            "insert into tidings.gone (id) select id from tidings.notification
            where {others} and audience = 'topic:t'"
        ))
        .await;

    let (frames, mut client) = replayed(&app, "shop/ada?topics=t", ZERO).await;
    assert_eq!(ids(&frames), kept);
    client.expect_silence().await;

    // Where nothing is left, the stream is complete up to the head all the same.
    expire(&database, "true").await;
    let (frames, mut client) = replayed(&app, "shop/ada?topics=t", ZERO).await;
    assert_eq!(ids(&frames), [""; 0]);
    assert_eq!(client.until("tidings.ping").await.1.id(), first[2199]);
}
