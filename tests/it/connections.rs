//! What the server's connections to its database are called there, and what they leave to nobody's
//! defaults.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tidings::address::App;
use tidings::clock::Clock;
use tidings::event_id::EventId;
use tidings::store::{Keep, SchemaError, Store, StoreError};
use tokio::time::timeout;

use crate::harness::{API, DEADLINE, Request, TestApp, TestDatabase, eventually};

/// Holds a lock on a table until it is dropped.
async fn hold(database: &TestDatabase, table: &'static str) -> PgConnection {
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let lock = format!("begin; lock table {table} in access exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut conn).await.unwrap();
    conn
}

async fn use_all_connections(app: &TestApp) {
    let sent = app.send("shop/ada", "1").await;
    let state = format!(r#"{{"ids":["{}"],"state":"read"}}"#, sent.id);
    for request in [
        Request::json(format!("{API}/state/shop/ada"), &state),
        Request::get(format!("{API}/counts/shop/ada")),
        Request::get(format!("{API}/history/shop/ada")),
    ] {
        let answer = request.send(app.address).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    app.subscribe_after("shop/ada", "earliest").await.next().await;
}

#[tokio::test]
async fn the_database_can_tell_the_connections_apart() {
    for (parameter, name) in [("", "tidings"), ("&application_name=shop", "shop")] {
        let mut database = TestDatabase::new().await;
        let looking = database.clone();
        database.url.push_str(parameter);
        let app = TestApp::on(database, |_| {}).await;
        use_all_connections(&app).await;

        let names = "select string_agg(distinct application_name, ', ' order by application_name)
            from pg_stat_activity where datname = current_database() and application_name <> ''";
        let expected = ["changes", "drainer", "listener", "requests", "streams", "writer"];
        let expected = expected.map(|part| format!("{name} {part}")).join(", ");
        // Those of the start and of maintenance come and go.
        eventually(&expected, async || looking.value::<String>(names).await == expected).await;
    }
}

#[tokio::test]
async fn a_read_that_was_given_up_ends_in_the_database_too() {
    let database = TestDatabase::new().await;
    let mut lock = hold(&database, "tidings.notification").await;
    let store = Store::new(&database.url, None).unwrap();
    let app: App = "shop".try_into().unwrap();

    let reads = async { tokio::join!(store.head(), store.notification(&app, EventId::ZERO)) };
    let (one, other) = timeout(DEADLINE, reads).await.expect("a deadline");

    assert!(one.is_err() && other.is_err(), "{one:?} {other:?}");
    eventually("nobody waits for the lock", async || {
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut lock).await.unwrap();
        waiting == 0
    })
    .await;
    lock.close().await.unwrap();
}

#[tokio::test]
async fn looking_at_the_migrations_has_a_deadline() {
    let database = TestDatabase::new().await;
    let lock = hold(&database, "tidings._sqlx_migrations").await;
    let store = Store::new(&database.url, None).unwrap();

    let looked = timeout(DEADLINE, store.check_migrated()).await.expect("a deadline");

    let error = looked.unwrap_err();
    assert!(matches!(error, SchemaError::Store(StoreError::Deadline(_))), "{error}");
    lock.close().await.unwrap();
}

#[tokio::test]
async fn a_migration_takes_its_time_whatever_the_database_has_by_default() {
    let database = TestDatabase::empty().await;
    let mut looking = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("select pg_advisory_lock(7463, 3)").execute(&mut looking).await.unwrap();
    database.run(&format!("alter database {} set statement_timeout = '1s'", database.name)).await;
    let store = Store::new(&database.url, None).unwrap();
    let migrating = tokio::spawn(async move { store.migrate().await });

    eventually("it has waited for longer than a second", async || {
        let waits = "select exists (select from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
                and query_start < clock_timestamp() - interval '1.2 seconds')";
        migrating.is_finished() || sqlx::query_scalar(waits).fetch_one(&mut looking).await.unwrap()
    })
    .await;
    looking.close().await.unwrap();

    let migrated = timeout(DEADLINE, migrating).await.expect("an end in time").unwrap();
    assert!(migrated.unwrap() > 0);
}

#[tokio::test]
async fn functions_of_others_are_not_taken_for_those_of_postgres() {
    let database = TestDatabase::new().await;
    // They fit better than Postgres' own, which take arrays of anything.
    for (name, returns) in [("unnest", "setof text"), ("cardinality", "integer")] {
        database
            .run(&format!(
                "create function public.{name}(text[]) returns {returns} language plpgsql
                as $$ begin raise 'not the right one'; end $$"
            ))
            .await;
    }
    let position = "create function public.array_position(text[], text) returns integer
        language plpgsql as $$ begin raise 'not the right one'; end $$";
    database.run(position).await;
    let direct = database.url.clone();
    for direct_database_url in [None, Some(direct)] {
        let app = TestApp::on(database.clone(), |config| {
            config.direct_database_url = direct_database_url;
        })
        .await;
        use_all_connections(&app).await;
    }
    let store = Store::new(&database.url, None).unwrap();
    let now = Clock::default().now();
    let keep = Keep { retention: Duration::from_secs(86400), now };
    assert_eq!(store.overdue_partitions(keep).await.unwrap(), []);
}
