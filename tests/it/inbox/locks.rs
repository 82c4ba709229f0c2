//! Changes of one user wait for each other and for nobody else, and nobody waits for them.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::devices::Device;
use super::{change, counted, post_state, send, to_everyone, to_user, withdraw};
use crate::harness::{Lane, TestApp, TestDatabase, eventually};
use crate::problems::expect_problem;

/// Everything that is ada's state, locked by an open transaction.
async fn hold_the_state_of_ada(database: &TestDatabase) -> PgConnection {
    let mut holder = PgConnection::connect(&database.url).await.unwrap();
    let hold = "begin; select * from tidings.known_user where user_name = 'ada' for update;
        select * from tidings.user_state for update; select * from tidings.state_mark for update";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    holder
}

/// As the server calls it, but without the timeout that would let others go on; how much is unread.
async fn read_past_the_server(database: TestDatabase, id: String) -> i64 {
    let mut session = PgConnection::connect(&database.url).await.unwrap();
    let id = uuid::Uuid::from(ulid::Ulid::from_string(&id).unwrap());
    let call = format!(
        "call tidings.change_state('shop', 'ada', array['{id}']::uuid[], null,
            array['user:ada', 'everyone'], 'read', 7, 9000000000000000, null, null, null, null)"
    );
    sqlx::query(AssertSqlSafe(call)).fetch_one(&mut session).await.unwrap().get("unread")
}

/// Waits until so many of them wait for a lock.
async fn changes_wait(app: &TestApp, count: i64) {
    eventually("the changes wait", async || {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
            and datname = current_database() and query like 'call tidings.change_state%'";
        app.database.value::<i64>(waiting).await == count
    })
    .await;
}

#[tokio::test]
async fn two_changes_of_one_user_at_once_count_one_after_the_other() {
    let app = TestApp::start().await;
    let ids = [send(&app, to_user("ada", "1")).await, send(&app, to_user("ada", "2")).await];
    let lane = Lane::hold(&app.database).await;
    let changes = ids.map(|id| tokio::spawn(read_past_the_server(app.database.clone(), id)));
    changes_wait(&app, 2).await;
    lane.give_back().await;
    let mut unread = Vec::new();
    for change in changes {
        unread.push(change.await.unwrap());
    }
    unread.sort_unstable();
    assert_eq!(unread, [0, 1], "the second knows of the first");
}

#[tokio::test]
async fn a_change_that_waits_for_its_users_lock_stalls_no_send_and_nobody_else() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let first = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [first], "state": "seen"})).await;
    let mut holder = hold_the_state_of_ada(&app.database).await;
    let waiting = tokio::spawn(read_past_the_server(app.database.clone(), first.clone()));
    changes_wait(&app, 1).await;

    let own = send(&app, to_user("ada", "2")).await;
    let for_all = send(&app, to_everyone("3")).await;
    ada.expect([&first, &own, &for_all]).await;
    let bobs = send(&app, to_user("bob", "4")).await;
    assert_eq!(change(&app, "bob", json!({"ids": [bobs], "state": "read"})).await["changed"], 1);
    assert_eq!(withdraw(&app, &own).await, 204);
    app.subscribe("shop/ada").await.expect_silence().await;
    assert_eq!(counted(&app, "ada", "").await, (2, 1));

    assert!(!waiting.is_finished());
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 1, "it counts what came meanwhile");
    assert_eq!(counted(&app, "ada", "").await, (1, 1));
    assert_eq!(app.metric("tidings_lane_holders_ended_total").await, 0.0);
}

#[tokio::test]
async fn a_change_that_waits_too_long_is_refused_and_changes_nothing() {
    let app = TestApp::start().await;
    let id = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [id], "state": "seen"})).await;
    let mut holder = hold_the_state_of_ada(&app.database).await;
    let body = json!({"ids": [id], "state": "read"});

    let refused = post_state(&app, "ada", &body).await;

    let detail = "Too many changes are under way. Nothing was changed; try again later.";
    expect_problem("locked", &refused, 503, "overloaded", detail);
    assert_eq!(app.metric("tidings_changes_total{outcome=\"overloaded\"}").await, 1.0);
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    assert_eq!(counted(&app, "ada", "").await, (1, 0));
    assert_eq!(change(&app, "ada", body).await["changed"], 1);
}

#[tokio::test]
async fn changes_at_once_from_two_devices_over_two_instances_end_the_same_everywhere() {
    let app = TestApp::start().await;
    let other = TestApp::on(app.database.clone(), |_| {}).await;
    let instances = [&app, &other];
    let mut devices = Vec::new();
    for instance in instances {
        devices.push(Device::live(instance, "ada", "").await);
    }
    let mut ids = Vec::new();
    for number in 0..6 {
        let data = json!({"to": "user:ada"});
        let body = json!({"to": {"user": "ada"}, "data": data, "event": format!("e{number}")});
        ids.push(send(&app, body).await);
    }
    let states = ["seen", "read", "unread", "archived", "unarchived"];
    for round in 0..10 {
        let changes = (0..12).map(|number| {
            let state = states[(round + number) % 5];
            let body = match number % 3 {
                0 => json!({"up_to": ids[(round + number) % 6], "state": state}),
                _ => json!({"ids": [ids[number % 6], ids[(number + round) % 6]], "state": state}),
            };
            async move { change(instances[number % 2], "ada", body).await }
        });
        let answers = join_all(changes).await;
        // Whichever came last has counted what all of them made of it.
        let last = answers.iter().max_by_key(|answer| answer["cursor"].as_str().unwrap()).unwrap();
        assert!(last["unread"].as_u64().unwrap() >= last["unseen"].as_u64().unwrap());
    }
    for device in &mut devices {
        device.catch_up(&app).await;
        device.expect_as_listed(&other).await;
    }
}
