//! What a pooler between Tidings and Postgres changes. In transaction mode it lends a connection for one
//! transaction at a time: LISTEN seems to succeed and hears nothing, settings and prepared statements
//! are met by others, and a backend's pid says nothing about the next call. So sessions of our own are
//! checked when they are opened, and reads that may go through such a pooler keep to what it can.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    ConnectOptions, Connection, Either, Execute, Executor, PgConnection, Postgres, Row, SqlStr,
};

use super::identity::Identity;
use super::settings::BEGIN_REQUEST;
use super::{QUERY_DEADLINE, Store, StoreError, within};

/// Connections that hold a backend while another one is asked for its own.
const HOLDERS: usize = 2;
/// What a pooler answers to `begin` in statement mode.
const PROTOCOL_VIOLATION: &str = "08P01";

impl Store {
    /// Refuses a connection whose backend is given to others between its transactions.
    ///
    /// It asks for its backend, others hold theirs in open transactions, and it asks again: a pooler
    /// that lends has by now lent the first backend to a holder, or another one to us, whichever way
    /// it picks them. On a connection of our own neither can happen.
    pub(super) async fn check_own(&self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let lent = within(QUERY_DEADLINE, async {
            let own = backend_pid(conn).await?;
            let mut holders = Vec::with_capacity(HOLDERS);
            while holders.len() < HOLDERS {
                let mut holder = match self.direct.connect().await {
                    // No room to ask. The next session asks again.
                    Err(sqlx::Error::Database(e)) if is_full(&*e) => break,
                    connected => connected?,
                };
                match sqlx::raw_sql("begin").execute(&mut holder).await {
                    Err(sqlx::Error::Database(e))
                        if e.code().as_deref() == Some(PROTOCOL_VIOLATION) =>
                    {
                        return Ok(true);
                    }
                    begun => begun?,
                };
                if backend_pid(&mut holder).await? == own || backend_pid(conn).await? != own {
                    return Ok(true);
                }
                holders.push(holder);
            }
            for holder in holders {
                holder.close().await?;
            }
            Ok(false)
        })
        .await?;
        if lent { Err(StoreError::LentConnection) } else { Ok(()) }
    }

    /// Runs a read for a request, which may go through a pooler.
    pub(super) async fn request<T>(
        &self,
        query: impl AsyncFnOnce(Reader<'_>) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        if !self.pooled {
            let reader = async |conn: &mut _| query(Reader { conn, named: true }).await;
            return self.read(&self.requests, reader).await;
        }
        let mut lease = self.lease(&self.requests).await?;
        let answer = within(QUERY_DEADLINE, async {
            let conn = lease.conn();
            // sqlx prepares in one exchange and executes in the next: without a transaction around
            // both, another's statement could be executed on another backend.
            let identity = Identity::after(BEGIN_REQUEST, conn).await?;
            // A pooler can be pointed at another database under its clients.
            if let Err(error) = self.check_identity(identity) {
                return Ok(Err(error));
            }
            let answer = query(Reader { conn: &mut *conn, named: false }).await?;
            sqlx::raw_sql("commit").execute(conn).await?;
            Ok(Ok(answer))
        });
        let answer = answer.await??;
        lease.end();
        Ok(answer)
    }
}

/// Class 53: too many connections.
fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("53"))
}

/// The backend behind a connection now, asked in one exchange and without a prepared statement.
pub(super) async fn backend_pid(conn: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(conn).await?.try_get(0)
}

/// A connection whose statements have names only if it is our own: named ones outlive a transaction,
/// and the pooler's next client would meet them.
#[derive(Debug)]
pub(super) struct Reader<'c> {
    conn: &'c mut PgConnection,
    named: bool,
}

impl<'c> Executor<'c> for Reader<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.conn.fetch_many(Statement { query, named: self.named })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.conn.fetch_optional(Statement { query, named: self.named })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.conn.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        self.conn.describe(sql)
    }
}

struct Statement<E> {
    query: E,
    named: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Statement<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.query.persistent()
    }
}
