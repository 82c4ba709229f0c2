//! What a client does wrong is said, and changes nothing; and what the database cannot do now.

use serde_json::{Value, json};

use super::{change, counted, post_state, send, to_user};
use crate::harness::{API, DatabaseProxy, Lane, Request, TestApp, TestDatabase, eventually};
use crate::problems::{expect_problem, refuses};

const STATE: &str = "/api/notifications/state/shop/ada";
const COUNTS: &str = "/api/notifications/counts/shop/ada";
const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

#[tokio::test]
async fn a_body_that_is_no_change_of_state_is_refused_and_makes_nobody_known() {
    let app = TestApp::start().await;
    let states = "seen, read, unread, archived, unarchived";
    let many: Vec<String> = (0..1001).map(|_| ID.to_owned()).collect();
    let topics: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let neither = "Neither ids nor up_to is given: give one of them.";
    let both = "Both ids and up_to are given: give one of them.";
    let up_to = "The member up_to is not a ULID: give the id of a notification or a cursor.";
    for (body, slug, detail) in [
        (json!({}), "invalid-field", neither.to_owned()),
        (json!({"state": "read"}), "invalid-field", neither.into()),
        (json!({"ids": [ID], "up_to": ID, "state": "read"}), "invalid-field", both.into()),
        (
            json!({"ids": [ID]}),
            "invalid-field",
            format!("The member state is missing: give one of {states}."),
        ),
        (
            json!({"ids": [ID], "state": "Read"}),
            "invalid-field",
            format!("The member state is none of {states}: give one."),
        ),
        (
            json!({"ids": [ID], "state": "unseen"}),
            "invalid-field",
            format!("The member state is none of {states}: give one."),
        ),
        (
            json!({"ids": ID, "state": "read"}),
            "invalid-field",
            "The member ids is not a list: give one.".into(),
        ),
        (
            json!({"ids": [], "state": "read"}),
            "invalid-field",
            "The list ids has 0 entries: give 1 to 1000.".into(),
        ),
        (
            json!({"ids": many, "state": "read"}),
            "invalid-field",
            "The list ids has 1001 entries: give 1 to 1000.".into(),
        ),
        (
            json!({"ids": [ID, "17"], "state": "read"}),
            "invalid-field",
            "ids[1], \"17\", is not a ULID: leave it out.".into(),
        ),
        (json!({"up_to": "17", "state": "read"}), "invalid-field", up_to.into()),
        (json!({"up_to": 17, "state": "read"}), "invalid-field", up_to.into()),
        (
            json!({"up_to": ID, "topics": "a", "state": "read"}),
            "invalid-field",
            "The member topics is not a list: give one.".into(),
        ),
        (
            json!({"up_to": ID, "topics": ["a", null], "state": "read"}),
            "invalid-field",
            "topics[1] is not a string: give one.".into(),
        ),
        (
            json!({"up_to": ID, "topics": ["a,b"], "state": "read"}),
            "invalid-topic",
            "The topic \"a,b\" has a comma, which separates topics: remove it.".into(),
        ),
        (
            json!({"up_to": ID, "topics": topics, "state": "read"}),
            "invalid-topic",
            "There are 101 topics: name up to 100.".into(),
        ),
        (
            json!({"up_to": ID, "upto": ID, "state": "read"}),
            "unknown-field",
            "There is no member \"upto\": a change of state has ids or up_to, topics, state."
                .into(),
        ),
    ] {
        refuses(&app, &Request::json(STATE, body.to_string()), 400, slug, &detail).await;
    }
    let known = "select count(*) from tidings.known_user";
    assert_eq!(app.database.value::<i64>(known).await, 0);
}

#[tokio::test]
async fn a_path_or_query_with_a_mistake_is_refused() {
    let app = TestApp::start().await;
    let body = json!({"ids": [ID], "state": "read"}).to_string();
    let state = |path: &str| Request::json(format!("{API}/state/{path}"), &body);
    let counts = |path: &str| Request::get(format!("{API}/counts/{path}"));
    let empty = "is empty: give a name of 1 to 128 characters.";
    for (request, slug, detail) in [
        (state("shop/"), "invalid-user", format!("The user {empty}")),
        (state("/ada"), "invalid-app", format!("The app {empty}")),
        (counts("shop/"), "invalid-user", format!("The user {empty}")),
        (counts("/ada"), "invalid-app", format!("The app {empty}")),
        (counts("shop/%20"), "invalid-user", "The user is only white space: give a name.".into()),
        (counts("shop/ada?topics=a,,b"), "invalid-topic", format!("The topic \"\" {empty}")),
        (
            counts("shop/ada?state=read"),
            "unknown-parameter",
            "There is no parameter \"state\": this route has topics.".into(),
        ),
        (
            state("shop/ada?topics=a"),
            "unknown-parameter",
            "There is no parameter \"topics\": this route has none.".into(),
        ),
        (
            Request::get(format!("{API}/history/shop/ada?state=new")),
            "invalid-parameter",
            "state is none of unread, read, unseen, seen, archived, unarchived: \"new\".".into(),
        ),
    ] {
        refuses(&app, &request, 400, slug, &detail).await;
    }
}

#[tokio::test]
async fn without_a_database_nothing_is_changed_and_that_is_said() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let id = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [id], "state": "read"})).await;
    proxy.take_away();
    eventually("the server knows", async || app.metric("tidings_database_up").await == 0.0).await;

    let body = json!({"ids": [id], "state": "unread"});
    let away = "The database cannot be reached. Nothing was changed; try again later.";
    for request in [
        Request::json(STATE, body.to_string()),
        Request::new("POST", format!("{API}/withdraw/shop/{id}")),
    ] {
        let answer = request.send(app.address).await;
        expect_problem(&request.to_string(), &answer, 503, "database-unreachable", away);
    }
    let answer = Request::get(COUNTS).send(app.address).await;
    assert_eq!(answer.json()["type"], "urn:tidings:problem:database-unreachable");

    proxy.bring_back();
    eventually("it can be changed again", async || {
        post_state(&app, "ada", &body).await.status == 200
    })
    .await;
    assert_eq!(counted(&app, "ada", "").await, (1, 0));
}

#[tokio::test]
async fn a_call_that_breaks_off_is_said_to_be_unknown_and_may_be_repeated() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let ids = [send(&app, to_user("ada", "1")).await, send(&app, to_user("ada", "2")).await];
    let requests: [(Request, u16); 2] = [
        (Request::json(STATE, json!({"ids": [ids[0]], "state": "read"}).to_string()), 200),
        (Request::new("POST", format!("{API}/withdraw/shop/{}", ids[1])), 204),
    ];
    for (request, done) in requests {
        let mut lane = Lane::hold(&database).await;
        let (answer, ()) = tokio::join!(request.send(app.address), async {
            lane.is_wanted().await;
            proxy.cut();
        });
        let detail = "The database broke off. It may be done; repeating it is harmless.";
        expect_problem(&request.to_string(), &answer, 503, "outcome-unknown", detail);
        lane.give_back().await;
        assert_eq!(request.send(app.address).await.status, done);
    }
    assert_eq!(counted(&app, "ada", "").await, (0, 0));
    let entries: Value = {
        let told = "select json_agg(data->>'state' order by id) from tidings.notification
            where event = 'tidings.state'";
        database.value(told).await
    };
    assert_eq!(entries, json!(["read", "withdrawn"]), "each is told once");
}
