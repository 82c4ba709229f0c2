//! Changes of one user wait for each other and for nobody else, and nobody waits for them.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::devices::Device;
use super::{change, counted, post_state, send, to_everyone, to_user};
use crate::harness::{TestApp, eventually};

#[tokio::test]
async fn a_held_lock_of_one_users_state_stalls_no_send_and_no_other_user() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let first = send(&app, to_user("ada", "1")).await;
    change(&app, "ada", json!({"ids": [first], "state": "seen"})).await;
    let mut holder = PgConnection::connect(&app.database.url).await.unwrap();
    let hold = "begin; select * from tidings.known_user where user_name = 'ada' for update;
        select * from tidings.user_state for update; select * from tidings.state_mark for update";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();

    let body = json!({"ids": [first], "state": "read"});
    let (refused, ()) = tokio::join!(post_state(&app, "ada", &body), async {
        eventually("ada's change waits", async || {
            let waits = "select exists (select from pg_locks where not granted and database is null
                or not granted and database = (select oid from pg_database where datname = current_database()))";
            app.database.value(waits).await
        })
        .await;
        let own = send(&app, to_user("ada", "2")).await;
        let for_all = send(&app, to_everyone("3")).await;
        ada.expect([&first, &own, &for_all]).await;
        let bobs = send(&app, to_user("bob", "4")).await;
        assert_eq!(
            change(&app, "bob", json!({"ids": [bobs], "state": "read"})).await["changed"],
            1
        );
        // A second stream of ada's does not wait for the lock either.
        app.subscribe("shop/ada").await.expect_silence().await;
        assert_eq!(counted(&app, "ada", "").await, (3, 2));
    });

    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["type"], "urn:tidings:problem:overloaded");
    assert_eq!(counted(&app, "ada", "").await, (3, 2), "nothing was changed");
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    assert_eq!(change(&app, "ada", body).await["unread"], 2);
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
