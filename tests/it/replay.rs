//! Invariant 3: exactly the matching rows after the cursor, in id order.

#![expect(clippy::print_stdout, reason = "figures of bench/README.md come from here")]

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::harness::{Proxy, TestApp, TestDatabase};

const BEFORE_ALL: &str = "00000000000000000000000000";
/// Days with rows, each a partition.
const DAYS: i64 = 31;
/// Pages of 8 KiB in the replay index from its root to a row of one audience, and the row itself.
const DOWN: i64 = 4;
/// And in the index of what is gone, for each row that is found.
const LOOK: i64 = 3;
/// The newest id is looked up behind the partitions made ahead, and the plan's own tables.
const FACTS: i64 = 60;
/// As the server has it.
const PAGE_BYTES: usize = 256 << 10;

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
    let feed = Feed { database: &database };
    let ada = feed.rows_of(&audiences("ada", 0..0)).await;
    assert_eq!(ada.len(), 120);

    replays_touch_few_pages(&feed, "without statistics").await;
    sqlx::raw_sql("analyze tidings.notification; analyze tidings.gone")
        .execute(&pool)
        .await
        .unwrap();
    replays_touch_few_pages(&feed, "with statistics").await;

    any_id_is_a_cursor(&database, &pool, &ada).await;
}

/// A million rows in 31 days; a hundred of ada's in the first thirty, ten in the last; ten of bea's, ten
/// for everyone, and ten of each of a hundred topics all over the month. And a hundred thousand gone.
pub async fn fill(pool: &PgPool) {
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
                when n % 100000 = 50020 then 'user:bea'
                when n % 100000 = 60 then 'everyone'
                when n % 1000 = 40 then 'topic:t' || n / 1000 % 100
                else 'topic:news' end,
            '{\"order\":17,\"text\":\"Your parcel is on its way\"}', now()
        from generate_series(1::bigint, 1000000) n,
            (select (extract(epoch from now()) * 1000)::bigint as now_ms) t;
        select setval('tidings.position', tidings.position(max(id::text)::uuid))
            from tidings.notification;
        insert into tidings.gone (id) select gen_random_uuid() from generate_series(1, 100000)",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// What a stream of the user with these of the hundred topics covers.
fn audiences(user: &str, topics: Range<usize>) -> Vec<String> {
    let own = [format!("user:{user}"), "everyone".to_owned()];
    own.into_iter().chain(topics.map(|topic| format!("topic:t{topic}"))).collect()
}

struct Feed<'a> {
    database: &'a TestDatabase,
}

impl Feed<'_> {
    /// The ids that the table has for these audiences, in order.
    async fn rows_of(&self, audiences: &[String]) -> Vec<String> {
        let mut ids = Vec::new();
        for audience in audiences {
            ids.extend(self.database.ids("app-0", audience).await);
        }
        ids.sort();
        ids
    }

    /// The very SQL of the server, with the plan for these values and with the one for any.
    async fn explain(&self, mode: &str) -> PgConnection {
        // A connection of its own: plans made before the statistics changed would be used again.
        let mut conn = PgConnection::connect(&self.database.url).await.unwrap();
        let prepare = format!(
            "set jit = off; set plan_cache_mode = {mode}; prepare replay(text[], uuid[], integer[],
                integer[], integer[], integer[], text[], bigint) as {}",
            include_str!("../../src/store/replay.sql")
        );
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut conn).await.unwrap();
        conn
    }
}

/// Ten new rows of one user; twenty that lie all over the month; ten new ones of fifty topics; and all
/// that a hundred topics had in the month.
async fn replays_touch_few_pages(feed: &Feed<'_>, case: &str) {
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let mut conn = feed.explain(mode).await;
        for (covered, new, days) in [
            (audiences("ada", 0..0), Some(10), 1),
            (audiences("bea", 0..0), None, DAYS),
            (audiences("cid", 50..100), Some(10), 1),
            (audiences("cid", 0..100), None, DAYS),
        ] {
            let rows = feed.rows_of(&covered).await;
            let after = new.map_or(BEFORE_ALL, |new| &rows[rows.len() - 1 - new]);
            let missed = new.unwrap_or(rows.len()) as i64;
            let (plan, ms) = explain(&mut conn, &covered, after).await;
            let what =
                format!("{} audiences, {missed} rows in {days} days, {mode} {case}", covered.len());
            println!("{what}: {} buffers, {ms:.1} ms", buffers(&plan));
            // A cursor in a day's middle is a look into that day and the next.
            let most = FACTS + covered.len() as i64 * days * DOWN + missed * (LOOK + DOWN);
            assert_eq!(plan["Actual Rows"].as_f64(), Some(missed as f64), "{what}: {plan:#}");
            assert!(buffers(&plan) < most, "over {most} buffers for {what}: {plan:#}");
            scans_only_indexes(&plan, &what);
        }
    }
}

/// The plan with what it did, and the median time of five runs.
async fn explain(conn: &mut PgConnection, covered: &[String], after: &str) -> (Value, f64) {
    let after = uuid::Uuid::from(ulid::Ulid::from_string(after).unwrap());
    let depth = (1000 / covered.len()).clamp(32, 500);
    let explain = format!(
        "explain (analyze, buffers, timing off, format json) execute replay(array['app-0'],
        array['{after}']::uuid[], array[1], array[{}], array[{depth}], array[111],
        array['{}'], {PAGE_BYTES})",
        covered.len(),
        covered.join("','"),
    );
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = sqlx::query_scalar(AssertSqlSafe(explain.clone())).fetch_one(&mut *conn);
        let run: Value = run.await.unwrap();
        runs.push((run[0]["Execution Time"].as_f64().unwrap(), run));
    }
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ms, run) = runs.swap_remove(2);
    (run[0]["Plan"].clone(), ms)
}

pub fn buffers(node: &Value) -> i64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|n| node[n].as_i64().unwrap()).sum()
}

fn scans_only_indexes(node: &Value, plan: &str) {
    let scan = node["Node Type"].as_str().unwrap();
    let name = node["Relation Name"].as_str().unwrap_or_default();
    if name.starts_with("notification") || name == "gone" {
        // An empty table is read without reading anything.
        let reads = buffers(node) > 0;
        assert!(!reads || scan.starts_with("Index"), "{scan} of {name} in {plan}: {node:#}");
        assert_eq!(node["Rows Removed by Filter"].as_i64().unwrap_or(0), 0, "{plan}: {node:#}");
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        scans_only_indexes(child, plan);
    }
}

/// Whoever's id it is: what follows is exactly what came after it, and then what comes.
async fn any_id_is_a_cursor(database: &TestDatabase, pool: &PgPool, ada: &[String]) {
    let some: Vec<uuid::Uuid> = sqlx::query_scalar(
        "(select id from tidings.notification tablesample bernoulli (0.1) order by random() limit 40)
        union all (select id from tidings.notification where audience in ('user:ada', 'everyone') order by random() limit 7)
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
