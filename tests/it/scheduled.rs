//! Scheduled sends: an id only when they are due, exactly once, however many instances there are and
//! whatever restarts; and they can be called off until then.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tidings::clock::{Clock, rfc3339};

use crate::harness::{Answer, DatabaseProxy, Fault, Request, TestApp, TestDatabase, eventually};
use crate::problems::expect_problem;

const SEND: &str = "/api/notifications/send/shop/ada";
const SEND_TO: &str = "/api/notifications/send/shop";
const UNKNOWN: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn in_ms(ms: i64) -> String {
    rfc3339(Clock::default().now() + TimeDelta::milliseconds(ms))
}

fn request(data: Value, deliver_at: &str) -> Request {
    Request::json(SEND, json!({"data": data, "deliver_at": deliver_at}).to_string())
}

async fn schedule(app: &TestApp, data: Value, deliver_at: &str) -> String {
    let answer = request(data, deliver_at).send(app.address).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["schedule_id"].as_str().expect("an id").to_owned()
}

async fn cancel(app: &TestApp, id: &str) -> Answer {
    let path = format!("/api/notifications/scheduled/shop/{id}");
    Request::new("DELETE", path).send(app.address).await
}

/// Makes everything due that is still to come.
async fn let_it_be_due(database: &TestDatabase) {
    database
        .run("update tidings.scheduled set deliver_at = now() where sent_at is null and cancelled_at is null")
        .await;
}

#[tokio::test]
async fn a_scheduled_send_gets_its_id_when_it_is_due_and_not_before() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    // Later than the other one, however slow this machine is.
    let deliver_at = in_ms(5000);
    let body =
        json!({"data": {"a": 1}, "event": "later", "expires_in": 60, "deliver_at": deliver_at});

    let answer = Request::json(SEND, body.to_string()).send(app.address).await;

    assert_eq!(answer.status, 202);
    let body = answer.json();
    assert_eq!(body["deliver_at"], deliver_at);
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    let sent = app.send("shop/ada", "\"before\"").await;
    client.expect([sent]).await;
    let frame = client.notification().await;
    assert_eq!((frame.event.as_deref(), frame.data.as_deref()), (Some("later"), Some("{\"a\":1}")));
    assert_ne!(frame.id(), body["schedule_id"]);
    let stored = app.get(&format!("/api/notifications/notification/shop/{}", frame.id())).await;
    let stored: Value = stored.unwrap().json().await.unwrap();
    let time =
        |member: &str| -> DateTime<Utc> { stored[member].as_str().unwrap().parse().unwrap() };
    assert!(time("created_at") >= deliver_at.parse::<DateTime<Utc>>().unwrap(), "{stored}");
    assert_eq!(time("expires_at") - time("created_at"), TimeDelta::seconds(60), "from delivery on");
    client.expect_silence().await;
}

#[tokio::test]
async fn any_offset_and_up_to_five_seconds_past_are_taken() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let past = Clock::default().now() - TimeDelta::seconds(2);
    let offset = past.with_timezone(&chrono::FixedOffset::east_opt(5 * 3600 + 1800).unwrap());
    let answer = request(json!(1), &offset.to_rfc3339()).send(app.address).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["deliver_at"], rfc3339(past));
    assert_eq!(client.notification().await.data.as_deref(), Some("1"));

    schedule(&app, json!(2), &in_ms(30 * 86_400_000 - 60_000)).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn another_time_is_refused_and_nothing_is_stored() {
    let app = TestApp::start().await;
    let past = "The member deliver_at is past: leave it out to send now.";
    let far = "The member deliver_at is more than 30 days ahead: schedule it later.";
    let form =
        "The member deliver_at is not RFC 3339 with an offset: write it like 2026-11-22T12:00:00Z.";
    for (deliver_at, detail) in [
        (in_ms(-6000), past),
        ("0000-01-01T00:00:00Z".into(), past),
        (in_ms(30 * 86_400_000 + 60_000), far),
        ("9999-12-31T23:59:59Z".into(), far),
        ("tomorrow".into(), form),
        ("2026-11-22T12:00:00".into(), form),
    ] {
        for key in [None, Some("a-key")] {
            let mut request = request(json!(1), &deliver_at);
            request.headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.into())));
            let answer = request.send(app.address).await;
            expect_problem(&deliver_at, &answer, 400, "invalid-field", detail);
        }
    }
    let rows = "select (select count(*) from tidings.scheduled) + (select count(*) from tidings.idempotency_key)";
    assert_eq!(app.database.value::<i64>(rows).await, 0, "failures are not remembered either");
}

#[tokio::test]
async fn what_is_called_off_is_not_sent() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let off = schedule(&app, json!("off"), &in_ms(600_000)).await;
    schedule(&app, json!("on"), &in_ms(600_000)).await;

    let answer = cancel(&app, &off).await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!(cancel(&app, &off.to_lowercase()).await.status, 204, "again");

    app.database.run("update tidings.scheduled set deliver_at = now()").await;
    assert_eq!(client.notification().await.data.as_deref(), Some("\"on\""));
    client.expect_silence().await;
    assert_eq!(cancel(&app, &off).await.status, 204, "still");
}

#[tokio::test]
async fn what_was_sent_or_never_was_cannot_be_called_off() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let sent = schedule(&app, json!(1), &in_ms(0)).await;
    client.notification().await;
    let other = schedule(&app, json!(2), &in_ms(600_000)).await;

    let detail = format!("The scheduled send {sent} was sent already.");
    expect_problem("sent", &cancel(&app, &sent).await, 409, "already-sent", &detail);
    let detail = format!("There is no scheduled send {UNKNOWN} in this app.");
    expect_problem("unknown", &cancel(&app, UNKNOWN).await, 404, "not-found", &detail);
    let detail = "There is no scheduled send \"17\" in this app: the id is not a ULID.";
    expect_problem("no id", &cancel(&app, "17").await, 404, "not-found", detail);
    let path = format!("/api/notifications/scheduled/another/{other}");
    let answer = Request::new("DELETE", path).send(app.address).await;
    let detail = format!("There is no scheduled send {other} in this app.");
    expect_problem("another app's", &answer, 404, "not-found", &detail);

    let_it_be_due(&app.database).await;
    assert_eq!(client.notification().await.data.as_deref(), Some("2"), "it was not touched");
}

#[tokio::test]
async fn a_scheduled_send_reaches_many_users_and_replaces_as_one_at_once_does() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let mut bob = app.subscribe("shop/bob").await;
    for (number, to) in [json!({"users": ["ada", "bob", "ada"]}), json!({"user": "ada"})]
        .into_iter()
        .chain([json!("everyone")])
        .enumerate()
    {
        let body = json!({"to": to, "data": number, "replaces": "status", "deliver_at": in_ms(0)});
        let answer = Request::json(SEND_TO, body.to_string()).send(app.address).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert!(answer.json()["schedule_id"].is_string(), "one for all of them");
        assert_eq!(ada.notification().await.data, Some(number.to_string()));
        if to["user"].is_null() {
            assert_eq!(bob.notification().await.data, Some(number.to_string()));
        }
    }
    let replaced = "select string_agg(n.data::text || ' for ' || n.audience, ', ')
        from tidings.gone g join tidings.notification n using (id) where g.replaced_by is not null";
    assert_eq!(app.database.value::<String>(replaced).await, "0 for user:ada");
}

#[tokio::test]
async fn scheduled_sends_survive_a_restart() {
    let app = TestApp::start().await;
    let database = app.database.clone();
    schedule(&app, json!(1), &in_ms(600_000)).await;
    app.stop().await.unwrap();
    let_it_be_due(&database).await;

    let app = TestApp::on(database, |_| {}).await;

    eventually("it is sent", async || app.database.count().await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_send_what_is_due_exactly_once() {
    let database = TestDatabase::new().await;
    let instances = join_all((0..3).map(|_| TestApp::on(database.clone(), |_| {}))).await;
    let mut clients = join_all(instances.iter().map(|app| app.subscribe("shop/ada"))).await;
    join_all((0..60).map(|number| {
        let app = &instances[number % 3];
        async move { schedule(app, json!(number), &in_ms(600_000)).await }
    }))
    .await;

    let_it_be_due(&database).await;

    for client in &mut clients {
        let mut arrived = BTreeSet::new();
        for _ in 0..60 {
            arrived.insert(client.notification().await.data.unwrap().parse::<u32>().unwrap());
        }
        assert!(arrived.into_iter().eq(0..60));
        client.expect_silence().await;
    }
    assert_eq!(database.count().await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_at_once_over_two_instances_schedules_once_and_answers_the_same() {
    let database = TestDatabase::new().await;
    let instances = join_all((0..2).map(|_| TestApp::on(database.clone(), |_| {}))).await;
    let request = request(json!(1), &in_ms(600_000)).header("idempotency-key", "k");

    let answers = join_all((0..40).map(|n| request.send(instances[n % 2].address))).await;

    let bodies: BTreeSet<_> = answers.iter().map(|answer| answer.text()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(answers.iter().all(|answer| answer.status == 202));
    let replayed = answers.iter().filter(|a| a.header("idempotency-replayed") == Some("true"));
    assert_eq!(replayed.count(), 39);
    assert_eq!(database.value::<i64>("select count(*) from tidings.scheduled").await, 1);
}

#[tokio::test]
async fn a_key_is_looked_up_before_the_time_is_judged() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let keyed = request(json!(1), &in_ms(600_000)).header("idempotency-key", "k");
    let first = keyed.send(app.address).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let_it_be_due(&app.database).await;
    client.notification().await;
    // As if the repeat came when the time in it is long past.
    let past = in_ms(-60_000);
    let answer_with = format!("update tidings.idempotency_key set deliver_at = '{past}'");
    app.database.run(&answer_with).await;

    let again = keyed.send(app.address).await;

    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(again.json()["schedule_id"], first.json()["schedule_id"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_key_of_another_request_is_a_mismatch_and_one_past_its_time_is_absent() {
    let app = TestApp::start().await;
    let detail = "This Idempotency-Key was used with another method, path, type or body: take a new key for a new request.";
    let keyed = request(json!(1), &in_ms(600_000)).header("idempotency-key", "k");
    let first = keyed.send(app.address).await;
    assert_eq!(first.status, 202);
    let plain = Request::json(SEND, "{\"data\":1}").header("idempotency-key", "k");
    let other = request(json!(2), &in_ms(600_000)).header("idempotency-key", "k");
    for request in [&plain, &other] {
        let answer = request.send(app.address).await;
        expect_problem("mismatch", &answer, 422, "idempotency-mismatch", detail);
    }
    let sent = Request::json(SEND, "{\"data\":1}").header("idempotency-key", "of-a-send");
    assert_eq!(sent.send(app.address).await.status, 201);
    let answer = request(json!(1), &in_ms(600_000)).header("idempotency-key", "of-a-send");
    let answer = answer.send(app.address).await;
    expect_problem("of a send", &answer, 422, "idempotency-mismatch", detail);

    app.database
        .run("update tidings.idempotency_key set answered_at = answered_at - interval '24 hours'")
        .await;
    let anew = keyed.send(app.address).await;
    assert_eq!((anew.status, anew.header("idempotency-replayed")), (202, None));
    assert_ne!(anew.json()["schedule_id"], first.json()["schedule_id"]);
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_told_to_be_unknown_and_a_key_finds_it() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    schedule(&app, json!(0), &in_ms(600_000)).await;
    let keyed = request(json!(1), &in_ms(600_000)).header("idempotency-key", "k");

    proxy.strike_next_schedule(Fault::LoseAnswer);
    let answer = keyed.send(app.address).await;

    assert!(proxy.has_struck());
    let detail = "The database broke off. The notification may be stored; repeat it with the same Idempotency-Key, or look into the history first.";
    expect_problem("lost", &answer, 503, "outcome-unknown", detail);
    let again = keyed.send(app.address).await;
    assert_eq!(again.status, 202);
    let rows = "select count(*) from tidings.scheduled";
    assert_eq!(database.value::<i64>(rows).await, 2, "the one before and this one");
}

#[tokio::test]
async fn without_the_database_nothing_is_scheduled_and_that_is_certain() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |_| {}).await;
    schedule(&app, json!(0), &in_ms(600_000)).await;
    proxy.take_away();
    let unready = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 503);
    eventually("the instance notices", unready).await;

    let answer = request(json!(1), &in_ms(600_000)).send(app.address).await;

    let detail =
        "The database cannot be reached. The notification was not stored; send it again later.";
    expect_problem("away", &answer, 503, "database-unreachable", detail);
    proxy.bring_back();
    assert_eq!(database.value::<i64>("select count(*) from tidings.scheduled").await, 1);
}

#[tokio::test]
async fn what_has_ended_is_forgotten_after_its_time() {
    let database = TestDatabase::new().await;
    database
        .run(
            "insert into tidings.idempotency_key (app, key, fingerprint, answered_at)
            select 'shop', 'k' || i, '', now() - interval '25 hours' from generate_series(1, 1200) i;
            insert into tidings.idempotency_key (app, key, fingerprint, answered_at)
            values ('shop', 'young', '', now() - interval '23 hours');
            insert into tidings.scheduled (schedule_id, app, audiences, data, deliver_at, created_at, sent_at, cancelled_at)
            select gen_random_uuid(), 'shop', '{everyone}', '1', now(), now(),
                   case when i % 2 = 0 then now() - interval '8 days' end,
                   case when i % 2 = 1 then now() - interval '8 days' end
            from generate_series(1, 1200) i;
            insert into tidings.scheduled (schedule_id, app, audiences, data, deliver_at, created_at, sent_at)
            values (gen_random_uuid(), 'shop', '{everyone}', '1', now(), now(), now() - interval '6 days'),
                   (gen_random_uuid(), 'shop', '{everyone}', '1', now() + interval '1 day', now() - interval '9 days', null)",
        )
        .await;
    let app = TestApp::on(database, |_| {}).await;
    let left = "select (select string_agg(key, ' ') from tidings.idempotency_key)
        || (select count(*) from tidings.scheduled)";
    eventually("they are forgotten", async || app.database.value::<String>(left).await == "young2")
        .await;
}
