//! One Postgres cluster for the whole test binary, owned by a guard process that outlives it for as
//! long as it takes to remove it; one database per test, since NOTIFY crosses schemas.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tidings::postgres;
use tidings::store::Store;
use tokio::sync::OnceCell;

pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    /// Its standard input is what tells it that we are alive.
    _guard: Child,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static TEMPLATE: OnceCell<()> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Cluster {
    /// With these variables in the environment of its programs; of their values, `DIR` is its folder.
    pub(super) fn start(variables: &[(&str, &str)]) -> Cluster {
        let programs = postgres::find_programs(None, None).expect("the distribution's Postgres");
        let owner = postgres::unprivileged_user(None).expect("a user to run Postgres as");
        let dir = std::env::temp_dir().join(format!(
            "tidings-test-{}-{}",
            std::process::id(),
            fastrand::u32(..)
        ));
        std::fs::create_dir(&dir).expect("a folder for the test cluster");
        let mut guard = Command::new("sh");
        guard
            .arg("-c")
            .arg(include_str!("guard.sh"))
            .arg("guard")
            .args([&dir, &programs.initdb, &programs.postgres])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        for (name, value) in variables {
            guard.env(name, value.replace("DIR", dir.to_str().expect("UTF-8")));
        }
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&dir, Some(owner.uid), Some(owner.gid))
                .expect("chown as root");
            guard.uid(owner.uid).gid(owner.gid);
        }
        let mut guard = guard.spawn().expect("a shell");
        let stdout = guard.stdout.take().expect("piped above");
        let line = BufReader::new(stdout).lines().next();
        assert!(
            matches!(&line, Some(Ok(line)) if line == "ready"),
            "the test cluster did not start: {line:?}"
        );
        Cluster { dir, _guard: guard }
    }

    pub(super) fn url(&self, database: &str) -> String {
        let socket = percent_encoding::utf8_percent_encode(
            self.dir.to_str().expect("UTF-8"),
            percent_encoding::NON_ALPHANUMERIC,
        );
        format!("postgres://tidings@localhost/{database}?host={socket}")
    }
}

/// A database of its own for one test.
#[derive(Clone, Debug)]
pub struct TestDatabase {
    pub name: String,
    pub url: String,
}

impl TestDatabase {
    /// With the schema and its partitions.
    pub async fn new() -> TestDatabase {
        TEMPLATE
            .get_or_init(async || {
                let template = TestDatabase::create("tidings_template", "template0").await;
                let store = Store::new(&template.url, None).expect("our own URL");
                store.migrate().await.expect("the migrations run");
                let maintenance = store.maintenance().await.expect("a session");
                let mut maintenance = maintenance.expect("nobody else is there");
                maintenance.extend_partitions().await.expect("partitions are made");
                maintenance.end().await;
                store.close().await;
            })
            .await;
        TestDatabase::create(&TestDatabase::next_name(), "tidings_template").await
    }

    /// With nothing in it.
    pub async fn empty() -> TestDatabase {
        TestDatabase::create(&TestDatabase::next_name(), "template0").await
    }

    fn next_name() -> String {
        format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    async fn create(name: &str, template: &str) -> TestDatabase {
        let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_init(|| Cluster::start(&[])))
            .await
            .expect("the cluster");
        TestDatabase::create_in(cluster, name, template).await
    }

    pub(super) async fn create_in(cluster: &Cluster, name: &str, template: &str) -> TestDatabase {
        let mut conn =
            PgConnection::connect(&cluster.url("postgres")).await.expect("the test cluster");
        let create = format!("create database {name} template {template}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut conn).await.expect("a database");
        TestDatabase { name: name.to_owned(), url: cluster.url(name) }
    }

    /// A pool on it, for looking past the server.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.expect("the test database")
    }

    /// Ids stored for an app and audience (`user:ada`), in order.
    pub async fn ids(&self, app: &str, audience: &str) -> Vec<String> {
        let pool = self.pool().await;
        let rows: Vec<uuid::Uuid> = sqlx::query_scalar(
            "select id from tidings.notification where app = $1 and audience = $2 order by id",
        )
        .bind(app)
        .bind(audience)
        .fetch_all(&pool)
        .await
        .expect("the table");
        pool.close().await;
        rows.into_iter().map(|id| ulid::Ulid::from(id).to_string()).collect()
    }

    /// How many rows there are in all.
    pub async fn count(&self) -> i64 {
        let pool = self.pool().await;
        let count = sqlx::query_scalar("select count(*) from tidings.notification")
            .fetch_one(&pool)
            .await
            .expect("the table");
        pool.close().await;
        count
    }

    /// Runs SQL past the server.
    pub async fn run(&self, sql: &str) {
        let mut conn = PgConnection::connect(&self.url).await.expect("the test database");
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.expect(sql);
        conn.close().await.expect("an orderly end");
    }

    /// The one value of the one row that a query gives.
    pub async fn value<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let mut conn = PgConnection::connect(&self.url).await.expect("the test database");
        let value = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut conn)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        conn.close().await.expect("an orderly end");
        value
    }

    /// Appends one group as another instance would; the audience in the form of the column.
    pub async fn append(&self, app: &str, audience: &str, datas: &[&str]) {
        let mut conn = PgConnection::connect(&self.url).await.expect("the test database");
        let column = |text: &str| vec![text.to_owned(); datas.len()];
        sqlx::query(
            "call tidings.append($1, $2, array_fill(null::text, array[cardinality($3)]), $3, null, null,
                null, null, null, null, null, 7, 9e15::bigint,
                null, null, null, null, null, null, null, null, null, null)",
        )
        .bind(column(app))
        .bind(column(audience))
        .bind(datas)
        .execute(&mut conn)
        .await
        .expect("an append");
        conn.close().await.expect("an orderly end");
    }
}

/// The lane, held by a session of the test in an open transaction.
pub struct Lane {
    session: PgConnection,
}

impl Lane {
    pub async fn hold(database: &TestDatabase) -> Lane {
        let mut session = PgConnection::connect(&database.url).await.expect("the test database");
        let take = "begin; select pg_advisory_xact_lock(7463, 1)";
        sqlx::raw_sql(take).execute(&mut session).await.expect("the lane");
        Lane { session }
    }

    /// Waits until an append waits for the lane.
    pub async fn is_wanted(&mut self) {
        self.has_waiter("waitstart is not null").await;
    }

    /// Waits until one waits that began a second after the lane was taken: the wait that began at
    /// once is over.
    pub async fn is_wanted_again(&mut self) {
        // now() is when the holder's transaction began.
        self.has_waiter("waitstart > now() + interval '1 second'").await;
    }

    async fn has_waiter(&mut self, condition: &str) {
        let waiter = format!(
            "select exists (select from pg_locks
            where locktype = 'advisory' and classid = 7463 and objid = 1 and not granted
              and database = (select oid from pg_database where datname = current_database())
              and {condition})"
        );
        super::eventually("an append waits for the lane", async || {
            let waiter = sqlx::query_scalar(AssertSqlSafe(waiter.clone()));
            waiter.fetch_one(&mut self.session).await.expect("the session lives")
        })
        .await;
    }

    /// The session still lives.
    pub async fn is_held(&mut self) -> bool {
        sqlx::query("select 1").execute(&mut self.session).await.is_ok()
    }

    /// Lets the appends go on.
    pub async fn give_back(mut self) {
        sqlx::query("commit").execute(&mut self.session).await.expect("the session still lives");
    }
}
