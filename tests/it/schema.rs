//! The schema: made and unmade without a trace, by one server at a time; partitions that never stop an
//! append; and CHECKs that hold against plain SQL.

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidings::config::Config;

use crate::harness::{TestApp, TestDatabase, eventually};

static MIGRATOR: Migrator = sqlx::migrate!();

/// How many migrations there are.
fn ours() -> usize {
    MIGRATOR.iter().filter(|m| m.migration_type.is_up_migration()).count()
}

/// Everything that the database contains beside what Postgres brings and sqlx's own table.
async fn catalog(database: &TestDatabase) -> String {
    let sql = "with ours as (select oid from pg_namespace where nspname in ('tidings', 'public'))
        select coalesce(string_agg(thing, E'\\n' order by thing), '') from (
            select 'relation ' || relname from pg_class
                where relnamespace in (select oid from ours) and relname not like '\\_sqlx\\_migrations%'
            union all select 'routine ' || proname from pg_proc where pronamespace in (select oid from ours)
            union all select 'type ' || typname from pg_type
                where typnamespace in (select oid from ours) and typname not like '%\\_sqlx\\_migrations'
            union all select 'schema ' || nspname from pg_namespace
                where nspname !~ '^(pg_|information_schema|public|tidings)'
        ) as things (thing)";
    database.value(sql).await
}

/// Name and bounds of each partition, in order.
async fn partitions(database: &TestDatabase) -> Vec<(String, String, String)> {
    let pool = database.pool().await;
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "select c.relname::text, bound[1], bound[2]
        from pg_inherits i join pg_class c on c.oid = i.inhrelid,
            regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\((.*)\\) TO \\((.*)\\)') as bound
        where i.inhparent = 'tidings.notification'::regclass
        order by (bound[1] = 'MINVALUE') desc, bound[1]",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.close().await;
    rows
}

/// They cover everything: each begins where the one before ends.
fn expect_no_hole(partitions: &[(String, String, String)]) {
    assert_eq!(partitions.first().unwrap().1, "MINVALUE", "{partitions:?}");
    assert_eq!(partitions.last().unwrap().2, "MAXVALUE", "{partitions:?}");
    assert_eq!(partitions.last().unwrap().0, "notification_open");
    for pair in partitions.windows(2) {
        assert_eq!(pair[0].2, pair[1].1, "{partitions:?}");
    }
}

/// Runs one server to its end; what it says.
async fn refusal(database: &TestDatabase, change: impl FnOnce(&mut Config)) -> String {
    let app = TestApp::launch(database.clone(), change).await;
    let ended = tokio::time::timeout(crate::harness::DEADLINE, app.ended).await;
    ended.expect("an end in time").unwrap().expect_err("it cannot run here").to_string()
}

#[tokio::test]
async fn the_migrations_go_up_and_down_and_leave_nothing_behind() {
    let database = TestDatabase::empty().await;
    let pool = database.pool().await;
    let before = catalog(&database).await;
    assert_eq!(before, "");
    MIGRATOR.run(&pool).await.unwrap();
    let up = catalog(&database).await;
    assert!(up.contains("relation notification\n") && up.contains("routine append\n"), "{up}");

    MIGRATOR.undo(&pool, 0).await.unwrap();
    assert_eq!(catalog(&database).await, before);

    MIGRATOR.run(&pool).await.unwrap();
    assert_eq!(catalog(&database).await, up);
    pool.close().await;
    let app = TestApp::on(database, |_| {}).await;
    app.send("shop/ada", "1").await;
}

#[tokio::test]
async fn two_servers_that_start_at_once_on_an_empty_database_migrate_it_once() {
    let database = TestDatabase::empty().await;
    let (one, two) =
        tokio::join!(TestApp::on(database.clone(), |_| {}), TestApp::on(database.clone(), |_| {}));
    let applied = "select count(*) from tidings._sqlx_migrations where success";
    assert_eq!(database.value::<i64>(applied).await, ours() as i64);
    let mut client = one.subscribe("shop/ada").await;
    let sent = two.send("shop/ada", "1").await;
    client.expect([sent]).await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let database = TestDatabase::new().await;
    let newer = "insert into tidings._sqlx_migrations (version, description, success, checksum, execution_time)
        values (20991231000000, 'of the future', true, '', 0)";
    database.run(newer).await;
    for migrate in [true, false] {
        assert_eq!(
            refusal(&database, |config| config.migrate = migrate).await,
            "the database has migration 20991231000000, which this version of tidings does not know: \
             start the version that made it, or a newer one"
        );
    }
}

#[tokio::test]
async fn a_server_that_may_not_migrate_refuses_an_empty_database_and_leaves_it_empty() {
    let database = TestDatabase::empty().await;
    assert_eq!(
        refusal(&database, |config| config.migrate = false).await,
        format!(
            "the database lacks {} migration(s) and TIDINGS_MIGRATE is off: run `tidings migrate` first",
            ours()
        )
    );
    let schema = "select count(*) from pg_namespace where nspname = 'tidings'";
    assert_eq!(database.value::<i64>(schema).await, 0);
}

#[tokio::test]
async fn a_start_makes_partitions_for_a_week_ahead_and_an_open_one() {
    let database = TestDatabase::empty().await;
    let _app = TestApp::on(database.clone(), |_| {}).await;
    eventually("partitions are made", async || partitions(&database).await.len() > 1).await;
    let made = partitions(&database).await;
    expect_no_hole(&made);
    assert_eq!(made.len(), 9, "up to today, seven days, and the open one: {made:?}");
    let ahead = "select tidings.utc_day_of(substring(pg_get_expr(relpartbound, oid) from '[0-9a-f-]{36}')::uuid)
            - (clock_timestamp() at time zone 'UTC')::date
        from pg_class where oid = 'tidings.notification_open'::regclass";
    // 7 should midnight have passed meanwhile.
    assert!((7..=8).contains(&database.value::<i32>(ahead).await));
}

#[tokio::test]
async fn extending_twice_adds_nothing_the_second_time() {
    let database = TestDatabase::new().await;
    let extend = "select tidings.extend_partitions(20)";
    assert!(database.value::<i32>(extend).await >= 12);
    let made = partitions(&database).await;
    expect_no_hole(&made);
    assert_eq!(database.value::<i32>(extend).await, 0);
    assert_eq!(partitions(&database).await, made);
}

#[tokio::test]
async fn rows_in_the_open_partition_end_up_below_its_new_bound() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let seen = app.send("shop/ada", "\"seen\"").await;
    // As after two weeks in which partitions could not be made.
    let ahead = "select setval('tidings.position',
        (extract(epoch from clock_timestamp() + interval '15 days') * 1000)::bigint << 15)";
    database.value::<i64>(ahead).await;
    let open = app.send_many("shop/ada", 3).await;
    let in_open = "select count(*) from tidings.notification_open";
    assert_eq!(database.value::<i64>(in_open).await, 3);

    assert!(database.value::<i32>("select tidings.extend_partitions(3)").await > 0);

    assert_eq!(database.value::<i64>(in_open).await, 0);
    expect_no_hole(&partitions(&database).await);
    let mut client = app.subscribe_after("shop/ada", &seen).await;
    client.expect(&open).await;
    let next = app.send("shop/ada", "\"next\"").await;
    client.expect([next]).await;
    assert_eq!(database.count().await, 5);
}

#[tokio::test]
async fn appends_go_on_while_partitions_are_made() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("shop/ada").await;
    let (sent, ()) = tokio::join!(app.send_many("shop/ada", 200), async {
        for days in 8..28 {
            let extend = format!("select tidings.extend_partitions({days})");
            assert_eq!(app.database.value::<i32>(&extend).await, 1, "{days}");
        }
    });
    client.expect(&sent).await;
    client.expect_silence().await;
    assert_eq!(app.metric("tidings_outcomes_settled_total").await, 0.0, "none broke off");
}

/// Stores a row as an administrator would; whether the table takes it.
async fn takes(conn: &mut PgConnection, columns: [&str; 4]) -> bool {
    let [app, audience, event, data] = columns;
    let insert = "insert into tidings.notification (id, app, audience, event, data, created_at)
        values (gen_random_uuid(), $1, $2, nullif($3, '-'), $4::json, now())";
    let insert = sqlx::query(AssertSqlSafe(insert)).bind(app).bind(audience).bind(event).bind(data);
    match insert.execute(conn).await {
        Ok(_) => true,
        Err(error) => {
            let error = error.into_database_error().expect("an answer");
            assert_eq!(error.code().unwrap(), "23514", "{columns:?}: {error}");
            false
        }
    }
}

#[tokio::test]
async fn the_table_refuses_data_that_would_break_a_stream_or_a_strict_parser() {
    let database = TestDatabase::new().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    for data in [
        "{\n}",
        "[1,\r2]",
        "\r\n1",
        r#""\u0000""#,
        r#"{"\u0000":1}"#,
        r#""\\\u0000""#,
        r#""\ud800""#,
        r#""\uDFFF""#,
        r#""\udc00\ud800""#,
        r#""\ud83dx\ude00""#,
        r#""\ud83d\\ude00""#,
        r#""\ud83d\ude00\ud83d""#,
        r#""\ud83d\ud83d\ude00""#,
    ] {
        assert!(!takes(&mut conn, ["shop", "user:ada", "-", data]).await, "{data:?}");
    }
    for data in [
        "1",
        " [ 1 ]\t",
        r#""\\u0000""#,
        r#""\\\\u0000 \\ud800""#,
        r#""\ud83d\ude00""#,
        r#""\uD83D\uDE00\uD83D\uDE00""#,
        r#""\u0001 \\\ud83d\ude00""#,
        "\"\u{2028}\u{85}\"",
        r#""\ue000\ud7ff""#,
    ] {
        assert!(takes(&mut conn, ["shop", "user:ada", "-", data]).await, "{data:?}");
    }
}

#[tokio::test]
async fn the_table_refuses_event_names_apps_and_audiences_that_break_the_contract() {
    let database = TestDatabase::new().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    for event in [
        "",
        "a b",
        "a\nid: 1",
        "ä",
        "open",
        "error",
        "message",
        "tidings.",
        "tidings.live",
        &too_long,
    ] {
        assert!(!takes(&mut conn, ["shop", "user:ada", event, "1"]).await, "{event:?}");
    }
    for event in ["a", "A-b_c.d:9", "Open", "tidings", "my.tidings.", &longest] {
        assert!(takes(&mut conn, ["shop", "user:ada", event, "1"]).await, "{event:?}");
    }
    let too_long = "x".repeat(129);
    for app in ["", "a\nb", "a\u{85}", &too_long] {
        assert!(!takes(&mut conn, [app, "user:ada", "-", "1"]).await, "{app:?}");
    }
    let long_user = format!("user:{too_long}");
    for audience in
        ["", "ada", "user:", "topic:", "Everyone", "everyone:", "user:a\r", "group:ada", &long_user]
    {
        assert!(!takes(&mut conn, ["shop", audience, "-", "1"]).await, "{audience:?}");
    }
    for audience in ["everyone", "user:a", "topic:t", "user:user:a"] {
        assert!(takes(&mut conn, ["shop", audience, "-", "1"]).await, "{audience:?}");
    }
}
