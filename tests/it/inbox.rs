//! What users did with their notifications: the same on every device, in every count and in every list.

mod changes;
mod devices;
mod locks;
mod marks;
mod model;
mod plans;
mod requests;
mod withdrawals;

use serde_json::{Value, json};

use crate::harness::{API, Answer, Request, TestApp};

/// Sends `{"data":…,"to":…}` and whatever else a body may have; the id.
async fn send(app: &TestApp, body: Value) -> String {
    let answer =
        Request::json(format!("{API}/send/shop"), body.to_string()).send(app.address).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn post_state(app: &TestApp, user: &str, body: &Value) -> Answer {
    Request::json(format!("{API}/state/shop/{user}"), body.to_string()).send(app.address).await
}

/// Changes state, and expects it to be done.
async fn change(app: &TestApp, user: &str, body: Value) -> Value {
    let answer = post_state(app, user, &body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

async fn counts(app: &TestApp, user: &str, topics: &str) -> Value {
    let path = format!("{API}/counts/shop/{user}?topics={topics}");
    let answer = Request::get(path).send(app.address).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Unread and unseen ones.
async fn counted(app: &TestApp, user: &str, topics: &str) -> (u64, u64) {
    let counts = counts(app, user, topics).await;
    (counts["unread"].as_u64().unwrap(), counts["unseen"].as_u64().unwrap())
}

/// All pages of a history.
async fn listed(app: &TestApp, user: &str, order: &str, query: &str) -> Vec<Value> {
    let bound = if order == "asc" { "after" } else { "before" };
    let (mut all, mut place) = (Vec::new(), String::new());
    loop {
        let path = format!("{API}/history/shop/{user}?order={order}&{query}{place}");
        let answer = Request::get(&path).send(app.address).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let page = answer.json();
        all.extend(page["notifications"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { return all };
        place = format!("&{bound}={next}");
    }
}

async fn withdraw(app: &TestApp, id: &str) -> u16 {
    let path = format!("{API}/withdraw/shop/{id}");
    Request::new("POST", path).send(app.address).await.status
}

fn to_user(user: &str, data: &str) -> Value {
    json!({"to": {"user": user}, "data": data})
}

fn to_everyone(data: &str) -> Value {
    json!({"to": "everyone", "data": data})
}

fn to_topic(topic: &str, data: &str) -> Value {
    json!({"to": {"topic": topic}, "data": data})
}
