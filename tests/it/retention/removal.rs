//! The removal itself, as a server does it.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::old_days::*;
use crate::harness::{Frame, SseClient, TestApp, TestDatabase, eventually};

const EARLIEST: &str = "/api/notifications/subscribe/shop/ada?last_event_id=earliest";

/// The first frames are ready and a gap; what the gap says.
pub async fn gap_at_connect(app: &TestApp, cursor: &str) -> (SseClient, serde_json::Value) {
    let mut client = app.subscribe_after("shop/ada", cursor).await;
    assert_eq!(client.next().await.id(), cursor, "ready");
    let gap = client.next_but_pings().await;
    assert!(gap.is("tidings.gap"), "{gap:?}");
    (client, gap.json())
}

pub async fn gone(database: &TestDatabase, days: i32) {
    eventually("the partition is removed", async || tables_of(database, days).await == 0).await;
}

#[tokio::test]
async fn what_is_older_goes_and_a_cursor_from_before_is_told_of_it() {
    let database = begun_ago(5).await;
    let old = append_ago(&database, 4, "shop", "user:ada", 3).await;
    let older_edge = append_ago(&database, 3, "shop", "user:bob", 2).await;
    let kept = append_ago(&database, 1, "shop", "user:ada", 3).await;

    let app = server(&database, 2).await;
    gone(&database, 3).await;

    assert_eq!(tables_of(&database, 4).await, 0);
    assert_eq!(tables_of(&database, 2).await, 1, "its last row may be younger than two days");
    assert_eq!(database.ids("shop", "user:ada").await, kept);
    let edge = edge(&database).await;
    assert_eq!(edge, older_edge[1], "the newest row that was removed");
    let (mut client, gap) = gap_at_connect(&app, &old[0]).await;
    assert_eq!(gap, json!({"after": old[0], "resumes_after": edge, "reason": "expired"}));
    client.expect(&kept).await;
    client.expect_silence().await;
    eventually("it is counted", async || {
        app.metric("tidings_partitions_removed_total").await == 4.0
    })
    .await;
    let oldest = app.metric("tidings_oldest_notification_timestamp_seconds").await;
    let first_kept = ulid::Ulid::from_string(&kept[0]).unwrap().timestamp_ms() / 1000;
    assert_eq!(oldest, first_kept as f64);
    assert_eq!(app.metric("tidings_partitions_overdue").await, 0.0);
}

#[tokio::test]
async fn a_client_that_has_all_that_was_removed_is_told_of_no_gap() {
    let database = begun_ago(5).await;
    let old = append_ago(&database, 4, "shop", "user:ada", 3).await;
    let app = server(&database, 30).await;
    let mut live = app.subscribe("shop/ada").await;

    let remover = server(&database, 2).await;
    gone(&database, 3).await;

    let next = remover.send("shop/ada", "1").await;
    assert_eq!(live.next_but_pings().await.id(), next.id, "no gap");
    let mut back = app.subscribe_after("shop/ada", &old[2]).await;
    back.next().await;
    assert_eq!(back.next_but_pings().await.id(), next.id, "no gap");
}

#[tokio::test]
async fn a_removal_that_overtakes_a_replay_is_a_gap_in_the_middle_of_it() {
    let database = begun_ago(5).await;
    // More than the sockets' buffers hold, so that the replay waits for the client.
    let ids = append_ago(&database, 4, "shop", "user:ada", 1000).await;
    let wide = "update tidings.notification set data = to_json(repeat('x', 60000))";
    database.run(wide).await;
    let kept = append_ago(&database, 1, "shop", "user:ada", 3).await;
    let app = server(&database, 30).await;
    let mut client = SseClient::connect(app.address, EARLIEST, None).await;
    client.expect(&ids[..1]).await;

    let _remover = server(&database, 2).await;
    gone(&database, 3).await;

    let (before, gap) = client.until("tidings.gap").await;
    assert!(before.iter().map(Frame::id).eq(ids[1..=before.len()].iter()), "no hole before it");
    let expected = json!({
        "after": ids[before.len()], "resumes_after": ids[999], "reason": "expired"
    });
    assert_eq!(gap.json(), expected);
    client.expect(&kept).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn after_a_quiet_time_everything_can_go_and_sends_go_on() {
    let database = begun_ago(9).await;
    let old = append_ago(&database, 8, "shop", "user:ada", 3).await;

    let app = server(&database, 2).await;
    gone(&database, 3).await;

    assert_eq!(database.count().await, 0);
    // An instance whose clock and database are behind, at a time whose partition is gone.
    let issued: i64 = database.value("select last_value from tidings.position").await;
    let bound = "select max(tidings.position(from_id)) from tidings.partitions
        where from_id <= tidings.first_id_of((clock_timestamp() at time zone 'UTC')::date - 2)";
    assert_eq!(issued, database.value::<i64>(bound).await, "no id can fall below");
    let mut client = app.subscribe_after("shop/ada", &old[2]).await;
    let sent = app.send("shop/ada", "1").await;
    client.expect([sent]).await;
}

#[tokio::test]
async fn a_clock_that_is_ahead_removes_nothing_that_is_young() {
    let database = begun_ago(5).await;
    append_ago(&database, 1, "shop", "user:ada", 3).await;
    let ahead = tidings::clock::Clock::wrong_by(chrono::TimeDelta::days(365));

    let app = TestApp::on(database.clone(), |config| {
        config.retention = DAY * 2;
        config.limits.clock = ahead;
    })
    .await;
    gone(&database, 3).await;
    let over = "select pg_try_advisory_lock(7463, 2)";
    eventually("all is done", async || database.value::<bool>(over).await).await;
    app.stop().await.unwrap();

    assert_eq!(database.count().await, 3);
    assert_eq!(tables_of(&database, 2).await, 1);
}

#[tokio::test]
async fn of_two_instances_one_removes() {
    let database = begun_ago(20).await;
    append_ago(&database, 9, "shop", "user:ada", 1).await;
    let instance = || server(&database, 5);
    let (one, two) = tokio::join!(instance(), instance());
    gone(&database, 6).await;

    let removed = async |app: &TestApp| app.metric("tidings_partitions_removed_total").await;
    // The one before the first day, and days 20 to 6.
    eventually("all are counted", async || removed(&one).await + removed(&two).await == 16.0).await;
    assert_eq!(removed(&one).await * removed(&two).await, 0.0, "by one of them alone");
}

#[tokio::test]
async fn sends_during_a_removal_lose_nothing() {
    let database = begun_ago(40).await;
    append_ago(&database, 39, "shop", "user:ada", 1).await;
    let app = server(&database, 365).await;
    let mut client = app.subscribe("shop/ada").await;

    let (sent, _remover) = tokio::join!(app.send_many("shop/ada", 300), async {
        let remover = server(&database, 2).await;
        gone(&database, 3).await;
        remover
    });

    client.expect(&sent).await;
    client.expect_silence().await;
    assert_eq!(app.metric("tidings_outcomes_settled_total").await, 0.0, "none broke off");
}

#[tokio::test]
async fn a_dump_makes_the_removal_wait_and_neither_sends_nor_reads() {
    let database = begun_ago(4).await;
    // In the first partition.
    let old = append_ago(&database, 5, "shop", "user:ada", 3).await;
    let kept = append_ago(&database, 1, "shop", "user:ada", 1).await;
    // What pg_dump does first: one snapshot, and a lock on every table.
    let mut dump = PgConnection::connect(&database.url).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from tidings.notification";
    sqlx::raw_sql(begin).execute(&mut dump).await.unwrap();
    let app = server(&database, 2).await;
    let overdue = async || app.metric("tidings_partitions_overdue").await;

    eventually("the removal has begun and waits", async || overdue().await == 3.0).await;

    let state = "select state from tidings.partitions where state <> 'kept'";
    assert_eq!(database.value::<String>(state).await, "detaching");
    let sent = app.send("shop/ada", "1").await;
    let (mut client, gap) = gap_at_connect(&app, &old[0]).await;
    assert_eq!(gap, json!({"after": old[0], "resumes_after": old[2], "reason": "expired"}));
    client.expect(&kept).await;
    client.expect([&sent]).await;
    let count = "select count(*) from tidings.notification";
    let seen: i64 = sqlx::query_scalar(count).fetch_one(&mut dump).await.unwrap();
    assert_eq!(seen, 4, "the dump sees what it saw");
    dump.close().await.unwrap();

    // This one comes back to it ever more seldom.
    let _next = server(&database, 2).await;
    gone(&database, 3).await;
    let leaving = "select count(*) from tidings.partitions where state <> 'kept'";
    eventually("nothing is left over", async || database.value::<i64>(leaving).await == 0).await;
}

#[tokio::test]
async fn the_default_isolation_hides_no_row_from_the_removal() {
    let database = begun_ago(5).await;
    append_ago(&database, 3, "shop", "user:ada", 1).await;
    database
        .run(&format!(
            "alter database {name} set default_transaction_isolation = 'serializable';
            create table public.seen (setting text);
            create function see() returns trigger language plpgsql as
                $$ begin insert into public.seen values (current_setting('transaction_isolation')); return null; end $$;
            create trigger see after insert on tidings.leaving_partition for each row execute function see()",
            name = database.name
        ))
        .await;

    let _app = server(&database, 2).await;
    gone(&database, 3).await;

    // Its snapshot has to be younger than the lane, which it waits for.
    let seen = "select string_agg(distinct setting, ' ') from public.seen";
    assert_eq!(database.value::<String>(seen).await, "read committed");
}
