//! Which database a connection leads to. A pooler and `TIDINGS_DIRECT_DATABASE_URL` make two ways, and by
//! mistake they may lead to two databases: sends would be stored in one, and histories read from the
//! other.

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::{CONNECT_DEADLINE, QUERY_DEADLINE, Store, StoreError, within};

/// A failover changes neither number. Names and hosts would not do: through a pooler the same database
/// has others.
const IDENTITY: &str = "select c.system_identifier, d.oid::bigint
    from pg_control_system() c, pg_database d where d.datname = current_database()";

/// A cluster and a database in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    cluster: i64,
    database: i64,
}

impl Identity {
    /// Asks right after some other statements, in one exchange and without a prepared statement: as a
    /// pooler can do it.
    pub(super) async fn after(
        statements: &'static str,
        conn: &mut PgConnection,
    ) -> sqlx::Result<Identity> {
        let sql = AssertSqlSafe(format!("{statements}; {IDENTITY}"));
        let row = sqlx::raw_sql(sql).fetch_one(conn).await?;
        Ok(Identity { cluster: row.try_get(0)?, database: row.try_get(1)? })
    }
}

impl Store {
    /// Remembers where our sessions lead: the newest is right, since a restore can move them to another
    /// database.
    pub(super) fn note_identity(&self, identity: Identity) {
        *self.identity.lock().expect("nothing panics under it") = Some(identity);
    }

    /// Refuses a database that is not the one of our sessions.
    pub(super) fn check_identity(&self, identity: Identity) -> Result<(), StoreError> {
        match *self.identity.lock().expect("nothing panics under it") {
            Some(own) if own == identity => Ok(()),
            Some(_) => Err(StoreError::OtherDatabase),
            None => Err(StoreError::Unknown),
        }
    }

    /// The same before anything is served. Not on the pool, which would not say why it cannot connect.
    pub(super) async fn check_way_for_requests(&self) -> Result<(), StoreError> {
        let options = self.requests.connect_options();
        let mut conn = within(CONNECT_DEADLINE, options.connect()).await?;
        let identity = within(QUERY_DEADLINE, async {
            let identity = Identity::after("", &mut conn).await?;
            conn.close().await?;
            Ok(identity)
        });
        self.check_identity(identity.await?)
    }
}
