//! An app can keep its rows for a shorter time than the others: its streams learn what they lost, the
//! others lose nothing.

use serde_json::json;

use crate::harness::{DatabaseProxy, Frame, SseClient, TestApp, TestDatabase};

const ZERO: &str = "00000000000000000000000000";

fn uuid(id: &str) -> uuid::Uuid {
    ulid::Ulid::from_string(id).unwrap().into()
}

/// Removes rows of an app as retention does: the edge is committed first.
async fn remove_up_to(database: &TestDatabase, app: &str, edge: &str) {
    let edge = uuid(edge);
    database
        .run(&format!(
            "insert into tidings.app_edge (app, edge) values ('{app}', '{edge}')
            on conflict (app) do update set edge = excluded.edge"
        ))
        .await;
    database
        .run(&format!("delete from tidings.notification where app = '{app}' and id <= '{edge}'"))
        .await;
}

async fn gap(client: &mut SseClient) -> serde_json::Value {
    client.next_that(|frame| frame.is("tidings.gap")).await.json()
}

#[tokio::test]
async fn the_edge_of_an_app_is_a_gap_for_its_streams_alone() {
    let app = TestApp::start().await;
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.push((app.send("shop/ada", "1").await, app.send("other/ada", "1").await));
    }
    let edge = &sent[1].0.id;
    remove_up_to(&app.database, "shop", edge).await;

    let mut client = app.subscribe_after("shop/ada", &sent[0].0).await;
    let frames = client.replay().await.0;
    let expected = json!({"after": sent[0].0.id, "resumes_after": edge, "reason": "expired"});
    assert!(frames[0].is("tidings.gap"), "{frames:?}");
    assert_eq!(frames[0].json(), expected);
    let ids: Vec<&str> = frames[1..].iter().map(Frame::id).collect();
    assert_eq!(ids, [&sent[2].0.id, &sent[3].0.id]);

    for (to, cursor, missed) in
        [("shop/ada", edge.as_str(), 2), ("other/ada", &sent[0].1.id, 3), ("other/ada", ZERO, 4)]
    {
        let mut client = app.subscribe_after(to, cursor).await;
        let frames = client.replay().await.0;
        assert!(frames.iter().all(Frame::is_notification), "{to} {cursor}: {frames:?}");
        assert_eq!(frames.len(), missed, "{to} {cursor}");
    }
}

#[tokio::test]
async fn the_greater_of_both_edges_counts() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 4).await;
    remove_up_to(&app.database, "shop", &sent[1].id).await;
    for (of_all, greater) in [(0, 1), (2, 2)] {
        let edge = uuid(&sent[of_all].id);
        app.database.run(&format!("update tidings.retention_edge set edge = '{edge}'")).await;
        let mut client = app.subscribe_after("shop/ada", ZERO).await;
        assert_eq!(gap(&mut client).await["resumes_after"], sent[greater].id);
        client.expect(&sent[greater + 1..]).await;
    }
}

#[tokio::test]
async fn an_edge_of_an_app_that_overtakes_a_replay_is_a_gap_in_the_middle_of_it() {
    let app = TestApp::start().await;
    // More than the sockets' buffers hold, so that the replay waits for the client.
    let long = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..10 {
        app.database.append("shop", "topic:t", &vec![long.as_str(); 100]).await;
    }
    let ids = app.database.ids("shop", "topic:t").await;
    let mut client = app.subscribe_after("shop/ada?topics=t", ZERO).await;
    client.expect(&ids[..1]).await;
    remove_up_to(&app.database, "shop", &ids[997]).await;

    let (before, gap) = client.until("tidings.gap").await;

    assert!(before.iter().map(Frame::id).eq(ids[1..=before.len()].iter()), "no hole before it");
    let after = &ids[before.len()];
    let expected = json!({"after": after, "resumes_after": ids[997], "reason": "expired"});
    assert_eq!(gap.json(), expected);
    client.expect(&ids[998..]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn an_app_whose_rows_are_all_gone_is_at_its_head_without_a_gap() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 3).await;
    let last = &sent[2].id;
    remove_up_to(&app.database, "shop", last).await;
    assert_eq!(app.database.count().await, 0);

    let head = SseClient::connect(app.address, "/api/notifications/subscribe/shop/ada", None).await;
    let at_the_edge = app.subscribe_after("shop/ada", last).await;
    for mut client in [head, at_the_edge] {
        assert_eq!(client.replay().await.0, []);
        assert_eq!(client.cursor.as_ref(), Some(last));
    }

    // Time has passed since the last send, so that the edge is above all that was issued.
    let later =
        ulid::Ulid::from_parts(ulid::Ulid::from_string(last).unwrap().timestamp_ms() + 1, 0);
    remove_up_to(&app.database, "shop", &later.to_string()).await;
    let mut client = app.subscribe_after("shop/ada", later.to_string()).await;
    assert_eq!(client.replay().await.0, []);
    let next = app.send("shop/ada", "1").await;
    client.expect([next]).await;
}

#[tokio::test]
async fn a_stream_whose_instance_was_away_for_longer_than_its_app_keeps_rows_is_told_of_the_gap() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let seen = app.send("shop/ada", "0").await;
    let mut client = app.subscribe("shop/ada").await;
    let mut neighbour = app.subscribe("other/ada").await;
    proxy.take_away();
    let away =
        |frame: &Frame| frame.is("tidings.ping") && frame.json()["database"] == "unreachable";
    client.next_that(away).await;
    database.append("shop", "user:ada", &["1", "2"]).await;
    database.append("other", "user:ada", &["1"]).await;
    database.append("shop", "user:ada", &["3"]).await;
    let missed = database.ids("shop", "user:ada").await;
    remove_up_to(&database, "shop", &missed[2]).await;

    proxy.bring_back();

    let (before, gap) = client.until("tidings.gap").await;
    assert_eq!(before, []);
    let expected = json!({"after": seen.id, "resumes_after": missed[2], "reason": "expired"});
    assert_eq!(gap.json(), expected);
    client.expect(&missed[3..]).await;
    client.expect_silence().await;
    let frame = neighbour.next_but_pings().await;
    assert_eq!([frame.id()], [&database.ids("other", "user:ada").await[0]]);
}

#[tokio::test]
async fn a_stream_is_live_although_the_newest_rows_were_those_of_another_app_and_are_gone() {
    let database = TestDatabase::new().await;
    let sender = TestApp::on(database.clone(), |_| {}).await;
    let ours = sender.send("shop/ada", "1").await;
    let edge = sender.send("other/ada", "1").await.id;
    remove_up_to(&database, "other", &edge).await;
    // It starts at the newest row that is there, and its first read of the feed finds the edge above it.
    let app = TestApp::on(database, |_| {}).await;

    let mut client = app.subscribe_after("shop/ada", ZERO).await;

    client.expect([ours]).await;
    client.next_that(|frame| frame.is("tidings.ping") && frame.id() == edge).await;
}
