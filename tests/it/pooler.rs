//! Behind a pooler (PgBouncer, as Debian has it): in session mode everything works; in transaction mode
//! LISTEN hears nothing and nothing in a session lasts, so a server whose every connection goes
//! through it does not start, and one with a direct way to the database works.

use std::str::FromStr;

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::harness::{
    DEADLINE, DatabaseProxy, Pooler, Request, ServerProcess, TestApp, TestDatabase, eventually,
};

const SEND: &str = "/api/notifications/send/shop/ada";
const HISTORY: &str = "/api/notifications/history/shop/ada";

#[tokio::test]
async fn a_pooler_that_lends_connections_is_refused_in_one_sentence() {
    let database = TestDatabase::new().await;
    for mode in ["transaction", "statement"] {
        let Some(pooler) = Pooler::start(&database, mode, 20).await else { return };
        let url = pooler.database().url;
        let direct = [("DATABASE_URL", &*url), ("TIDINGS_DIRECT_DATABASE_URL", &*url)];
        for (command, variables) in
            [("serve", &direct[..1]), ("serve", &direct[..]), ("migrate", &direct[..1])]
        {
            let mut process = ServerProcess::command(&[command], variables);
            process.env("TIDINGS_LISTEN", "127.0.0.1:0");
            let ended = tokio::time::timeout(DEADLINE, process.output()).await;
            let ended = ended.expect("it ends by itself").unwrap();
            assert_eq!(ended.status.code(), Some(1), "{command} in {mode} mode");
            let error = String::from_utf8(ended.stderr).unwrap();
            let sentence = error.lines().last().unwrap();
            assert!(sentence.starts_with("tidings: the database is reached"), "{sentence}");
            assert!(sentence.contains("set TIDINGS_DIRECT_DATABASE_URL"), "{sentence}");
        }
    }
}

#[tokio::test]
async fn the_pooler_is_found_out_however_it_picks_its_connections() {
    let database = TestDatabase::new().await;
    for (size, others) in [(1, 0), (2, 0), (3, 2), (20, 0), (20, 7)] {
        let Some(pooler) = Pooler::start(&database, "transaction", size).await else { return };
        // So that it has as many connections to choose from.
        let url = pooler.database().url;
        let others = (0..others).map(async |_| {
            let options = PgConnectOptions::from_str(&url).unwrap().extra_float_digits(None);
            let mut other = options.connect().await.unwrap();
            sqlx::raw_sql("select pg_sleep(0.2)").execute(&mut other).await.unwrap();
        });
        join_all(others).await;

        let store = tidings::store::Store::new(&url, None).unwrap();

        let error = store.check().await.unwrap_err();
        assert!(matches!(error, tidings::store::StoreError::LentConnection), "of {size}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_everything_works() {
    let database = TestDatabase::new().await;
    let Some(pooler) = Pooler::start(&database, "session", 40).await else { return };
    let app = TestApp::on(pooler.database(), |config| {
        // Nothing but a wake-up brings a row of another instance in time.
        config.heartbeat = DEADLINE * 2;
    })
    .await;
    let listens = async || app.metric("tidings_listener_reconnects_total").await == 1.0;
    eventually("the listener is connected", listens).await;
    let mut client = app.subscribe("shop/ada").await;
    let sent = app.send("shop/ada", "1").await;
    database.append("shop", "user:ada", &["2"]).await;

    client.expect(database.ids("shop", "user:ada").await).await;

    assert_eq!(app.metric("tidings_listener_reconnects_total").await, 1.0);
    let history = app.get("/api/notifications/history/shop/ada").await.unwrap();
    let history: Value = history.json().await.unwrap();
    assert_eq!(history["notifications"][1]["id"], sent.id);
    app.subscribe_after("shop/ada", &sent)
        .await
        .expect([&history["notifications"][0]["id"].as_str().unwrap()])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_direct_way_requests_through_transaction_mode_get_their_own_answers() {
    const USERS: usize = 12;
    const ROUNDS: usize = 20;
    let database = TestDatabase::new().await;
    let Some(pooler) = Pooler::start(&database, "transaction", 3).await else { return };
    let app = TestApp::on(pooler.database(), |config| {
        config.direct_database_url = Some(database.url.clone());
    })
    .await;
    let asked = (0..USERS).map(async |user| {
        let to = format!("shop/user-{user}");
        let mut client = app.subscribe(&to).await;
        let sent = app.send(&to, &user.to_string()).await;
        client.expect([&sent]).await;
        for round in 0..ROUNDS {
            let order = ["asc", "desc"][round % 2];
            let path = format!("/api/notifications/history/{to}?order={order}");
            let history: Value = app.get(&path).await.unwrap().json().await.unwrap();
            let path = format!("/api/notifications/notification/shop/{}", sent.id);
            let one: Value = app.get(&path).await.unwrap().json().await.unwrap();
            let path = format!("/api/notifications/counts/{to}");
            let counts: Value = app.get(&path).await.unwrap().json().await.unwrap();
            for notification in [&history["notifications"][0], &one] {
                assert_eq!(notification["id"], sent.id, "{history} {one}");
                assert_eq!(notification["data"], user, "{history} {one}");
            }
            assert_eq!(counts["unread"], 1, "{counts}");
        }
    });
    join_all(asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_switched_under_a_running_server_stops_its_sends_until_it_is_switched_back() {
    let database = TestDatabase::new().await;
    let Some(pooler) = Pooler::start(&database, "session", 40).await else { return };
    let app = TestApp::on(pooler.database(), |_| {}).await;
    let mut client = app.subscribe("shop/ada").await;
    let first = app.send("shop/ada", "1").await;
    client.expect([first]).await;

    pooler.switch_to("transaction", 40);
    eventually("sends are refused", async || {
        let answer = Request::text(SEND, "between").send(app.address).await;
        assert!([201, 503].contains(&answer.status), "{}", answer.text());
        answer.status == 503 && answer.json()["type"] == "urn:tidings:problem:database-unreachable"
    })
    .await;
    eventually("that is said", async || {
        let answer = Request::get("/readyz").send(app.address).await;
        answer.json()["reasons"] == serde_json::json!(["database-unreachable"])
    })
    .await;

    pooler.switch_to("session", 40);
    eventually("sends are stored again", async || {
        Request::text(SEND, "after").send(app.address).await.status == 201
    })
    .await;
    // What was answered is what is stored, and what the stream that stayed open has got.
    client.expect(&database.ids("shop", "user:ada").await[1..]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn one_database_under_two_addresses_is_taken() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    let app = TestApp::on(proxy.database(), |config| {
        config.direct_database_url = Some(database.url.clone());
    })
    .await;
    let sent = app.send("shop/ada", "1").await;

    let history: Value = app.get(HISTORY).await.unwrap().json().await.unwrap();

    assert_eq!(history["notifications"][0]["id"], sent.id);
}

#[tokio::test]
async fn two_databases_are_refused_in_one_sentence_before_anything_is_made_in_them() {
    let (one, other) = (TestDatabase::empty().await, TestDatabase::empty().await);
    let pooler = Pooler::start(&other, "transaction", 3).await;
    let pooled = pooler.as_ref().map(|pooler| pooler.database().url);
    for url in [Some(other.url.clone()), pooled].into_iter().flatten() {
        let variables = [("DATABASE_URL", &*url), ("TIDINGS_DIRECT_DATABASE_URL", &one.url)];
        let mut process = ServerProcess::command(&["serve"], &variables);
        process.env("TIDINGS_LISTEN", "127.0.0.1:0");

        let ended = tokio::time::timeout(DEADLINE, process.output()).await;

        let ended = ended.expect("it ends by itself").unwrap();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert_eq!(
            String::from_utf8(ended.stderr).unwrap(),
            "tidings: DATABASE_URL and TIDINGS_DIRECT_DATABASE_URL lead to two different databases: \
             let both name the same one, the first by way of the pooler, or set DATABASE_URL alone\n"
        );
    }
    for database in [one, other] {
        let made = database.value::<bool>("select to_regnamespace('tidings') is not null").await;
        assert!(!made, "{}", database.name);
    }
}

#[tokio::test]
async fn while_either_way_is_closed_the_server_waits() {
    let database = TestDatabase::new().await;
    for closed in [0, 1] {
        let ways = [DatabaseProxy::to(&database).await, DatabaseProxy::to(&database).await];
        ways[closed].take_away();
        let app = TestApp::launch(ways[0].database(), |config| {
            config.direct_database_url = Some(ways[1].database().url);
        })
        .await;
        let history = Request::get(HISTORY).send(app.address).await;
        assert_eq!(history.status, 503, "{}", history.text());
        let ready = Request::get("/readyz").send(app.address).await;
        assert_eq!(ready.json()["reasons"][0], "starting", "{}", ready.text());

        ways[closed].bring_back();

        eventually("it is ready", async || {
            Request::get("/readyz").send(app.address).await.status == 200
        })
        .await;
        assert_eq!(Request::get(HISTORY).send(app.address).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_pointed_elsewhere_under_a_running_server_is_not_read_from() {
    let (database, other) = (TestDatabase::new().await, TestDatabase::new().await);
    let Some(pooler) = Pooler::start(&database, "transaction", 3).await else { return };
    let app = TestApp::on(pooler.database(), |config| {
        config.direct_database_url = Some(database.url.clone());
    })
    .await;
    let sent = app.send("shop/ada", "1").await;
    other.append("shop", "user:ada", &["2"]).await;
    let history = async || {
        let answer = Request::get(format!("{HISTORY}?order=asc")).send(app.address).await;
        match answer.status {
            200 => assert_eq!(answer.json()["notifications"][0]["id"], sent.id),
            _ => assert_eq!(answer.json()["type"], "urn:tidings:problem:database-unreachable"),
        }
        answer.status
    };
    assert_eq!(history().await, 200);

    pooler.lead_to(&other, "transaction", 3);
    eventually("histories are refused", async || history().await == 503).await;
    app.send("shop/ada", "3").await;

    pooler.lead_to(&database, "transaction", 3);
    eventually("histories are read again", async || history().await == 200).await;
}
