//! Invariant 3: exactly the matching rows after the cursor, in id order.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::harness::{Proxy, TestApp, TestDatabase};

const BEFORE_ALL: &str = "00000000000000000000000000";
/// Pages of 8 KiB that ten missed rows may cost.
const MOST_BUFFERS: i64 = 200;
/// And with a cursor from a month ago: down the index in each of 38 partitions, for the user and for
/// everyone, and the rows.
const MOST_BUFFERS_OF_A_MONTH: i64 = 38 * 2 * 4;

#[tokio::test]
async fn a_reconnecting_client_gets_exactly_what_it_missed() {
    let app = TestApp::start().await;
    let seen = app.send("shop/ada", "\"one\"").await;
    let missed = app.send_many("shop/ada", 3).await;
    app.send("shop/bob", "\"not for ada\"").await;
    app.send("shop2/ada", "\"not for this ada\"").await;

    let mut client = app.subscribe_after("shop/ada", &seen).await;

    client.expect(&missed).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_handover_that_is_held_and_cut_loses_and_doubles_nothing() {
    let app = TestApp::start().await;
    let seen = app.send("shop/ada", "0").await;
    let missed = app.send_many("shop/ada", 5).await;
    let proxy = Proxy::hold_before(app.address, "event: tidings.live").await;
    let path = "/api/notifications/subscribe/shop/ada";
    let mut held = crate::harness::SseClient::connect(proxy.address, path, Some(&seen.id)).await;
    held.expect(&missed).await;
    proxy.held().await;
    let later = app.send_many("shop/ada", 5).await;
    proxy.cut();

    let cursor = held.cursor.clone().expect("it has seen ids");
    let mut client = app.subscribe_after("shop/ada", cursor).await;

    client.expect(&later).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_page_is_complete_up_to_the_audience_that_was_cut_first() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let seen = app.send("shop/ada", "0").await;
    let numbers: Vec<String> = (0..1200).map(|number| number.to_string()).collect();
    for chunk in numbers.chunks(400) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        database.append("shop", "user:ada", &chunk).await;
    }
    database.append("shop", "everyone", &["1"]).await;
    let mut expected = database.ids("shop", "user:ada").await;
    expected.remove(0);
    expected.extend(database.ids("shop", "everyone").await);
    assert_eq!(expected.len(), 1201);

    let mut client = app.subscribe_after("shop/ada", &seen).await;

    client.expect(&expected).await;
    assert_eq!(client.until("tidings.live").await.1.json()["replayed"], 1201);
    client.expect_silence().await;
}

/// The feed is one in which almost every row has the same audience, spread over the partitions of a
/// month: to the planner's statistics everybody looks like that busy audience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_over_a_million_other_rows_touches_few_pages_and_is_exact() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    fill(&pool).await;
    let ada = database.ids("app-0", "user:ada").await;
    assert_eq!(ada.len(), 110);

    replays_touch_few_pages(&database, &ada, "without statistics").await;
    sqlx::query("analyze tidings.notification").execute(&pool).await.unwrap();
    replays_touch_few_pages(&database, &ada, "with statistics").await;

    any_id_is_a_cursor(&database, &pool, &ada).await;
}

/// A million rows in 31 days; a hundred of ada's in the first thirty, ten in the last; and ten of
/// bea's all over the month.
async fn fill(pool: &PgPool) {
    sqlx::raw_sql(
        "select tidings.extend_partitions(37);
        do $$ declare part regclass; begin
            -- Statistics are to change only when the test says so.
            for part in select inhrelid from pg_inherits
                where inhparent = 'tidings.notification'::regclass loop
                execute format('alter table %s set (autovacuum_enabled = false)', part);
            end loop;
        end $$;
        insert into tidings.notification (id, app, audience, data, created_at)
        select tidings.event_id((now_ms + n * 2600 << 15) + n % 7, 0, n),
            'app-' || n % 20,
            case when n % 10000 = 5000 or n > 999000 and n % 100 = 20 then 'user:ada'
                when n % 100000 = 50020 then 'user:bea' else 'topic:news' end,
            '{\"order\":17,\"text\":\"Your parcel is on its way\"}', now()
        from generate_series(1::bigint, 1000000) n,
            (select (extract(epoch from now()) * 1000)::bigint as now_ms) t;
        select setval('tidings.position', tidings.position(max(id::text)::uuid))
            from tidings.notification",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// The very SQL of the server, for the ten newest rows of one user and for ten that lie in as many
/// partitions, with the plan for these values and with the one for any.
async fn replays_touch_few_pages(database: &TestDatabase, ada: &[String], case: &str) {
    // A connection of its own: plans made before the statistics changed would be used again.
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let prepare = format!(
        "prepare replay(integer[], integer[], text[], text[], uuid[], bigint[], bigint) as {}",
        include_str!("../../src/store/replay.sql")
    );
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut conn).await.unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        for (user, after, most) in [
            ("ada", ada[ada.len() - 11].as_str(), MOST_BUFFERS),
            ("bea", BEFORE_ALL, MOST_BUFFERS_OF_A_MONTH),
        ] {
            let set = format!("set plan_cache_mode = {mode}");
            sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut conn).await.unwrap();
            let after = uuid::Uuid::from(ulid::Ulid::from_string(after).unwrap());
            // As the server asks: for the user and for everyone.
            let explain = format!(
                "explain (analyze, buffers, format json) execute replay(array[0, 0], array[0, 1],
                array['app-0', 'app-0'], array['user:{user}', 'everyone'],
                array['{after}', '{after}']::uuid[], array[131072, 131072], 500)"
            );
            let explained: Value =
                sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut conn).await.unwrap();
            let plan = &explained[0]["Plan"];
            let what = format!("{mode} {case} for {user}: {plan:#}");
            assert_eq!(plan["Actual Rows"].as_f64(), Some(10.0), "{what}");
            assert!(buffers(plan) < most, "{} buffers: {what}", buffers(plan));
            scans_only_indexes(plan, &what);
        }
    }
}

fn buffers(node: &Value) -> i64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|n| node[n].as_i64().unwrap()).sum()
}

fn scans_only_indexes(node: &Value, plan: &str) {
    let scan = node["Node Type"].as_str().unwrap();
    if node["Relation Name"].as_str().is_some_and(|name| name.starts_with("notification")) {
        // An empty table is read without reading anything.
        let reads = buffers(node) > 0;
        assert!(!reads || scan.starts_with("Index"), "{scan} in {plan}");
        assert_eq!(node["Rows Removed by Filter"].as_i64().unwrap_or(0), 0, "{plan}");
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        scans_only_indexes(child, plan);
    }
}

/// Whoever's id it is: what follows is exactly what came after it, and then what comes.
async fn any_id_is_a_cursor(database: &TestDatabase, pool: &PgPool, ada: &[String]) {
    let some: Vec<uuid::Uuid> = sqlx::query_scalar(
        "(select id from tidings.notification tablesample bernoulli (0.1) order by random() limit 40)
        union all (select id from tidings.notification where audience = 'user:ada' order by random() limit 7)
        union all (select id from tidings.notification order by id limit 1)
        union all (select id from tidings.notification order by id desc limit 1)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut cursors: BTreeSet<String> =
        some.into_iter().map(|id| ulid::Ulid::from(id).to_string()).collect();
    cursors.insert(BEFORE_ALL.to_owned());
    let app = TestApp::on(database.clone(), |_| {}).await;

    let mut clients = Vec::new();
    for cursor in &cursors {
        let mut client = app.subscribe_after("app-0/ada", cursor).await;
        client.expect(ada.iter().filter(|id| *id > cursor)).await;
        client.until("tidings.live").await;
        clients.push(client);
    }
    let live = app.send_many("app-0/ada", 3).await;
    for mut client in clients {
        client.expect(&live).await;
        client.expect_silence().await;
    }
}
