//! A feed that began long ago: partitions of past days, with rows that were appended then.

use std::time::Duration;

use tidings::clock::Clock;
use tidings::store::{Keep, Store};

use crate::harness::{TestApp, TestDatabase};

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As if the server had run since `days` days ago: the first partition ends there, then one a day.
pub async fn begun_ago(days: i32) -> TestDatabase {
    let database = TestDatabase::new().await;
    let split = format!(
        "do $$
        declare
            today date := (clock_timestamp() at time zone 'UTC')::date;
            first record;
            day date := today - {days};
            lower text := 'minvalue';
            part text := 'notification_to_' || to_char(today - {days}, 'YYYYMMDD');
        begin
            select name, to_id into first from tidings.partitions where from_id is null;
            execute format('drop table tidings.%I', first.name);
            while day <= tidings.utc_day_of(first.to_id) loop
                execute format('create table tidings.%I (like tidings.notification including all)', part);
                execute format('alter table tidings.notification attach partition tidings.%I
                    for values from (%s) to (%L)', part, lower, tidings.first_id_of(day));
                lower := quote_literal(tidings.first_id_of(day));
                part := 'notification_' || to_char(day, 'YYYYMMDD');
                day := day + 1;
            end loop;
        end $$"
    );
    database.run(&split).await;
    database
}

/// Appends rows that many days ago, an hour after midnight; their ids.
pub async fn append_ago(
    database: &TestDatabase,
    days: i32,
    app: &str,
    audience: &str,
    count: i32,
) -> Vec<String> {
    let before = database.ids(app, audience).await;
    let insert = format!(
        "insert into tidings.notification (id, app, audience, data, created_at)
        select tidings.event_id(tidings.position(tidings.first_id_of(day)) + (3600000 << 15)
                + (select count(*) from tidings.notification) + n, 0, 1),
            '{app}', '{audience}', '{{\"n\":1}}', now()
        from generate_series(1, {count}) n,
            (select (clock_timestamp() at time zone 'UTC')::date - {days} as day) d;
        select setval('tidings.position', greatest(last_value,
            (select tidings.position(id) from tidings.notification order by id desc limit 1)))
        from tidings.position"
    );
    database.run(&insert).await;
    let mut ids = database.ids(app, audience).await;
    ids.retain(|id| !before.contains(id));
    assert_eq!(ids.len(), count as usize);
    ids
}

pub fn store(database: &TestDatabase) -> Store {
    Store::new(&database.url, None).unwrap()
}

pub fn keep(days: u32) -> Keep {
    Keep { retention: DAY * days, now: Clock::default().now() }
}

/// A server that keeps that many days.
pub async fn server(database: &TestDatabase, days: u32) -> TestApp {
    TestApp::on(database.clone(), |config| config.retention = DAY * days).await
}

/// Names of the tables that are or were partitions of those days ago.
pub async fn tables_of(database: &TestDatabase, days: i32) -> i64 {
    let count = format!(
        "select count(*) from pg_class where relkind = 'r' and relnamespace = 'tidings'::regnamespace
         and relname = 'notification_' ||
            to_char((clock_timestamp() at time zone 'UTC')::date - {days}, 'YYYYMMDD')"
    );
    database.value(&count).await
}

/// The edge, as clients see it.
pub async fn edge(database: &TestDatabase) -> String {
    database.value("select tidings.ulid(edge) from tidings.retention_edge").await
}
