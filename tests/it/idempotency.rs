//! A request with an `Idempotency-Key` is carried out once, however often it is repeated, whatever
//! breaks in between, and answered the same each time.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::durability;
use crate::harness::{
    Answer, DatabaseProxy, Fault, Lane, Request, TestApp, TestDatabase, eventually, http_client,
};
use crate::private_postgres::harness::Folder;
use crate::problems::expect_problem;

const SEND: &str = "/api/notifications/send/shop/ada";
const SEND_TO: &str = "/api/notifications/send/shop";
const BATCH: &str = "/api/notifications/batch/shop";
const MISMATCH: &str = "This Idempotency-Key was used with another method, path, type or body: take a new key for a new request.";

fn with_key(request: Request, key: &str) -> Request {
    request.header("idempotency-key", key)
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

/// All have one answer, and only one of them was the first.
fn expect_one_answer(answers: &[Answer]) {
    let bodies: BTreeSet<&[u8]> = answers.iter().map(|answer| answer.body.as_slice()).collect();
    assert!(answers.iter().all(|answer| answer.status == 201), "{}", answers[0].text());
    assert_eq!(bodies.len(), 1);
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1);
}

#[tokio::test]
async fn a_repeated_send_is_stored_once_and_answered_the_same() {
    let app = TestApp::start().await;
    let many = r#"{"to":{"users":["a","b","a"]},"data":1}"#;
    let batch = r#"{"notifications":[{"to":"everyone","data":1},{"to":{"topic":"t"},"data":2}]}"#;
    let mut stored = 0;
    for (key, request, rows) in [
        ("text", Request::text(SEND, "hello"), 1),
        ("json", Request::json(SEND, r#"{"data":1,"event":"a","expires_in":60}"#), 1),
        ("!to~", Request::json(SEND_TO, r#"{"to":{"topic":"t"},"data":1}"#), 1),
        ("many", Request::json(SEND_TO, many), 2),
        ("batch", Request::json(BATCH, batch), 2),
    ] {
        let request = with_key(request, key);
        let first = request.send(app.address).await;
        let again = request.send(app.address).await;
        stored += rows;

        assert!(!is_replayed(&first) && is_replayed(&again), "{key}");
        expect_one_answer(&[first, again]);
        assert_eq!(app.database.count().await, stored, "{key}");
    }
}

#[tokio::test]
async fn a_key_with_another_request_is_refused_and_stores_nothing() {
    let app = TestApp::start().await;
    let first = with_key(Request::text(SEND, "1"), "k");
    assert_eq!(first.send(app.address).await.status, 201);
    for other in [
        Request::text(SEND, "2"),
        Request::json(SEND, r#"{"data":"1"}"#),
        Request::text("/api/notifications/send/shop/bob", "1"),
        Request::json(SEND_TO, r#"{"to":{"user":"ada"},"data":"1"}"#),
    ] {
        let answer = with_key(other, "k").send(app.address).await;
        expect_problem("another request", &answer, 422, "idempotency-mismatch", MISMATCH);
    }
    assert_eq!(app.database.count().await, 1);
    // Its scope is the app.
    let elsewhere = Request::text("/api/notifications/send/shop2/ada", "2");
    let elsewhere = with_key(elsewhere, "k").send(app.address).await;
    assert!(elsewhere.status == 201 && !is_replayed(&elsewhere));
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let app = TestApp::start().await;
    let detail = "The header Idempotency-Key is not 1 to 255 visible ASCII characters, given once: make a new one for each request, like a UUID.";
    for key in ["", "a b", "ä", "a\tb", &"k".repeat(256)] {
        let answer = with_key(Request::text(SEND, "1"), key).send(app.address).await;
        expect_problem(key, &answer, 400, "invalid-idempotency-key", detail);
    }
    let twice = with_key(with_key(Request::text(SEND, "1"), "a"), "b");
    let answer = twice.send(app.address).await;
    expect_problem("twice", &answer, 400, "invalid-idempotency-key", detail);
    assert_eq!(app.database.count().await, 0);
    let longest = with_key(Request::text(SEND, "1"), &"k".repeat(255));
    assert_eq!(longest.send(app.address).await.status, 201);
}

#[tokio::test]
async fn one_key_fifty_times_at_once_over_two_instances_is_stored_once() {
    let database = TestDatabase::new().await;
    let apps =
        [TestApp::on(database.clone(), |_| {}).await, TestApp::on(database.clone(), |_| {}).await];
    let mut client = apps[0].subscribe("shop/ada").await;
    let request = with_key(Request::text(SEND, "once"), "k");

    let sends = (0..50).map(|n| request.send(apps[n % 2].address));
    let answers = join_all(sends).await;

    expect_one_answer(&answers);
    assert_eq!(database.count().await, 1);
    client.expect([answers[0].json()["id"].as_str().unwrap()]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn one_key_many_times_in_one_group_is_stored_once_and_takes_no_other_with_it() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let mut lane = Lane::hold(&app.database).await;
    let batch = |n: usize| {
        let entry = |data: usize| format!(r#"{{"to":{{"user":"ada"}},"data":{data}}}"#);
        format!(r#"{{"notifications":[{},{}]}}"#, entry(2 * n), entry(2 * n + 1))
    };
    let sends: Vec<Request> = (0..12)
        .map(|n| match n % 4 {
            0 => Request::text(SEND, n.to_string()),
            1 => with_key(Request::json(BATCH, batch(n)), &format!("own-{n}")),
            2 => with_key(Request::text(SEND, "same"), "same"),
            _ => with_key(Request::text(SEND, n.to_string()), "same"),
        })
        .collect();
    let first = Request::text(SEND, "first");
    let (first, answers) = tokio::join!(first.send(app.address), async {
        lane.is_wanted().await;
        let group = join_all(sends.iter().map(|send| send.send(app.address)));
        let release = async {
            let waiting = async || app.metric("tidings_send_queue_length").await == 12.0;
            eventually("the sends wait in the queue", waiting).await;
            lane.give_back().await;
        };
        tokio::join!(group, release).0
    });

    assert_eq!(first.status, 201);
    let (same, rest): (Vec<_>, Vec<_>) = answers.iter().zip(&sends).partition(|(_, send)| {
        send.headers.iter().any(|(name, key)| name == "idempotency-key" && key == b"same")
    });
    assert!(rest.iter().all(|(answer, _)| answer.status == 201 && !is_replayed(answer)));
    // Three ask for the same and three for something else; whoever came first decides what is right.
    let mut statuses: Vec<u16> = same.iter().map(|(answer, _)| answer.status).collect();
    statuses.sort_unstable();
    assert!(
        [&[201, 201, 201, 422, 422, 422][..], &[201, 422, 422, 422, 422, 422]]
            .contains(&statuses.as_slice()),
        "{statuses:?}"
    );
    let ids: BTreeSet<String> = answers
        .iter()
        .chain([&first])
        .filter(|answer| answer.status == 201)
        .flat_map(|answer| {
            let body = answer.json();
            let many = body["ids"].as_array().cloned();
            many.unwrap_or_else(|| vec![body["id"].clone()])
        })
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 1 + 3 + 6 + 1);
    assert_eq!(app.database.ids("shop", "user:ada").await, Vec::from_iter(ids.clone()));
    client.expect(&ids).await;
    client.expect_silence().await;
}

/// The first request with a key meets `fault` in its append; it and its repetition are stored once.
async fn is_stored_once_in_spite_of(fault: Fault) {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    let known = with_key(Request::text(SEND, "known"), "known");
    let known_first = known.send(app.address).await;
    let mut client = app.subscribe("shop/ada").await;
    let once = with_key(Request::text(SEND, "once"), "once");
    proxy.strike_next_append(fault);

    // One whose key is there already and one whose key is new, maybe in one group.
    let (first, known_again) = tokio::join!(once.send(app.address), known.send(app.address));

    assert!(proxy.has_struck());
    let again = once.send(app.address).await;
    client.expect([first.json()["id"].as_str().unwrap()]).await;
    client.expect_silence().await;
    expect_one_answer(&[first, again]);
    expect_one_answer(&[known_first, known_again]);
    assert_eq!(database.count().await, 2);
}

#[tokio::test]
async fn a_key_survives_a_call_that_is_lost_on_its_way() {
    is_stored_once_in_spite_of(Fault::LoseCall).await;
}

#[tokio::test]
async fn a_key_survives_a_commit_whose_answer_is_lost() {
    is_stored_once_in_spite_of(Fault::LoseAnswer).await;
}

/// Several at once are cut off, some after their commit; the repetition on the next server knows.
#[tokio::test]
async fn a_key_survives_a_kill_9() {
    let folder = Folder::with_database();
    let mut server = durability::start(folder.path()).await;
    // Its first start makes the schema; sends wait for a while only.
    let ready = async || Request::get("/readyz").send(server.address).await.status == 200;
    eventually("it is ready", ready).await;
    for round in 1..=5 {
        let request = with_key(Request::text(SEND, round.to_string()), &format!("k{round}"));
        let cut_off = join_all((0..8).map(|_| body_of_201(server.address, round)));
        let ((), cut_off) = tokio::join!(server.kill(), cut_off);
        server = durability::start(folder.path()).await;

        let again = request.send(server.address).await;

        assert_eq!(again.status, 201, "{}", again.text());
        for body in cut_off.into_iter().flatten() {
            assert_eq!(body, again.text(), "round {round}");
        }
        let history = "/api/notifications/history/shop/ada";
        let history = Request::get(history).send(server.address).await.json();
        assert_eq!(history["notifications"].as_array().unwrap().len(), round);
    }
    durability::stop(server).await;
}

/// The same request with a client that takes it for nothing when there is no whole answer.
async fn body_of_201(server: SocketAddr, round: usize) -> Option<String> {
    let send = http_client()
        .post(format!("http://{server}{SEND}"))
        .header("content-type", "text/plain")
        .header("idempotency-key", format!("k{round}"))
        .body(round.to_string());
    let answer = send.send().await.ok()?;
    assert_eq!(answer.status(), 201);
    answer.text().await.ok()
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let app = TestApp::start().await;
    let request = with_key(Request::text(SEND, "1"), "k");
    request.send(app.address).await;
    let age = async |by: &str| {
        app.database
            .run(&format!(
                "update tidings.idempotency_key set answered_at = answered_at - interval '{by}'"
            ))
            .await;
    };
    age("23 hours 59 minutes").await;
    assert!(is_replayed(&request.send(app.address).await));
    age("2 minutes").await;

    let anew = request.send(app.address).await;

    assert!(anew.status == 201 && !is_replayed(&anew));
    assert_eq!(app.database.count().await, 2);
    assert!(is_replayed(&request.send(app.address).await), "and is remembered again");
}

#[tokio::test]
async fn a_send_that_failed_leaves_no_key() {
    let app = TestApp::start().await;
    let poison =
        "alter table tidings.notification add constraint poison check (data::text <> '\"poison\"')";
    app.database.run(poison).await;
    let request = with_key(Request::text(SEND, "poison"), "k");
    assert_eq!(request.send(app.address).await.status, 400);
    app.database.run("alter table tidings.notification drop constraint poison").await;

    let answer = request.send(app.address).await;

    assert!(answer.status == 201 && !is_replayed(&answer));
}
