//! Apps that keep their notifications for a shorter time than all.

use super::old_days::*;
use crate::harness::{TestDatabase, eventually};

async fn keep_for(database: &TestDatabase, app: &str, retention: &str) {
    database
        .run(&format!(
            "insert into tidings.app_setting (app, retention) values ('{app}', '{retention}')"
        ))
        .await;
}

async fn until_count(database: &TestDatabase, count: i64) {
    eventually("the rows are deleted", async || database.count().await == count).await;
}

#[tokio::test]
async fn an_app_keeps_its_own_for_less_and_no_other_app_loses_a_row() {
    let database = begun_ago(5).await;
    let mut expired = Vec::new();
    for days in [4, 3] {
        for audience in ["user:ada", "everyone"] {
            expired.extend(append_ago(&database, days, "shop", audience, 700).await);
        }
        append_ago(&database, days, "shop2", "user:ada", 10).await;
    }
    let kept = append_ago(&database, 1, "shop", "user:ada", 5).await;
    let other = database.ids("shop2", "user:ada").await;
    keep_for(&database, "shop", "2 days").await;

    let app = server(&database, 30).await;
    until_count(&database, 25).await;

    assert_eq!(database.ids("shop", "user:ada").await, kept);
    assert_eq!(database.ids("shop2", "user:ada").await, other);
    let edge: String =
        database.value("select tidings.ulid(edge) from tidings.app_edge where app = 'shop'").await;
    assert_eq!(Some(&edge), expired.iter().max(), "the newest that was deleted");
    eventually("they are counted", async || {
        app.metric("tidings_app_retention_rows_deleted_total").await == 2800.0
    })
    .await;
    assert_eq!(app.metric("tidings_partitions_removed_total").await, 0.0);
}

#[tokio::test]
async fn the_edge_of_an_app_is_committed_before_its_rows_go() {
    let database = begun_ago(5).await;
    let expired = append_ago(&database, 4, "shop", "user:ada", 3).await;
    keep_for(&database, "shop", "2 days").await;
    let store = store(&database);
    let apps = store.app_retentions(keep(30)).await.unwrap();
    let mut maintenance = store.maintenance().await.unwrap().unwrap();
    let ranges = maintenance.expired_ranges(&apps[0], keep(30)).await.unwrap();
    let mut edges = Vec::new();
    for range in ranges {
        edges.extend(maintenance.move_app_edge(&apps[0], range).await.unwrap());
    }
    drop(maintenance);

    assert_eq!(edges.iter().map(ToString::to_string).collect::<Vec<_>>(), expired[2..]);
    let committed = "select tidings.ulid(edge) from tidings.app_edge";
    assert_eq!(database.value::<String>(committed).await, expired[2]);
    assert_eq!(database.count().await, 3);
    // And the next run deletes them.
    let _app = server(&database, 30).await;
    until_count(&database, 0).await;
}

#[tokio::test]
async fn a_longer_retention_than_that_of_all_changes_nothing() {
    let database = begun_ago(5).await;
    append_ago(&database, 4, "shop", "user:ada", 3).await;
    keep_for(&database, "shop", "1 year").await;

    let _app = server(&database, 2).await;

    until_count(&database, 0).await;
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_is_refused_by_the_table() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    for (app, retention) in
        [("shop", "59 minutes"), ("shop", "-1 day"), ("", "2 days"), ("a\u{7}", "2 days")]
    {
        let insert =
            "insert into tidings.app_setting (app, retention) values ($1, $2::text::interval)";
        let refused = sqlx::query(insert).bind(app).bind(retention).execute(&pool).await;
        let code = refused.unwrap_err().into_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "23514", "{app:?} {retention}");
    }
    pool.close().await;
}

#[tokio::test]
async fn what_refers_to_removed_rows_goes_with_them() {
    let database = begun_ago(5).await;
    for (days, app) in [(4, "all"), (2, "shop"), (2, "all")] {
        append_ago(&database, days, app, "user:ada", 3).await;
    }
    keep_for(&database, "shop", "1 day").await;
    let refer = "insert into tidings.gone (id) select id from tidings.notification;
        insert into tidings.replaceable (app, audience, key, id)
            select app, audience, 'key', id from tidings.notification";
    database.run(refer).await;

    let _app = server(&database, 3).await;

    let mut left = "select count(*) from tidings.gone".to_owned();
    eventually("withdrawals of removed rows go", async || database.value::<i64>(&left).await == 3)
        .await;
    left = "select count(*) from tidings.replaceable where app = 'all'".to_owned();
    eventually("and their keys", async || database.value::<i64>(&left).await == 3).await;
    left = "select count(*) from tidings.replaceable".to_owned();
    eventually("those of the app too", async || database.value::<i64>(&left).await == 3).await;
    let kept = "select count(*) from tidings.gone g join tidings.notification n using (id)
        join tidings.replaceable r using (id)";
    assert_eq!(database.value::<i64>(kept).await, 3, "and those of what is kept stay");
}
