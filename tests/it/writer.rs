//! Group commit keeps every promise when a row is refused, a connection breaks in the middle of a
//! call, the lane is held, or a sender has gone.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{
    DatabaseProxy, Fault, Lane, Request, Sent, TestApp, TestDatabase, eventually,
};

const SEND: &str = "/api/notifications/send/shop/ada";
const REFUSE_POISON: &str =
    "alter table tidings.notification add constraint poison check (data::text <> '\"poison\"')";

async fn waiting(app: &TestApp, count: f64) {
    eventually("the sends wait in the queue", async || {
        app.metric("tidings_send_queue_length").await == count
    })
    .await;
}

#[tokio::test]
async fn one_row_that_postgres_refuses_takes_no_other_with_it() {
    let app = TestApp::start().await;
    app.database.run(REFUSE_POISON).await;
    let mut client = app.subscribe("shop/ada").await;
    let mut lane = Lane::hold(&app.database).await;

    let first = Request::text(SEND, "first");
    let sends =
        (0..9).map(|n| Request::text(SEND, if n == 4 { "poison".into() } else { n.to_string() }));
    let sends: Vec<Request> = sends.collect();
    let (first, group) = tokio::join!(first.send(app.address), async {
        lane.is_wanted().await;
        let group = join_all(sends.iter().map(|send| send.send(app.address)));
        let release = async {
            waiting(&app, 9.0).await;
            // All nine are one group now.
            lane.give_back().await;
        };
        tokio::join!(group, release).0
    });

    assert_eq!(first.status, 201);
    for (answer, send) in group.iter().zip(&sends) {
        let refused = send.body == b"poison";
        assert_eq!(answer.status, if refused { 400 } else { 201 }, "{}", answer.text());
        if refused {
            assert_eq!(answer.json()["type"], "urn:tidings:problem:invalid-data");
            assert!(!answer.text().contains("shop"), "{}", answer.text());
        }
    }
    let stored = app.database.ids("shop", "user:ada").await;
    assert_eq!(stored.len(), 9);
    client.expect(&stored).await;
    client.expect_silence().await;
}

/// A send whose append meets `fault` is answered 201, stored once and delivered once.
async fn is_stored_once_in_spite_of(fault: Fault, settled_as: &str) {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    app.send("shop/ada", "\"before\"").await;
    let mut client = app.subscribe("shop/ada").await;
    proxy.strike_next_append(fault);

    let sent = app.send("shop/ada", "\"once\"").await;

    assert!(proxy.has_struck());
    let settled = format!("tidings_outcomes_settled_total{{outcome=\"{settled_as}\"}}");
    assert_eq!(app.metric(&settled).await, 1.0);
    client.expect([&sent]).await;
    let after = app.send("shop/ada", "\"after\"").await;
    client.expect([&after]).await;
    client.expect_silence().await;
    let stored = database.ids("shop", "user:ada").await;
    assert_eq!(stored[1..], [sent.id, after.id]);
}

#[tokio::test]
async fn a_call_that_is_lost_on_its_way_is_made_again() {
    is_stored_once_in_spite_of(Fault::LoseCall, "absent").await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    is_stored_once_in_spite_of(Fault::LoseAnswer, "stored").await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_again_if_it_was_the_first_of_all() {
    let database = TestDatabase::new().await;
    database.run(REFUSE_POISON).await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    // The first call on a connection cannot be struck, so it is one that stores nothing.
    assert_eq!(Request::text(SEND, "poison").send(app.address).await.status, 400);
    proxy.strike_next_append(Fault::LoseAnswer);

    let sent = app.send("shop/ada", "\"once\"").await;

    assert!(proxy.has_struck());
    assert_eq!(database.ids("shop", "user:ada").await, [sent.id]);
}

#[tokio::test]
async fn a_connection_that_freezes_after_its_call_costs_time_alone() {
    is_stored_once_in_spite_of(Fault::HoldAnswer, "stored").await;
}

#[tokio::test]
async fn a_call_that_still_waits_for_the_lane_when_its_connection_breaks_is_not_doubled() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let mut lane = Lane::hold(&database).await;
    let send = Request::text(SEND, "once");
    let (answer, ()) = tokio::join!(send.send(app.address), async {
        lane.is_wanted().await;
        proxy.cut();
        // The old backend is ended first; only then does the new call wait.
        let looked_up = "tidings_outcomes_settled_total{outcome=\"absent\"}";
        eventually("the outcome was looked up", async || app.metric(looked_up).await == 1.0).await;
        lane.is_wanted().await;
        lane.give_back().await;
    });
    assert_eq!(answer.status, 201, "{}", answer.text());
    app.send("shop/ada", "\"after\"").await;
    assert_eq!(database.count().await, 2);
}

#[tokio::test]
async fn a_lane_holder_that_has_stopped_is_ended_and_sends_go_on() {
    let app = TestApp::start().await;
    let mut lane = Lane::hold(&app.database).await;

    app.send("shop/ada", "1").await;

    assert!(!lane.is_held().await);
    assert_eq!(app.metric("tidings_lane_holders_ended_total").await, 1.0);
    app.send("shop/ada", "2").await;
    assert_eq!(app.database.count().await, 2);
}

#[tokio::test]
async fn a_lane_holder_younger_than_5_s_is_waited_for() {
    let app = TestApp::start().await;
    let mut lane = Lane::hold(&app.database).await;
    let send = Request::text(SEND, "1");
    let (answer, ()) = tokio::join!(send.send(app.address), async {
        lane.is_wanted_again().await;
        assert!(lane.is_held().await);
        lane.give_back().await;
    });
    assert_eq!(answer.status, 201);
    assert_eq!(app.metric("tidings_lane_holders_ended_total").await, 0.0);
    assert_eq!(app.database.count().await, 1);
}

#[tokio::test]
async fn a_send_whose_client_has_gone_before_its_turn_is_not_stored() {
    let app = TestApp::start().await;
    let mut lane = Lane::hold(&app.database).await;
    let first = Request::text(SEND, "\"first\"");
    let (answer, ()) = tokio::join!(first.send(app.address), async {
        lane.is_wanted().await;
        let connections = app.metric("tidings_connections").await;
        let mut gone = TcpStream::connect(app.address).await.unwrap();
        let request = format!(
            "POST {SEND} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\ngone"
        );
        gone.write_all(request.as_bytes()).await.unwrap();
        waiting(&app, 1.0).await;
        drop(gone);
        eventually("the server knows", async || {
            app.metric("tidings_connections").await == connections
        })
        .await;
        lane.give_back().await;
    });
    assert_eq!(answer.status, 201);
    let Sent { id: after, .. } = app.send("shop/ada", "\"after\"").await;
    let first = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.database.ids("shop", "user:ada").await, [first, after]);
}
