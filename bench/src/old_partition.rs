//! A partition of a day that is older than the retention, full of rows.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{Outcome, payload};

/// In days: older than the default retention.
const AGE: u32 = 40;
/// As many to each as a busy day brings.
const ROWS_PER_USER: u64 = 20;

/// Adds one with this many rows below everything there is. They are on disk and vacuumed before this
/// returns, so that only its removal is left to measure.
pub(crate) async fn fill(database_url: &str, rows: u64) -> Outcome<()> {
    let mut connection = PgConnection::connect(database_url).await?;
    let data = payload::data(0).replace('\'', "''");
    for sql in [
        // The server makes partitions when it has started. After that none but `tidings prune` is to act.
        "select pg_advisory_lock(7463, 2); select tidings.extend_partitions(7)".to_owned(),
        // The oldest partition begins a day after that from here on, and is empty yet.
        format!(
            "do $$ declare
                bound uuid := tidings.first_id_of((clock_timestamp() at time zone 'UTC')::date - {AGE} + 1);
                oldest record;
            begin
                select name, to_id into oldest from tidings.partitions where from_id is null;
                if oldest.to_id > bound then
                    if exists (select from tidings.notification where id < oldest.to_id) then
                        raise 'the first partition is not empty: start with a fresh database';
                    end if;
                    execute format('alter table tidings.notification detach partition tidings.%I', oldest.name);
                    execute format('alter table tidings.notification attach partition tidings.%I
                        for values from (%L) to (%L)', oldest.name, bound, oldest.to_id);
                end if;
                create table tidings.notification_bench (like tidings.notification including all)
                    with (autovacuum_enabled = false);
                execute format('alter table tidings.notification attach partition tidings.notification_bench
                    for values from (minvalue) to (%L)', bound);
            end $$"
        ),
        format!(
            "insert into tidings.notification (id, app, audience, data, created_at)
            select tidings.event_id(tidings.position(tidings.first_id_of(day)) + n * 64, 0, n),
                'bench-old', 'user:' || n % {users}, '{data}', day
            from generate_series(1::bigint, {rows}) n,
                (select (clock_timestamp() at time zone 'UTC')::date - {AGE} as day) d",
            users = (rows / ROWS_PER_USER).max(1),
        ),
        "vacuum (analyze) tidings.notification_bench".to_owned(),
        "checkpoint".to_owned(),
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Whether any of it is there still.
pub(crate) async fn is_there(database_url: &str) -> Outcome<bool> {
    let mut connection = PgConnection::connect(database_url).await?;
    let there = sqlx::query_scalar("select to_regclass('tidings.notification_bench') is not null")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(there)
}
