//! What the server's sessions keep planned while a partition is new has to be good when it is full.

use crate::harness::{Request, SseClient, TestApp, TestDatabase};

/// More than any plan for an empty table reckons with, and far more than the rows sent here.
const GROWN: i64 = 30_000;

#[tokio::test]
async fn plans_made_for_an_empty_table_stay_on_the_indexes_when_it_has_grown() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    // The groups of this one reach the other through reads of the feed alone.
    let sender = TestApp::on(database.clone(), |_| {}).await;
    let mut live = app.subscribe("shop/ada").await;
    exercise(&app, &sender, &mut live).await;
    let grow = format!(
        "insert into tidings.notification (id, app, audience, data, created_at)
         select tidings.event_id(n, 0, 1), 'shop', 'user:' || n % 1000, '1', now()
         from generate_series(1, {GROWN}) n"
    );
    database.run(&grow).await;
    exercise(&app, &sender, &mut live).await;
    // A session that ends hands its counts in.
    app.stop().await.unwrap();
    sender.stop().await.unwrap();

    let read: i64 = database
        .value(
            "select sum(seq_tup_read)::bigint from pg_stat_user_tables
             where schemaname = 'tidings' and relname like 'notification%'",
        )
        .await;

    assert!(read < GROWN, "{read} rows were read by sequential scans");
}

/// Each kind of read, more often than Postgres needs to settle on one plan for all.
async fn exercise(app: &TestApp, sender: &TestApp, live: &mut SseClient) {
    for _ in 0..20 {
        let sent = sender.send("shop/ada", "1").await;
        live.expect([&sent]).await;
        let mut replay = app.subscribe_after("shop/ada", "00000000000000000000000000").await;
        replay.until("tidings.live").await;
        for order in ["asc", "desc"] {
            let path = format!("/api/notifications/history/shop/ada?limit=10&order={order}");
            assert!(app.get(&path).await.unwrap().status().is_success());
        }
        let path = format!("/api/notifications/notification/shop/{}", sent.id);
        assert!(app.get(&path).await.unwrap().status().is_success());
        let ids = format!("{{\"ids\":[\"{}\"],\"state\":\"read\"}}", sent.id);
        let up_to = format!("{{\"up_to\":\"{}\",\"state\":\"seen\"}}", sent.id);
        for body in [ids, up_to] {
            let change = Request::json("/api/notifications/state/shop/ada", body);
            assert_eq!(change.send(app.address).await.status, 200);
        }
        assert!(app.get("/api/notifications/counts/shop/ada").await.unwrap().status().is_success());
    }
}
