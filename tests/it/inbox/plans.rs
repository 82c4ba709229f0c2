//! Counts and lists cost what is in them, among a million other rows.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::harness::{TestApp, TestDatabase};
use crate::replay::{buffers, fill};

/// Rows that are read and left out: the state entries of the changes, which lie among ada's own.
const STATE_ENTRIES: f64 = 6.0;
/// Pages of 8 KiB: down each index in each of 38 partitions, for the user and for everyone, the rows,
/// and what became of each.
const MOST_BUFFERS: i64 = 38 * 2 * 4 + 110 * 12;

const COUNTS: &str = "select * from tidings.inbox_counts($1, $2, $3)";
const ASC: &str = include_str!("../../../src/store/history_asc.sql");
const DESC: &str = include_str!("../../../src/store/history_desc.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_lists_among_a_million_other_rows_touch_few_pages() {
    let database = TestDatabase::new().await;
    let pool = database.pool().await;
    fill(&pool).await;
    fill_state(&pool).await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let ada = database.ids("app-0", "user:ada").await;
    assert_eq!(ada.len(), 110);
    change_state_of(&app, &ada).await;

    reads_touch_few_pages(&database, "without statistics").await;
    analyze(&pool).await;
    reads_touch_few_pages(&database, "with statistics").await;
}

/// What other users did, and what is gone.
async fn fill_state(pool: &PgPool) {
    sqlx::raw_sql(
        "insert into tidings.known_user select 'app-0', 'user-' || n, gen_random_uuid()
            from generate_series(1, 20000) n;
        insert into tidings.state_mark
            select app, user_name, 'everyone', since, since, since from tidings.known_user;
        insert into tidings.user_state
            select app, user_name, 'everyone', gen_random_uuid(), true, n = 1, n = 2
            from tidings.known_user, generate_series(1, 3) n;
        insert into tidings.gone select gen_random_uuid() from generate_series(1, 20000)",
    )
    .execute(pool)
    .await
    .unwrap();
}

/// Read up to the middle, with exceptions on both sides.
async fn change_state_of(app: &TestApp, ada: &[String]) {
    for (ids, state) in [(&ada[..3], "unread"), (&ada[60..63], "read"), (&ada[63..66], "archived")]
    {
        for body in
            [json!({"up_to": ada[50], "state": "read"}), json!({"ids": ids, "state": state})]
        {
            let path = format!("{}/state/app-0/ada", crate::harness::API);
            let request = crate::harness::Request::json(path, body.to_string());
            assert_eq!(request.send(app.address).await.status, 200);
        }
    }
}

async fn analyze(pool: &PgPool) {
    for table in ["notification", "user_state", "state_mark", "known_user", "gone"] {
        let analyze = format!("analyze tidings.{table}");
        sqlx::query(AssertSqlSafe(analyze)).execute(pool).await.unwrap();
    }
}

async fn reads_touch_few_pages(database: &TestDatabase, case: &str) {
    // A connection of its own: plans made before the statistics changed would be used again.
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let history = "(text, text, text[], uuid, uuid, bigint, bigint, text)";
    for (name, types, sql) in
        [("counts", "(text, text, text[])", COUNTS), ("asc", history, ASC), ("desc", history, DESC)]
    {
        let prepare = format!("prepare \"{name}\" {types} as {sql}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut conn).await.unwrap();
    }
    let who = "'app-0', 'ada', array['user:ada', 'everyone', 'topic:quiet']";
    let all = "'00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    let mut reads = vec![(format!("counts({who})"), 1.0)];
    // 110 of ada's, the first 51 read by the mark.
    for (filter, rows) in [
        ("null", 51.0),
        ("'unread'", 51.0),
        ("'read'", 51.0),
        ("'archived'", 3.0),
        ("'seen'", 51.0),
    ] {
        for order in ["asc", "desc"] {
            reads.push((format!("\"{order}\"({who}, {all}, 51, 8388608, {filter})"), rows));
        }
    }
    for mode in ["force_custom_plan", "force_generic_plan"] {
        let set = format!("set plan_cache_mode = {mode}");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut conn).await.unwrap();
        for (read, rows) in &reads {
            let explain = format!("explain (analyze, buffers, format json) execute {read}");
            let explained: Value =
                sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut conn).await.unwrap();
            let plan = &explained[0]["Plan"];
            let what = format!("{mode} {case} for {read}: {plan:#}");
            assert_eq!(plan["Actual Rows"].as_f64(), Some(*rows), "{what}");
            assert!(buffers(plan) < MOST_BUFFERS, "{} buffers: {what}", buffers(plan));
            scans_only_indexes(plan, &what);
        }
    }
}

fn scans_only_indexes(node: &Value, plan: &str) {
    let scan = node["Node Type"].as_str().unwrap();
    let relation = node["Relation Name"].as_str().unwrap_or_default();
    // An empty table is read without reading anything.
    if buffers(node) > 0
        && ["notification", "user_state", "gone"].iter().any(|t| relation.starts_with(t))
    {
        // By an index too, when it gathers a few rows of one user.
        let by_index = scan.starts_with("Index") || scan == "Bitmap Heap Scan";
        assert!(by_index, "{scan} of {relation} in {plan}");
    }
    // For each of its loops.
    let removed = node["Rows Removed by Filter"].as_f64().unwrap_or(0.0);
    let loops = node["Actual Loops"].as_f64().unwrap_or(0.0);
    assert!(removed * loops <= STATE_ENTRIES, "{removed} of {relation} in {plan}");
    for child in node["Plans"].as_array().into_iter().flatten() {
        scans_only_indexes(child, plan);
    }
}
