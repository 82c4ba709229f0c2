//! Invariant 2: ids become visible in id order, across instances, whatever any clock says.

use chrono::TimeDelta;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgPool};
use tidings::clock::Clock;
use tidings::event_id::EventId;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use uuid::Uuid;

use crate::harness::{TestApp, TestDatabase, eventually};

const SENDERS: usize = 16;
const SENDS_EACH: usize = 150;
/// One that races at the head of the feed, one that is always behind, and two between.
const READ_LIMITS: [i64; 4] = [1, 7, 100, 1000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_appears_below_one_already_seen_whatever_the_clocks_say() {
    let database = TestDatabase::new().await;
    let instances = two_instances(&database, TimeDelta::seconds(5), TimeDelta::seconds(-5)).await;

    readers_miss_nothing_that_these_store(&database, &instances).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_id_appears_below_one_already_seen_while_an_old_snapshot_is_held() {
    let database = TestDatabase::new().await;
    // Far enough apart that the bound on bad clocks takes part.
    let instances = two_instances(&database, TimeDelta::hours(1), TimeDelta::hours(-1)).await;
    let pool = database.pool().await;
    let mut old = pool.begin_with("begin isolation level repeatable read").await.unwrap();
    let count = "select count(*) from tidings.notification";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *old).await.unwrap(), 0);

    readers_miss_nothing_that_these_store(&database, &instances).await;

    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *old).await.unwrap(), 0);
}

/// What the tests above would find if ids were made by the senders: the same reader, a plain insert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_reader_loses_rows_of_a_naive_insert() {
    let database = TestDatabase::empty().await;
    let pool = database.pool().await;
    sqlx::raw_sql("create table naive (id uuid primary key)").execute(&pool).await.unwrap();

    eventually("the reader loses a row", async || {
        let done = CancellationToken::new();
        let writers = async {
            join_all((0..8).map(|number| insert_naively(&pool, number % 4))).await;
            done.cancel();
        };
        let (reader, ()) = tokio::join!(follow(&pool, "naive", 100, &done), writers);
        let stored = all_ids(&pool, "naive").await;
        assert!(reader.seen.is_sorted());
        stored.iter().any(|id| !reader.seen.contains(id))
    })
    .await;
}

#[tokio::test]
async fn an_instance_a_year_ahead_gives_out_ids_of_the_databases_time() {
    let app = TestApp::with(|c| c.limits.clock = Clock::wrong_by(TimeDelta::days(365))).await;

    let id: EventId = app.send("shop/ada", "1").await.id.parse().unwrap();

    let now = Clock::default().now().timestamp_millis() as u64;
    assert!(id.ms() <= now && id.ms() > now - 60_000, "{} at {now}", id.ms());
}

#[tokio::test]
async fn a_database_a_year_ahead_pushes_ids_ten_minutes_ahead_and_no_further() {
    // Seen from an instance that is a year behind, the database is a year ahead.
    let clock = Clock::wrong_by(TimeDelta::days(-365));
    let app = TestApp::with(|c| c.limits.clock = clock).await;
    let before = clock.now().timestamp_millis() as u64;

    let id: EventId = app.send("shop/ada", "1").await.id.parse().unwrap();

    let bound = 600_000;
    let after = clock.now().timestamp_millis() as u64;
    assert!((before + bound..=after + bound).contains(&id.ms()), "{} at {after}", id.ms());
}

#[tokio::test]
async fn ids_go_on_from_the_last_one_when_a_clock_is_behind_it() {
    let app = TestApp::start().await;
    let first: EventId = app.send("shop/ada", "1").await.id.parse().unwrap();
    let behind = Clock::wrong_by(TimeDelta::days(-365));
    let other = TestApp::on(app.database.clone(), |c| c.limits.clock = behind).await;

    let second: EventId = other.send("shop/ada", "2").await.id.parse().unwrap();

    assert_eq!(second.position(), first.position() + 1);
}

async fn two_instances(
    database: &TestDatabase,
    ahead: TimeDelta,
    behind: TimeDelta,
) -> [TestApp; 2] {
    let instance = async |wrong_by| {
        let clock = Clock::wrong_by(wrong_by);
        TestApp::on(database.clone(), |config| config.limits.clock = clock).await
    };
    [instance(ahead).await, instance(behind).await]
}

/// Sends concurrently through both instances with readers of the table beside them.
async fn readers_miss_nothing_that_these_store(database: &TestDatabase, instances: &[TestApp; 2]) {
    let pool = database.pool().await;
    let done = CancellationToken::new();
    let senders = async {
        let sent = join_all((0..SENDERS).map(|number| {
            let instance = &instances[number % 2];
            async move { instance.send_many(&format!("shop/user-{number}"), SENDS_EACH).await }
        }));
        let sent = sent.await;
        done.cancel();
        sent
    };
    let readers = READ_LIMITS.map(|limit| follow(&pool, "tidings.notification", limit, &done));
    let (sent, readers) = tokio::join!(senders, join_all(readers));

    let stored = all_ids(&pool, "tidings.notification").await;
    let mut acknowledged: Vec<Uuid> =
        sent.iter().flatten().map(|sent| sent.id.parse::<EventId>().unwrap().into()).collect();
    acknowledged.sort();
    assert_eq!(acknowledged, stored);
    for (reader, limit) in readers.into_iter().zip(READ_LIMITS) {
        assert!(reader.pages >= 10, "the reader of {limit} was not beside the senders");
        assert!(
            reader.seen == stored,
            "the reader of {limit} missed {} of {}",
            stored.len() - reader.seen.len(),
            stored.len()
        );
    }
    for sent in sent {
        assert!(sent.is_sorted_by(|a, b| a.id < b.id), "ids of one sender, one after the other");
    }
}

struct Reader {
    seen: Vec<Uuid>,
    /// Reads that found something.
    pages: usize,
}

/// Reads on behind its own cursor, as the feed and every client does, until nothing is left.
async fn follow(pool: &PgPool, table: &str, limit: i64, done: &CancellationToken) -> Reader {
    let query = format!("select id from {table} where id > $1 order by id limit $2");
    let mut reader = Reader { seen: Vec::new(), pages: 0 };
    loop {
        // Before the read: only then does it find all that was stored before.
        let last = done.is_cancelled();
        let cursor = reader.seen.last().copied().unwrap_or(Uuid::nil());
        let page: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(query.clone()))
            .bind(cursor)
            .bind(limit)
            .fetch_all(pool)
            .await
            .unwrap();
        if page.is_empty() && last {
            return reader;
        }
        reader.pages += usize::from(!page.is_empty());
        reader.seen.extend(page);
    }
}

/// A ULID made here, by a clock that is right, in a transaction that is longer for some writers.
async fn insert_naively(pool: &PgPool, round_trips: usize) {
    for _ in 0..50 {
        let mut transaction = pool.begin().await.unwrap();
        let ms = Clock::default().now().timestamp_millis() as u64;
        let id = Uuid::from(Ulid::from_parts(ms, fastrand::u128(..)));
        let insert = sqlx::query("insert into naive values ($1)").bind(id);
        insert.execute(&mut *transaction).await.unwrap();
        for _ in 0..round_trips {
            sqlx::query("select 1").execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

async fn all_ids(pool: &PgPool, table: &str) -> Vec<Uuid> {
    let query = format!("select id from {table} order by id");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(pool).await.unwrap()
}
