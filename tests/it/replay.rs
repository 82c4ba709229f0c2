//! Invariant 3: exactly the matching rows after the cursor, in id order.

use crate::harness::{Proxy, TestApp, TestDatabase};

#[tokio::test]
async fn a_reconnecting_client_gets_exactly_what_it_missed() {
    let app = TestApp::start().await;
    let seen = app.send("shop/ada", "\"one\"").await;
    let missed = app.send_many("shop/ada", 3).await;
    app.send("shop/bob", "\"not for ada\"").await;
    app.send("shop2/ada", "\"not for this ada\"").await;

    let mut client = app.subscribe_after("shop/ada", &seen).await;

    client.expect(&missed).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_handover_that_is_held_and_cut_loses_and_doubles_nothing() {
    let app = TestApp::start().await;
    let seen = app.send("shop/ada", "0").await;
    let missed = app.send_many("shop/ada", 5).await;
    let proxy = Proxy::hold_before(app.address, "event: tidings.live").await;
    let path = "/api/notifications/subscribe/shop/ada";
    let mut held = crate::harness::SseClient::connect(proxy.address, path, Some(&seen.id)).await;
    held.expect(&missed).await;
    proxy.held().await;
    let later = app.send_many("shop/ada", 5).await;
    proxy.cut();

    let cursor = held.cursor.clone().expect("it has seen ids");
    let mut client = app.subscribe_after("shop/ada", cursor).await;

    client.expect(&later).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_page_is_complete_up_to_the_audience_that_was_cut_first() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let seen = app.send("shop/ada", "0").await;
    let pool = database.pool().await;
    for (audience, rows) in [("user:ada", 1200), ("everyone", 1)] {
        for chunk in 0..(rows + 399) / 400 {
            let size = if rows == 1 { 1 } else { 400 };
            let column = |text: &str| vec![text.to_owned(); size];
            let numbers: Vec<String> = (0..size).map(|n| (chunk * 400 + n).to_string()).collect();
            sqlx::query("call tidings.append($1, $2, array_fill(null::text, array[$5::integer]), $3, $4, 9e15::bigint, null, null, null, null)")
                .bind(column("shop"))
                .bind(column(audience))
                .bind(numbers)
                .bind(7_i64)
                .bind(size as i32)
                .execute(&pool)
                .await
                .unwrap();
        }
    }
    let mut expected = database.ids("shop", "user:ada").await;
    expected.remove(0);
    expected.extend(database.ids("shop", "everyone").await);
    assert_eq!(expected.len(), 1201);

    let mut client = app.subscribe_after("shop/ada", &seen).await;

    client.expect(&expected).await;
    assert_eq!(client.until("tidings.live").await.1.json()["replayed"], 1201);
    client.expect_silence().await;
}
