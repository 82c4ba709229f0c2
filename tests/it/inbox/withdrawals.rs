//! A withdrawn or replaced notification is gone for all: from lists, counts and single looks.

use serde_json::{Value, json};

use super::{change, counted, listed, send, to_everyone, to_topic, to_user, withdraw};
use crate::harness::{API, Request, TestApp};
use crate::problems::expect_problem;

async fn look(app: &TestApp, id: &str) -> crate::harness::Answer {
    Request::get(format!("{API}/notification/shop/{id}")).send(app.address).await
}

#[tokio::test]
async fn what_is_withdrawn_is_gone_for_all_and_those_who_have_it_are_told() {
    let app = TestApp::start().await;
    let mut clients = Vec::new();
    for user in ["ada", "bob"] {
        clients.push(app.subscribe(&format!("shop/{user}?topics=a")).await);
    }
    let for_ada = send(&app, to_user("ada", "1")).await;
    let for_all = send(&app, to_everyone("2")).await;
    let of_topic = send(&app, to_topic("a", "3")).await;
    // Unread in spite of a mark, and unread because there is none.
    change(&app, "ada", json!({"up_to": of_topic, "state": "read"})).await;
    change(&app, "ada", json!({"ids": [for_ada, for_all], "state": "unread"})).await;
    assert_eq!(counted(&app, "ada", "a").await, (3, 1));

    for id in [&for_all, &of_topic, &for_ada] {
        assert_eq!(withdraw(&app, id).await, 204);
        assert_eq!(withdraw(&app, &id.to_lowercase()).await, 204, "again");
        let detail = format!("The notification {id} was withdrawn: remove it from your list.");
        expect_problem(id, &look(&app, id).await, 410, "withdrawn", &detail);
    }

    for (client, told) in
        clients.iter_mut().zip([vec![&for_all, &of_topic, &for_ada], vec![&for_all, &of_topic]])
    {
        for id in told {
            let withdrawn = json!({"ids": [id], "state": "withdrawn"});
            loop {
                let entry: Value = client.until("tidings.state").await.1.json();
                if entry["state"] == "withdrawn" {
                    assert_eq!(entry, withdrawn);
                    break;
                }
            }
        }
        client.expect_silence().await;
    }
    for user in ["ada", "bob"] {
        assert_eq!(counted(&app, user, "a").await, (0, 0), "{user}");
        assert!(listed(&app, user, "asc", "topics=a").await.is_empty(), "{user}");
    }
}

#[tokio::test]
async fn what_is_replaced_says_by_what_and_counts_once() {
    let app = TestApp::start().await;
    let mut device = app.subscribe("shop/ada").await;
    let place = |data: &str| json!({"to": {"user": "ada"}, "data": data, "replaces": "place"});
    let old = send(&app, place("old")).await;
    change(&app, "ada", json!({"ids": [old], "state": "read"})).await;
    let new = send(&app, place("new")).await;

    let detail = format!("The notification {old} was replaced: show {new} in its place.");
    expect_problem("replaced", &look(&app, &old).await, 410, "withdrawn", &detail);
    assert_eq!(counted(&app, "ada", "").await, (1, 1), "the new one is unread");
    assert_eq!(listed(&app, "ada", "asc", "").await.len(), 1);
    assert_eq!(withdraw(&app, &old).await, 204, "it is gone already");
    loop {
        let entry = device.until("tidings.state").await.1.json();
        if entry["state"] == "replaced" {
            assert_eq!(entry, json!({"ids": [old], "state": "replaced", "by": new}));
            break;
        }
    }
    device.expect_silence().await;
}

#[tokio::test]
async fn what_is_no_notification_of_the_app_cannot_be_withdrawn() {
    let app = TestApp::start().await;
    let id = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [id], "state": "read"})).await;
    let expired = json!({"to": {"user": "ada"}, "data": 1, "expires_in": 60});
    let expired = send(&app, expired).await;
    let expire = "update tidings.notification set expires_at = clock_timestamp() where expires_at is not null";
    app.database.run(expire).await;
    let entry = app.database.ids("shop", "user:ada").await[1].clone();
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned();
    let before = app.database.count().await;
    for (in_app, id) in [("shop", &unknown), ("shop2", &id), ("shop", &entry), ("shop", &expired)] {
        let path = format!("{API}/withdraw/{in_app}/{id}");
        let answer = Request::new("POST", &path).send(app.address).await;
        let detail = format!("There is no notification {id} in this app.");
        expect_problem(&path, &answer, 404, "not-found", &detail);
    }
    let path = format!("{API}/withdraw/shop/17");
    let answer = Request::new("POST", &path).send(app.address).await;
    let detail = "There is no notification \"17\" in this app: the id is not a ULID.";
    expect_problem(&path, &answer, 404, "not-found", detail);
    assert_eq!(look(&app, &entry).await.status, 404, "a state entry is no notification");
    assert_eq!(app.database.count().await, before);
}

#[tokio::test]
async fn withdrawing_at_once_from_two_instances_is_told_once() {
    let app = TestApp::start().await;
    let other = TestApp::on(app.database.clone(), |_| {}).await;
    for _ in 0..10 {
        let id = send(&app, to_user("ada", "1")).await;
        let before = app.database.count().await;
        let both = tokio::join!(withdraw(&app, &id), withdraw(&other, &id));
        assert_eq!(both, (204, 204));
        assert_eq!(app.database.count().await, before + 1);
    }
}
