//! What refers to rows that are removed: nobody's state changes by it, and nothing is left behind.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::old_days::*;
use super::removal::gone;
use crate::harness::{TestApp, TestDatabase, eventually};

async fn left(database: &TestDatabase, table: &str) -> i64 {
    database.value(&format!("select count(*) from tidings.{table}")).await
}

async fn counts(app: &TestApp) -> Value {
    let answer = app.get("/api/notifications/counts/shop/ada").await.unwrap();
    let mut counts: Value = answer.json().await.unwrap();
    counts.as_object_mut().unwrap().remove("cursor");
    counts
}

#[tokio::test]
async fn what_refers_to_removed_rows_goes_with_them_and_the_rest_stays() {
    let database = begun_ago(5).await;
    append_ago(&database, 4, "shop", "user:ada", 3).await;
    append_ago(&database, 1, "shop", "user:ada", 2).await;
    let refer = "insert into tidings.gone (id) select id from tidings.notification;
        insert into tidings.replaceable (app, audience, key, id)
            select app, audience, 'key', id from tidings.notification;
        insert into tidings.user_state (app, user_name, audience, id, read)
            select app, 'ada', audience, id, true from tidings.notification;
        insert into tidings.app_edge (app, edge) select 'old', min(id::text)::uuid from tidings.notification;
        insert into tidings.app_edge (app, edge) select 'young', max(id::text)::uuid from tidings.notification";
    database.run(refer).await;
    // As a change of state that is under way.
    let mut changing = PgConnection::connect(&database.url).await.unwrap();
    let lock = "begin; select from tidings.user_state order by id limit 1 for update";
    sqlx::raw_sql(lock).execute(&mut changing).await.unwrap();

    let _app = server(&database, 2).await;

    eventually("edges go last", async || left(&database, "app_edge").await == 1).await;
    for (table, rows) in [("gone", 2), ("replaceable", 2), ("user_state", 3)] {
        assert_eq!(left(&database, table).await, rows, "{table}");
    }
    let all_kept = "select count(*) from tidings.notification n join tidings.gone g using (id)
        join tidings.replaceable r using (id) join tidings.user_state s using (id)";
    assert_eq!(database.value::<i64>(all_kept).await, 2);
    changing.close().await.unwrap();
    // What was being changed goes the next time.
    let _next = server(&database, 2).await;
    eventually("it is gone", async || left(&database, "user_state").await == 2).await;
}

#[tokio::test]
async fn what_is_unread_stays_unread_when_the_first_row_of_a_user_goes() {
    for by_app in [false, true] {
        let database = begun_ago(6).await;
        append_ago(&database, 4, "shop", "user:ada", 1).await;
        append_ago(&database, 1, "shop", "everyone", 3).await;
        let app = server(&database, 30).await;
        // By the row of four days ago ada was known before that for everyone.
        assert_eq!(counts(&app).await, json!({"unread": 4, "unseen": 4}), "by app: {by_app}");

        if by_app {
            let setting =
                "insert into tidings.app_setting (app, retention) values ('shop', '2 days')";
            database.run(setting).await;
            let _deleter = server(&database, 30).await;
            eventually("it is deleted", async || database.count().await == 3).await;
        } else {
            let _remover = server(&database, 2).await;
            gone(&database, 3).await;
        }

        assert_eq!(counts(&app).await, json!({"unread": 3, "unseen": 3}), "by app: {by_app}");
    }
}

#[tokio::test]
async fn more_users_than_one_batch_has_are_all_known_by_their_first_row() {
    let database = begun_ago(5).await;
    let first = append_ago(&database, 4, "shop", "user:u", 2500).await;
    let spread = "update tidings.notification n set audience = 'user:u' || r.number % 1250
        from (select id, row_number() over (order by id) - 1 as number from tidings.notification) r
        where r.id = n.id";
    database.run(spread).await;

    let _app = server(&database, 2).await;
    gone(&database, 3).await;

    assert_eq!(left(&database, "known_user").await, 1250);
    let since: Vec<String> = {
        let pool = database.pool().await;
        let since = "select tidings.ulid(since) from tidings.known_user order by since";
        let rows = sqlx::query_scalar(since).fetch_all(&pool).await.unwrap();
        pool.close().await;
        rows
    };
    assert_eq!(since, first[..1250]);
}

#[tokio::test]
async fn a_withdrawn_row_stays_withdrawn_while_its_partition_cannot_be_taken_out() {
    let database = begun_ago(4).await;
    // In the first partition.
    append_ago(&database, 5, "shop", "user:ada", 2).await;
    let withdraw = "insert into tidings.gone (id) select id from tidings.notification limit 1";
    database.run(withdraw).await;
    // As a long VACUUM or ANALYZE of the feed.
    let mut vacuum = PgConnection::connect(&database.url).await.unwrap();
    let lock = "begin; lock table tidings.notification in share update exclusive mode";
    sqlx::raw_sql(lock).execute(&mut vacuum).await.unwrap();

    let app = server(&database, 2).await;
    let overdue = async || app.metric("tidings_partitions_overdue").await;
    eventually("the removal has begun and waits", async || overdue().await == 3.0).await;

    let state = "select state from tidings.partitions where state <> 'kept'";
    assert_eq!(database.value::<String>(state).await, "leaving");
    let history = app.get("/api/notifications/history/shop/ada").await.unwrap();
    let history: Value = history.json().await.unwrap();
    assert_eq!(history["notifications"].as_array().unwrap().len(), 1, "{history}");
    vacuum.close().await.unwrap();
}
