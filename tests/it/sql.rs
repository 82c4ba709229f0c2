//! SQL as an interface: docs/sql.md is true, line by line; what the views say is what the API says; and
//! the roles may what they are meant to, and nothing else.

use futures_util::TryStreamExt;
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column, Connection, Either, PgConnection, Row};

use crate::harness::{Request, TestApp, TestDatabase, eventually};

const PAGE: &str = include_str!("../../docs/sql.md");

/// What the page speaks of: three users and three apps on a day in November.
const WORLD: &str = r#"
create function pg_temp.put(at time, app text, audience text, event text, data text) returns void language sql as $$
    insert into tidings.notification (id, app, audience, event, data, created_at)
    select tidings.event_id((extract(epoch from t.at) * 1000)::bigint << 15, 0, 0), put.app, put.audience,
           put.event, put.data::json, t.at
    from (select (date '2026-11-20' + put.at) at time zone 'UTC' as at) t
$$;
select pg_temp.put('09:00', 'shop', 'user:ada', 'order.shipped', '{"order":17,"total":12.50}'),
       pg_temp.put('09:05', 'shop', 'user:ben', 'order.shipped', '{"order":18,"total":8.00}'),
       pg_temp.put('09:10', 'shop', 'everyone', 'maintenance', '{"from":"22:00"}'),
       pg_temp.put('09:20', 'shop', 'topic:news', null, '"New, by ben!!!!"'),
       pg_temp.put('10:00', 'blog', 'user:ada', 'comment', '{"by":"ben"}');
select pg_temp.put(time '11:00' + i * interval '1 second', 'noise', 'user:u' || i % 3, null, to_json(i)::text)
from generate_series(0, 499) i;
select setval('tidings.position', (select max(tidings.position(id)) from tidings.notification));
insert into tidings.known_user (app, user_name, since)
select 'shop', u.name, tidings.event_id((extract(epoch from (date '2026-11-20' + u.at) at time zone 'UTC') * 1000)::bigint << 15, 0, 0)
from (values ('ada', time '08:00'), ('ben', '08:00'), ('cyd', '09:12')) u (name, at);
insert into tidings.user_state (app, user_name, audience, id, seen, read)
select app, 'ada', audience, id, true, true from tidings.notification
where app = 'shop' and audience in ('user:ada', 'everyone');
insert into tidings.scheduled (schedule_id, app, audiences, event, data, deliver_at, created_at)
values (tidings.event_id((extract(epoch from timestamptz '2026-11-20 09:16:00.1Z') * 1000)::bigint << 15, 0, 0),
        'shop', '{user:ada,user:ben}', 'greeting', '"Season''s greetings"', '2099-12-24 08:00Z', now());
"#;

/// One block of SQL and what the page shows below it.
struct Snippet {
    sql: String,
    shown: Option<String>,
}

fn snippets() -> Vec<Snippet> {
    let mut snippets: Vec<Snippet> = Vec::new();
    let mut blocks = PAGE.split("\n```");
    let mut prose = blocks.next().expect("a page");
    while let (Some(block), Some(next)) = (blocks.next(), blocks.next()) {
        if let Some(sql) = block.strip_prefix("sql\n") {
            snippets.push(Snippet { sql: sql.to_owned(), shown: None });
        } else if let Some(text) = block.strip_prefix("text\n") {
            assert_eq!(prose.trim(), "", "a result follows its SQL: {text}");
            snippets.last_mut().expect("SQL before it").shown = Some(text.to_owned());
        }
        prose = next;
    }
    snippets
}

/// What psql would print, without the spaces that align it.
async fn result(conn: &mut PgConnection, sql: &str) -> Vec<Vec<String>> {
    if sql.starts_with("copy ") {
        let mut lines = Vec::new();
        let mut copy = conn.copy_out_raw(sql.trim().trim_end_matches(';')).await.expect(sql);
        while let Some(bytes) = copy.try_next().await.unwrap() {
            lines.extend(std::str::from_utf8(&bytes).unwrap().lines().map(|l| vec![l.to_owned()]));
        }
        return lines;
    }
    let statement = AssertSqlSafe(sql.to_owned());
    let results: Result<Vec<Either<_, PgRow>>, _> =
        sqlx::raw_sql(statement).fetch_many(&mut *conn).try_collect().await;
    let rows: Vec<PgRow> = match results {
        Ok(results) => results.into_iter().filter_map(Either::right).collect(),
        Err(error) => {
            let message = error.as_database_error().expect(sql).message().to_owned();
            return vec![vec![format!("ERROR:  {message}")]];
        }
    };
    let Some(first) = rows.first() else { return vec![vec!["(0 rows)".to_owned()]] };
    let names = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut lines = vec![names];
    for row in &rows {
        // The simple protocol: everything comes as text.
        let cell = |at| row.try_get_unchecked::<Option<String>, _>(at).unwrap().unwrap_or_default();
        lines.push((0..row.len()).map(cell).collect());
    }
    let count = rows.len();
    lines.push(vec![format!("({count} {})", if count == 1 { "row" } else { "rows" })]);
    lines
}

/// The same of what the page shows.
fn cells(shown: &str, sql: &str) -> Vec<Vec<String>> {
    let lines = shown.lines().filter(|line| !line.contains("-+-") && !line.starts_with("---"));
    let split = |line: &str| match sql.starts_with("copy ") || line.starts_with("ERROR") {
        true => vec![line.to_owned()],
        false => line.split('|').map(|cell| cell.trim().to_owned()).collect(),
    };
    let lines: Vec<Vec<String>> = lines.map(split).collect();
    // Without rows the simple protocol does not tell the columns.
    if lines.last().is_some_and(|line| line[0] == "(0 rows)") {
        return vec![lines[lines.len() - 1].clone()];
    }
    lines
}

fn is_shown(result: &[Vec<String>], shown: &[Vec<String>]) -> bool {
    let same = |(a, b): (&String, &String)| b == "…" || a == b;
    result.len() == shown.len()
        && result.iter().zip(shown).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(same))
}

async fn drain(database: &TestDatabase) {
    database.run("call tidings.drain_outbox(500, 1000, 9e15::bigint, '', null, null, null)").await;
}

async fn world() -> TestDatabase {
    let database = TestDatabase::new().await;
    database.run(WORLD).await;
    database
}

#[tokio::test]
async fn every_snippet_gives_what_the_page_shows() {
    let database = world().await;
    database
        .run(
            "do $$ begin create role shop_backend nologin;
            exception when duplicate_object or unique_violation then null; end $$",
        )
        .await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("set timezone = 'UTC'").execute(&mut conn).await.unwrap();
    let snippets = snippets();
    assert!(snippets.len() > 30, "{}", snippets.len());
    for Snippet { sql, shown } in snippets {
        let result = result(&mut conn, &sql).await;
        match shown {
            Some(shown) => {
                let shown = cells(&shown, &sql);
                assert!(is_shown(&result, &shown), "{sql}\ngives\n{result:#?}\nnot\n{shown:#?}");
            }
            None => assert!(!result[0][0].starts_with("ERROR"), "{sql}\n{result:?}"),
        }
        drain(&database).await;
    }
}

#[tokio::test]
async fn what_is_unread_in_sql_is_what_the_counts_say() {
    let app = TestApp::start().await;
    let base = "/api/notifications";
    for user in ["ada", "ben"] {
        app.subscribe(&format!("shop/{user}")).await;
    }
    let mut ids = Vec::new();
    for number in 0..6 {
        for to in [json!({"user": "ada"}), json!("everyone"), json!({"user": "cyd"})] {
            let body = json!({"to": to, "data": number});
            let answer = Request::json(format!("{base}/send/shop"), body.to_string());
            let answer = answer.send(app.address).await.json();
            ids.push(answer["id"].as_str().unwrap().to_owned());
        }
    }
    let state = async |user: &str, body: serde_json::Value| {
        let path = format!("{base}/state/shop/{user}");
        assert_eq!(Request::json(path, body.to_string()).send(app.address).await.status, 200);
    };
    state("ada", json!({"up_to": ids[7], "state": "read"})).await;
    state("ada", json!({"ids": [ids[3]], "state": "unread"})).await;
    state("ada", json!({"ids": [ids[12], ids[13]], "state": "archived"})).await;
    state("ben", json!({"ids": [ids[4]], "state": "seen"})).await;
    let withdrawn = Request::json(format!("{base}/withdraw/shop/{}", ids[16]), "");
    assert_eq!(withdrawn.send(app.address).await.status, 204);

    for user in ["ada", "ben", "cyd", "nobody"] {
        let answer = Request::get(format!("{base}/counts/shop/{user}")).send(app.address).await;
        for (count, condition) in [("unread", "true"), ("unseen", "not seen")] {
            let sql = format!(
                "select count(*) from tidings.unread
                where app = 'shop' and user_id = '{user}' and {condition}"
            );
            let unread: i64 = app.database.value(&sql).await;
            assert_eq!(answer.json()[count], unread, "{count} of {user}");
        }
    }
    let known = "select string_agg(user_id, ' ' order by user_id) from tidings.known_users";
    assert_eq!(app.database.value::<String>(known).await, "ada ben cyd");
}

#[tokio::test]
async fn an_id_is_the_same_in_both_directions() {
    let database = TestDatabase::new().await;
    for _ in 0..200 {
        let id = ulid::Ulid::from(fastrand::u128(..));
        let sql = format!(
            "select tidings.ulid('{}')::text || ' ' || tidings.ulid('{}'::uuid)",
            id.to_string().to_lowercase(),
            uuid::Uuid::from(id)
        );
        let expected = format!("{} {id}", uuid::Uuid::from(id));
        assert_eq!(database.value::<String>(&sql).await, expected);
        let time = format!("select (extract(epoch from tidings.ulid_time('{id}')) * 1000)::bigint");
        assert_eq!(database.value::<i64>(&time).await, id.timestamp_ms() as i64, "{id}");
    }
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    for text in ["", "17", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01ARZ3NDEKTSV4RRFFQ69G5FAU", "é"] {
        let error = sqlx::query("select tidings.ulid($1::text)")
            .bind(text)
            .execute(&mut conn)
            .await
            .unwrap_err();
        let message = format!("not a ULID of 26 characters: {text}");
        assert_eq!(error.as_database_error().unwrap().message(), message);
    }
}

#[tokio::test]
async fn the_history_says_what_became_of_a_notification() {
    let app = TestApp::start().await;
    let send = async |body: serde_json::Value| {
        let request = Request::json("/api/notifications/send/shop/ada", body.to_string());
        request.send(app.address).await.json()["id"].as_str().unwrap().to_owned()
    };
    let old = send(json!({"data": "old", "replaces": "k"})).await;
    let new = send(json!({"data": "new", "replaces": "k"})).await;
    let withdrawn = send(json!({"data": "withdrawn"})).await;
    let path = format!("/api/notifications/withdraw/shop/{withdrawn}");
    assert_eq!(Request::json(path, "").send(app.address).await.status, 204);
    send(json!({"data": "expired", "expires_in": 1})).await;
    let sql =
        "select string_agg(concat_ws(' ', data #>> '{}', status, replaced_by), ', ' order by uuid)
        from tidings.history where app = 'shop' and user_id = 'ada'";
    let expected =
        format!("old replaced {new}, new deliverable, withdrawn withdrawn, expired expired");
    assert!(old < new);
    eventually("it expires", async || app.database.value::<String>(sql).await == expected).await;
}

/// Routines and relations that a role may use.
async fn may(database: &TestDatabase, role: &str) -> String {
    let sql = format!(
        "select coalesce(string_agg(thing, ' ' order by thing), '') from (
            select distinct proname::text from pg_proc
            where pronamespace = 'tidings'::regnamespace and has_function_privilege('{role}', oid, 'execute')
            union all
            select relname from pg_class
            where relnamespace = 'tidings'::regnamespace and relkind in ('r', 'p', 'v')
              and has_table_privilege('{role}', oid, 'insert, update, delete, truncate, references, trigger')
            union all
            select 'reads all' where not exists (
                select from pg_class where relnamespace = 'tidings'::regnamespace
                  and relkind in ('r', 'p', 'v') and not relispartition and not has_table_privilege('{role}', oid, 'select'))
            union all
            select 'reads some' where exists (
                select from pg_class where relnamespace = 'tidings'::regnamespace
                  and relkind in ('r', 'p', 'v') and has_table_privilege('{role}', oid, 'select'))
        ) as things (thing)"
    );
    database.value(&sql).await
}

#[tokio::test]
async fn the_roles_may_what_they_are_for_and_nothing_else() {
    let database = TestDatabase::new().await;
    assert_eq!(may(&database, "tidings_sender").await, "send send_everyone send_topic");
    assert_eq!(
        may(&database, "tidings_admin").await,
        "event_id position reads all reads some ulid ulid_time"
    );
    assert_eq!(may(&database, "pg_read_all_stats").await, "", "nor may whoever comes along");
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("set role tidings_admin").execute(&mut conn).await.unwrap();
    for view in [
        "history",
        "unread",
        "known_users",
        "stats_by_app",
        "scheduled_sends",
        "outbox_by_app",
        "edges",
    ] {
        let select = format!("select * from tidings.{view}");
        sqlx::raw_sql(AssertSqlSafe(select)).execute(&mut conn).await.expect(view);
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_roles_migrates_all_the_same_and_down_again() {
    TestDatabase::new().await; // by which the roles are there
    let database = TestDatabase::empty().await;
    database
        .run(&format!(
            "do $$ begin create role plain_migrator login;
            exception when duplicate_object or unique_violation then null; end $$;
            grant create on database {} to plain_migrator",
            database.name
        ))
        .await;
    let url = database.url.replace("postgres://tidings@", "postgres://plain_migrator@");
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let migrator = sqlx::migrate!();
    migrator.run(&pool).await.unwrap();
    sqlx::raw_sql("select tidings.send('shop', 'ada', '1')").execute(&pool).await.unwrap();
    migrator.undo(&pool, 0).await.unwrap();
    let roles =
        "select count(*) from pg_roles where rolname in ('tidings_admin', 'tidings_sender')";
    let roles: i64 = sqlx::query_scalar(roles).fetch_one(&pool).await.unwrap();
    assert_eq!(roles, 2, "it takes none away");
    pool.close().await;
}
