//! Sends from SQL: delivered if and only if their transaction commits, once, in the order of each
//! session; and nobody waits for another.

mod drainer;
mod sessions;
mod slices;
mod turns;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::TestDatabase;

pub async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(&database.url).await.expect("the test database")
}

pub async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect(sql);
}

/// How many rows wait.
pub async fn waiting(database: &TestDatabase) -> i64 {
    let rows = "select coalesce(sum(waiting), 0)::bigint from tidings.outbox_by_app";
    database.value(rows).await
}

/// Drains as a server does, without one.
pub async fn drain(conn: &mut PgConnection, most_rows: i32) {
    let call = "call tidings.drain_outbox(500, $1, 9e15::bigint, '', null, null, null)";
    sqlx::query(call).bind(most_rows).execute(conn).await.expect("a drain");
}

/// Everything that was stored for an app, in order of the ids.
async fn stored(database: &TestDatabase, app: &str) -> Vec<String> {
    let pool = database.pool().await;
    let data = sqlx::query_scalar(
        "select data::text from tidings.notification where app = $1 order by id",
    )
    .bind(app)
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.close().await;
    data
}
