//! The history: pages in both directions that miss and double nothing, and a cursor to go on from.

use serde_json::{Value, json};

use crate::harness::{Request, Sent, SseClient, TestApp};

const API: &str = "/api/notifications";

async fn page(app: &TestApp, query: &str) -> Value {
    let answer = Request::get(format!("{API}/history/shop/ada{query}")).send(app.address).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

fn ids(page: &Value) -> Vec<&str> {
    let notifications = page["notifications"].as_array().unwrap();
    notifications.iter().map(|one| one["id"].as_str().unwrap()).collect()
}

/// Follows `next` to the end and returns all ids, and the page sizes.
async fn walk(
    app: &TestApp,
    order: &str,
    parameter: &str,
    limit: usize,
) -> (Vec<String>, Vec<usize>) {
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    let mut place = String::new();
    loop {
        let page = page(app, &format!("?order={order}&limit={limit}{place}")).await;
        all.extend(ids(&page).into_iter().map(str::to_owned));
        sizes.push(ids(&page).len());
        let Some(next) = page["next"].as_str() else { return (all, sizes) };
        place = format!("&{parameter}={next}");
    }
}

#[tokio::test]
async fn both_directions_lead_over_all_pages_once() {
    let app = TestApp::start().await;
    app.send_many("shop/bob", 3).await;
    let mut sent: Vec<String> =
        app.send_many("shop/ada", 5).await.into_iter().map(|s| s.id).collect();
    app.database.append("shop", "everyone", &["1"]).await;
    sent.extend(app.database.ids("shop", "everyone").await);
    sent.push(app.send("shop/ada", "1").await.id);

    assert_eq!(walk(&app, "asc", "after", 3).await, (sent.clone(), vec![3, 3, 1]));
    sent.reverse();
    assert_eq!(walk(&app, "desc", "before", 3).await, (sent.clone(), vec![3, 3, 1]));
    assert_eq!(walk(&app, "desc", "before", 7).await, (sent, vec![7]), "no empty page at the end");
}

#[tokio::test]
async fn before_and_after_are_exclusive_and_may_be_in_any_case() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 5).await;
    let [after, before] = [&sent[0].id, &sent[3].id];
    for query in [
        format!("?order=asc&after={after}&before={before}"),
        format!("?order=asc&after={}&before={}", after.to_lowercase(), before.to_lowercase()),
    ] {
        assert_eq!(ids(&page(&app, &query).await), [&sent[1].id, &sent[2].id], "{query}");
    }
    assert_eq!(ids(&page(&app, &format!("?after={before}&before={after}")).await), [""; 0]);
}

#[tokio::test]
async fn a_page_has_50_unless_told_otherwise_and_500_at_most() {
    let app = TestApp::start().await;
    app.database.append("shop", "user:ada", &["1"; 501]).await;
    for (query, size) in [("", 50), ("?limit=1", 1), ("?limit=500", 500)] {
        let page = page(&app, query).await;
        assert_eq!(ids(&page).len(), size, "{query}");
        assert_eq!(page["next"], *ids(&page).last().unwrap(), "{query}");
    }
}

#[tokio::test]
async fn subscribing_from_the_cursor_goes_on_exactly_there() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 4).await;
    let head = app.send("shop/bob", "\"the head of the feed\"").await.id;
    for (query, cursor, missed) in [
        ("", &head, 4..4),
        ("?limit=2", &head, 4..4),
        ("?order=asc", &head, 4..4),
        ("?order=asc&limit=4", &head, 4..4),
        ("?order=asc&limit=2", &sent[1].id, 2..4),
        (&format!("?order=asc&limit=1&after={}", sent[1].id), &sent[2].id, 3..4),
        (&format!("?after={}", sent[1].id), &head, 4..4),
    ] {
        let page = page(&app, query).await;
        assert_eq!(page["cursor"], *cursor, "{query}");
        let mut client = app.subscribe_after("shop/ada", page["cursor"].as_str().unwrap()).await;
        client.expect(&sent[missed]).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn a_page_before_an_id_has_no_cursor_of_its_own() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 3).await;
    for order in ["asc", "desc"] {
        let page = page(&app, &format!("?order={order}&limit=1&before={}", sent[2].id)).await;
        assert_eq!(page["cursor"], Value::Null, "{order}");
        assert_ne!(page["next"], Value::Null, "{order}");
    }
}

#[tokio::test]
async fn the_history_of_an_empty_feed_is_empty_with_the_zero_ulid() {
    let app = TestApp::start().await;
    let zero = "00000000000000000000000000";
    let expected = json!({"notifications": [], "next": null, "cursor": zero});
    assert_eq!(page(&app, "").await, expected);
    assert_eq!(page(&app, "?order=asc").await, expected);
    let mut client: SseClient = app.subscribe_after("shop/ada", zero).await;
    let first = app.send("shop/ada", "1").await;
    client.expect([first]).await;
}

#[tokio::test]
async fn an_entry_shows_the_whole_notification() {
    let app = TestApp::start().await;
    let body = r#"{"data": {"a": [1]}, "event": "order.shipped"}"#;
    let answer = app.post("shop/ada", "application/json", body).await;
    let sent: Sent = answer.json().await.unwrap();
    app.database.append("shop", "everyone", &["2"]).await;

    let page = page(&app, "?order=asc").await;

    assert_eq!(
        page["notifications"][0],
        json!({
            "id": sent.id, "event": "order.shipped", "data": {"a": [1]}, "audience": {"user": "ada"},
            "created_at": sent.created_at, "expires_at": null,
            "seen": false, "read": false, "archived": false,
        })
    );
    let for_all = &page["notifications"][1];
    assert_eq!(for_all["audience"], "everyone");
    assert_eq!(for_all["event"], Value::Null);
    assert_eq!(for_all.as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn one_notification_is_shown_by_its_id_in_its_own_app_alone() {
    let app = TestApp::start().await;
    let sent = app.send("shop/ada", "{\"a\":1.0}").await;
    let path = |app: &str, id: &str| format!("{API}/notification/{app}/{id}");
    for id in [sent.id.clone(), sent.id.to_lowercase()] {
        let answer = Request::get(path("shop", &id)).send(app.address).await;
        assert_eq!(answer.status, 200);
        let mut listed = page(&app, "").await["notifications"][0].clone();
        // What is one user's is in that user's list alone.
        for bit in ["seen", "read", "archived"] {
            assert_eq!(listed.as_object_mut().unwrap().remove(bit), Some(json!(false)), "{bit}");
        }
        assert_eq!(answer.json(), listed);
        assert!(answer.text().contains("\"data\":{\"a\":1.0}"), "{}", answer.text());
    }
    for (in_app, id) in [("shop2", sent.id.as_str()), ("Shop", &sent.id), ("shop", "17")] {
        let answer = Request::get(path(in_app, id)).send(app.address).await;
        assert_eq!(answer.status, 404, "{in_app} {id}");
    }
}

#[tokio::test]
async fn nothing_of_others_is_in_the_history() {
    let app = TestApp::start().await;
    for neighbour in ["shop/bob", "shop2/ada", "Shop/ada", "shop/everyone", "shop/user:ada"] {
        app.send(neighbour, "1").await;
    }
    app.database.append("shop2", "everyone", &["1"]).await;
    app.database.append("shop", "topic:ada", &["1"]).await;
    assert_eq!(page(&app, "").await["notifications"], json!([]));
}
