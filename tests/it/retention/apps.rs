//! Apps that keep their notifications for a shorter time than all.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::old_days::*;
use super::removal::gap_at_connect;
use crate::harness::{Frame, SseClient, TestDatabase, eventually};

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
async fn a_setting_that_makes_no_sense_is_refused_with_the_rule_it_breaks() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    for (app, retention, rule) in [
        ("shop", "59 minutes", "retention is finite and at least 1 hour"),
        ("shop", "-1 day", "retention is finite and at least 1 hour"),
        ("", "2 days", "app has 1 to 128 characters"),
        (&"x".repeat(129), "2 days", "app has 1 to 128 characters"),
        ("a\u{7}", "2 days", "app has no control characters"),
        ("\u{3000} ", "2 days", "app is not only white space"),
        ("..", "2 days", "app is neither . nor .."),
    ] {
        let insert =
            "insert into tidings.app_setting (app, retention) values ($1, $2::text::interval)";
        let refused = sqlx::query(insert).bind(app).bind(retention).execute(&pool).await;
        let message = refused.unwrap_err().into_database_error().unwrap().message().to_owned();
        assert!(message.ends_with(&format!("constraint \"{rule}\"")), "{message}");
    }
    pool.close().await;
}

#[tokio::test]
async fn a_cursor_below_the_edge_of_its_app_is_told_of_a_gap_and_one_of_another_app_is_not() {
    let database = begun_ago(5).await;
    let expired = append_ago(&database, 4, "shop", "user:ada", 3).await;
    let kept = append_ago(&database, 1, "shop", "user:ada", 2).await;
    let other = append_ago(&database, 4, "shop2", "user:ada", 3).await;
    keep_for(&database, "shop", "2 days").await;

    let app = server(&database, 30).await;
    until_count(&database, 5).await;

    let (mut client, gap) = gap_at_connect(&app, &expired[0]).await;
    let expected = json!({"after": expired[0], "resumes_after": expired[2], "reason": "expired"});
    assert_eq!(gap, expected);
    client.expect(&kept).await;
    client.expect_silence().await;
    let mut client = app.subscribe_after("shop2/ada", &other[0]).await;
    client.next().await;
    assert_eq!(client.next_but_pings().await.id(), other[1]);
    let mut client = app.subscribe_after("shop/ada", &expired[2]).await;
    client.next().await;
    assert_eq!(client.next_but_pings().await.id(), kept[0], "it has all that was deleted");
}

#[tokio::test]
async fn a_deletion_that_overtakes_a_replay_is_a_gap_in_the_middle_of_it() {
    let database = begun_ago(5).await;
    let ids = append_ago(&database, 4, "shop", "user:ada", 1000).await;
    // More than the sockets' buffers hold, so that the replay waits for the client.
    let wide = "update tidings.notification set data = to_json(repeat('x', 60000))";
    database.run(wide).await;
    let kept = append_ago(&database, 1, "shop", "user:ada", 3).await;
    let app = server(&database, 30).await;
    let path = "/api/notifications/subscribe/shop/ada?last_event_id=earliest";
    let mut client = SseClient::connect(app.address, path, None).await;
    client.expect(&ids[..1]).await;
    keep_for(&database, "shop", "2 days").await;

    let _deleter = server(&database, 30).await;
    until_count(&database, 3).await;

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
async fn a_setting_for_an_app_that_cannot_be_is_refused() {
    let database = TestDatabase::new().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let setting = "insert into tidings.app_setting (app, retention) values ($1, '2 hours')";
    let too_long = "a".repeat(129);
    for app in ["", ".", "..", " ", "\u{2003}\u{3000}", "a\nb", "\u{85}", &too_long] {
        let error = sqlx::query(setting).bind(app).execute(&mut conn).await.expect_err(app);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23514", "{app:?}");
    }
    for app in ["shop", " shop", "...", "\u{feff}"] {
        sqlx::query(setting).bind(app).execute(&mut conn).await.expect(app);
    }
}
