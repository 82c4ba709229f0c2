//! The drainer goes on after everything that can happen to it.

use super::{stored, waiting};
use crate::harness::{DatabaseProxy, Lane, ServerProcess, TestApp, TestDatabase, eventually};

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
