//! Looks at the table itself: the truth that the 201 answers and the streams are compared with.

use sqlx::types::Uuid;
use sqlx::{Connection, PgConnection};
use ulid::Ulid;

use crate::Outcome;

const PAGE: usize = 5000; // the limit in the queries below

/// Reads the feed of all notifications by cursor, as any SQL reader may.
pub(crate) struct Reader {
    connection: PgConnection,
    pub(crate) ids: Vec<Ulid>,
    cursor: Ulid,
}

impl Reader {
    /// Starts behind the newest notification there is.
    pub(crate) async fn at_head(database_url: &str) -> Outcome<Self> {
        let mut connection = PgConnection::connect(database_url).await?;
        let head: Option<Uuid> =
            sqlx::query_scalar("select id from tidings.notification order by id desc limit 1")
                .fetch_optional(&mut connection)
                .await?;
        let cursor = head.map_or(Ulid::nil(), ulid_of);
        Ok(Self { connection, ids: Vec::new(), cursor })
    }

    /// Reads one page; true if it was full, so that there may be more.
    pub(crate) async fn page(&mut self) -> Outcome<bool> {
        let page: Vec<Uuid> = sqlx::query_scalar(
            "select id from tidings.notification where id > $1 order by id limit 5000",
        )
        // A plan kept from when the table was empty would read all of it each time.
        .persistent(false)
        .bind(Uuid::from_u128(self.cursor.0))
        .fetch_all(&mut self.connection)
        .await?;
        self.ids.extend(page.iter().copied().map(ulid_of));
        self.cursor = self.ids.last().copied().unwrap_or(self.cursor);
        Ok(page.len() == PAGE)
    }
}

/// Every id of one app, as the table has them.
pub(crate) async fn ids_of_app(database_url: &str, app: &str) -> Outcome<Vec<Ulid>> {
    let mut connection = PgConnection::connect(database_url).await?;
    let ids: Vec<Uuid> =
        sqlx::query_scalar("select id from tidings.notification where app = $1 order by id")
            .bind(app)
            .fetch_all(&mut connection)
            .await?;
    connection.close().await?;
    Ok(ids.into_iter().map(ulid_of).collect())
}

/// Holds an old snapshot open until it is dropped, as a dump or a forgotten session does.
pub(crate) struct HeldSnapshot {
    _connection: PgConnection,
}

impl HeldSnapshot {
    pub(crate) async fn take(database_url: &str) -> Outcome<Self> {
        let mut connection = PgConnection::connect(database_url).await?;
        sqlx::raw_sql("begin isolation level repeatable read").execute(&mut connection).await?;
        // The snapshot is taken by the first query, not by `begin`.
        sqlx::raw_sql("select id from tidings.notification limit 1")
            .execute(&mut connection)
            .await?;
        Ok(Self { _connection: connection })
    }
}

fn ulid_of(id: Uuid) -> Ulid {
    Ulid(id.as_u128())
}
