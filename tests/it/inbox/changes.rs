//! What a change of state does and answers, and from when on something counts.

use serde_json::{Value, json};

use super::{
    change, counted, counts, listed, post_state, send, to_everyone, to_topic, to_user, withdraw,
};
use crate::harness::{API, Request, TestApp};

#[tokio::test]
async fn reading_some_is_counted_listed_and_told_to_the_other_devices() {
    let app = TestApp::start().await;
    let mut other = app.subscribe("shop/ada").await;
    let own = send(&app, to_user("ada", "own")).await;
    let for_all = send(&app, to_everyone("all")).await;
    let left = send(&app, to_user("ada", "left")).await;
    other.expect([&own, &for_all, &left]).await;

    // In any case and order, and twice.
    let ids = json!([for_all.to_lowercase(), own, own]);
    let answer = change(&app, "ada", json!({"ids": ids, "state": "read"})).await;

    assert_eq!(answer, json!({"changed": 2, "unread": 1, "unseen": 1, "cursor": left}));
    let entry = other.until("tidings.state").await.1;
    assert_eq!(entry.json(), json!({"ids": [own, for_all], "state": "read"}));
    assert!(entry.id() > left.as_str());
    let now = counts(&app, "ada", "").await;
    assert_eq!(now, json!({"unread": 1, "unseen": 1, "cursor": entry.id()}));
    let bits: Vec<(Value, Value)> = listed(&app, "ada", "asc", "")
        .await
        .iter()
        .map(|row| (row["id"].clone(), json!([row["seen"], row["read"], row["archived"]])))
        .collect();
    let expected = [(own, [true, true, false]), (for_all, [true, true, false]), (left, [false; 3])];
    assert_eq!(bits, expected.map(|(id, bits)| (json!(id), json!(bits))));
    other.expect_silence().await;
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_answered_and_not_told() {
    let app = TestApp::start().await;
    let id = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [id], "state": "read"})).await;
    let mut other = app.subscribe("shop/ada").await;
    for body in [
        json!({"ids": [id], "state": "read"}),
        json!({"ids": [id], "state": "seen"}),
        json!({"ids": [id], "state": "unarchived"}),
        json!({"up_to": id, "state": "read"}),
        json!({"up_to": "00000000000000000000000000", "state": "unread"}),
    ] {
        let answer = change(&app, "ada", body.clone()).await;
        assert_eq!((&answer["changed"], &answer["unread"]), (&json!(0), &json!(0)), "{body}");
    }
    other.expect_silence().await;
    assert_eq!(app.database.count().await, 2);
}

#[tokio::test]
async fn up_to_covers_the_user_everyone_and_the_topics_named_and_ends_at_the_head() {
    let app = TestApp::start().await;
    let first = send(&app, to_user("ada", "own")).await;
    send(&app, to_everyone("all")).await;
    let named = send(&app, to_topic("a", "named")).await;
    let other = send(&app, to_topic("b", "not named")).await;
    send(&app, to_user("bob", "not hers")).await;
    let mut device = app.subscribe("shop/ada").await;
    assert_eq!(counted(&app, "ada", "a,b").await, (4, 4));

    let above = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ";
    let body = json!({"up_to": above, "topics": ["a"], "state": "read"});
    let answer = change(&app, "ada", body).await;

    let head = answer["cursor"].as_str().unwrap().to_owned();
    assert_eq!(answer, json!({"changed": 3, "unread": 0, "unseen": 0, "cursor": head}));
    assert!(head > other);
    let entry = device.until("tidings.state").await.1;
    assert_eq!(entry.json(), json!({"up_to": head, "state": "read", "topics": ["a"]}));
    assert_eq!(counted(&app, "ada", "a,b").await, (1, 1));
    assert_eq!(counted(&app, "bob", "").await, (1, 1), "it is ada's state");
    let later = send(&app, to_everyone("later")).await;
    assert_eq!(counted(&app, "ada", "a").await, (1, 1), "what comes later is not read");

    let body = json!({"up_to": named, "topics": ["a"], "state": "unread"});
    assert_eq!(change(&app, "ada", body).await["changed"], 3);
    let body = json!({"up_to": first, "state": "archived"});
    assert_eq!(change(&app, "ada", body).await["changed"], 1);
    let unread = listed(&app, "ada", "desc", "state=unread&topics=a").await;
    let unread: Vec<&str> = unread.iter().map(|row| row["data"].as_str().unwrap()).collect();
    assert_eq!(unread, ["later", "named", "all"]);
    assert_eq!(unread.len() as u64, counted(&app, "ada", "a").await.0);
    assert_eq!(listed(&app, "ada", "asc", "state=unseen").await.len(), 1);
    let device_sees = device.until("tidings.state").await;
    assert_eq!(device_sees.0[0].id(), later);
    assert_eq!(device_sees.1.json()["topics"], json!(["a"]));
}

#[tokio::test]
async fn what_is_archived_is_not_counted_and_comes_back_as_it_was() {
    let app = TestApp::start().await;
    let read = send(&app, to_user("ada", "1")).await;
    let new = send(&app, to_user("ada", "2")).await;
    change(&app, "ada", json!({"ids": [read], "state": "read"})).await;

    let archived = change(&app, "ada", json!({"up_to": new, "state": "archived"})).await;
    assert_eq!((&archived["changed"], &archived["unread"]), (&json!(2), &json!(0)));
    assert_eq!(listed(&app, "ada", "asc", "state=archived").await.len(), 2);
    assert_eq!(listed(&app, "ada", "asc", "state=unread").await.len(), 0);

    let back = change(&app, "ada", json!({"ids": [read, new], "state": "unarchived"})).await;
    assert_eq!(back["changed"], 2);
    assert_eq!((&back["unread"], &back["unseen"]), (&json!(1), &json!(1)));
    assert_eq!(listed(&app, "ada", "asc", "state=unarchived").await.len(), 2);
}

#[tokio::test]
async fn ids_that_are_not_in_the_users_lists_are_left_out_without_a_word() {
    let app = TestApp::start().await;
    let own = send(&app, to_user("ada", "1")).await;
    let of_bob = send(&app, to_user("bob", "1")).await;
    let of_another_app = app.send("shop2/ada", "1").await.id;
    let withdrawn = send(&app, to_user("ada", "1")).await;
    assert_eq!(withdraw(&app, &withdrawn).await, 204);
    let entries = app.database.ids("shop", "user:ada").await;
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned();
    let ids = json!([of_bob, of_another_app, withdrawn, entries.last(), unknown]);
    let before = app.database.count().await;

    let answer = change(&app, "ada", json!({"ids": ids, "state": "read"})).await;

    assert_eq!((&answer["changed"], &answer["unread"]), (&json!(0), &json!(1)));
    assert_eq!(app.database.count().await, before);
    assert_eq!(counted(&app, "bob", "").await, (1, 1));
    let answer = change(&app, "ada", json!({"ids": [own, of_bob], "state": "read"})).await;
    assert_eq!(answer["changed"], 1);
}

#[tokio::test]
async fn a_new_user_does_not_start_with_what_was_sent_to_everyone_before() {
    let app = TestApp::start().await;
    let old = send(&app, to_everyone("before")).await;
    send(&app, to_topic("a", "before")).await;
    assert_eq!(counted(&app, "ada", "a").await, (0, 0), "nobody knows ada yet");

    for (user, become_known) in
        [("ada", "sent to"), ("bea", "subscribes"), ("eve", "changes state")]
    {
        let own = match become_known {
            "sent to" => {
                send(&app, to_user(user, "own")).await;
                1
            }
            "subscribes" => {
                let mut device = app.subscribe_after("shop/bea", &old).await;
                device.until("tidings.live").await;
                0
            }
            _ => {
                let body = json!({"ids": [old], "state": "seen"});
                assert_eq!(change(&app, user, body).await["changed"], 0, "it counts as seen");
                0
            }
        };
        assert_eq!(counted(&app, user, "a").await, (own, own), "{user} {become_known}");
        let unread = listed(&app, user, "asc", "state=unread&topics=a").await;
        assert_eq!(unread.len() as u64, own, "{user} {become_known}");
    }
    for topic in ["a", "b"] {
        send(&app, to_topic(topic, "after")).await;
    }
    send(&app, to_everyone("after")).await;
    for (user, own) in [("ada", 1), ("bea", 0), ("eve", 0)] {
        assert_eq!(counted(&app, user, "a").await.0, own + 2, "{user}");
        assert_eq!(counted(&app, user, "").await.0, own + 1, "{user}");
        assert_eq!(listed(&app, user, "asc", "state=unread&topics=a").await.len() as u64, own + 2);
    }
    // An old one can be had back on purpose, also by "everything up to here".
    assert_eq!(change(&app, "eve", json!({"ids": [old], "state": "unread"})).await["unread"], 2);
    assert_eq!(change(&app, "bea", json!({"up_to": old, "state": "unread"})).await["unread"], 2);
}

#[tokio::test]
async fn what_has_expired_is_neither_counted_nor_listed_nor_shown() {
    let app = TestApp::start().await;
    let kept = send(&app, to_user("ada", "kept")).await;
    let body = json!({"to": {"user": "ada"}, "data": "1", "expires_in": 3600});
    let expired = send(&app, body).await;
    change(&app, "ada", json!({"up_to": expired, "state": "read"})).await;
    change(&app, "ada", json!({"ids": [expired], "state": "unread"})).await;
    assert_eq!(counted(&app, "ada", "").await, (1, 0));
    let one = format!("{API}/notification/shop/{expired}");
    assert_eq!(Request::get(&one).send(app.address).await.status, 200);

    let expire = "update tidings.notification set expires_at = clock_timestamp() where expires_at is not null";
    app.database.run(expire).await;

    assert_eq!(counted(&app, "ada", "").await, (0, 0));
    for query in ["", "state=unread"] {
        let listed = listed(&app, "ada", "desc", query).await;
        let rest = if query.is_empty() { vec![kept.as_str()] } else { vec![] };
        let ids: Vec<&str> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids, rest, "{query}");
    }
    assert_eq!(Request::get(&one).send(app.address).await.status, 404);
    let answer = change(&app, "ada", json!({"ids": [expired], "state": "read"})).await;
    assert_eq!(answer["changed"], 0);
}

#[tokio::test]
async fn marking_everything_writes_one_row_for_each_audience_however_many_there_are() {
    let app = TestApp::start().await;
    app.database.append("shop", "user:ada", &["1"; 300]).await;
    app.database.append("shop", "everyone", &["1"; 300]).await;
    for state in ["read", "unread", "archived", "unarchived", "read"] {
        let body = json!({"up_to": "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "state": state});
        let answer = change(&app, "ada", body).await;
        assert_eq!(answer["changed"], 600, "{state}");
    }
    let rows = "select (select count(*) from tidings.state_mark) * 1000
        + (select count(*) from tidings.user_state)";
    assert_eq!(app.database.value::<i64>(rows).await, 2000);
    let entries = "select count(*) from tidings.notification where event = 'tidings.state'";
    assert_eq!(app.database.value::<i64>(entries).await, 5);
}

#[tokio::test]
async fn from_the_cursor_of_an_answer_nothing_is_missed() {
    let app = TestApp::start().await;
    let id = send(&app, to_user("ada", "1")).await;
    let answer = post_state(&app, "ada", &json!({"ids": [id], "state": "read"})).await.json();
    let next = send(&app, to_user("ada", "2")).await;
    let mut device = app.subscribe_after("shop/ada", answer["cursor"].as_str().unwrap()).await;
    let (before, own_change) = device.until("tidings.state").await;
    assert!(before.is_empty(), "{before:?}");
    assert_eq!(own_change.json()["ids"], json!([id]));
    device.expect([next]).await;
    device.expect_silence().await;
}
