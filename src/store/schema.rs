//! Migrations and partitions: what the server does to the schema by itself.

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::{Maintenance, QUERY_DEADLINE, Store, StoreError, within};

static MIGRATOR: Migrator = sqlx::migrate!();

/// How far ahead partitions are made: a dump that runs for days refuses the DDL for as long.
const DAYS_AHEAD: i32 = 7;

/// Why the schema of the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Try again later.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database was migrated by a newer version.
    #[error(
        "the database has migration {0}, which this version of tidings does not know: start the version that made it, or a newer one"
    )]
    NewerDatabase(i64),
    /// Migrating is switched off and something is missing.
    #[error(
        "the database lacks {0} migration(s) and TIDINGS_MIGRATE is off: run `tidings migrate` first"
    )]
    NotMigrated(usize),
    /// A migration itself failed.
    #[error("the database could not be migrated: {0}")]
    Migration(MigrateError),
}

impl Store {
    /// Brings the schema up to date, under a lock that lets one instance do it; older instances keep
    /// running meanwhile. Returns how many migrations were applied.
    pub async fn migrate(&self) -> Result<usize, SchemaError> {
        let mut conn = self.session("migration").await?;
        let mut missing = pending(&mut conn).await?;
        if missing > 0 {
            // Whoever has waited here finds nothing left to do. The lock goes with the session.
            let lock = sqlx::raw_sql("select pg_advisory_lock(7463, 3)").execute(&mut conn).await;
            lock.map_err(StoreError::from)?;
            missing = pending(&mut conn).await?;
        }
        if missing > 0 {
            MIGRATOR.run_direct(None, &mut conn, false).await.map_err(schema_error)?;
        }
        let _ = conn.close().await;
        Ok(missing)
    }

    /// Checks that the schema is the one this version was built for.
    pub async fn check_migrated(&self) -> Result<(), SchemaError> {
        let mut conn = self.session("migration").await?;
        match pending(&mut conn).await? {
            0 => Ok(()),
            missing => Err(SchemaError::NotMigrated(missing)),
        }
    }
}

impl Maintenance {
    /// Makes partitions ahead, and returns how many. Every wait for a table lock is short, since
    /// appends queue up behind it; the caller tries again later.
    pub async fn extend_partitions(&mut self) -> Result<i32, StoreError> {
        within(std::time::Duration::from_secs(60), async {
            sqlx::query_scalar!(r#"select tidings.extend_partitions($1) as "added!""#, DAYS_AHEAD)
                .fetch_one(&mut self.conn)
                .await
        })
        .await
    }
}

/// How many of our migrations the database lacks.
async fn pending(conn: &mut PgConnection) -> Result<usize, SchemaError> {
    let applied = tokio::time::timeout(QUERY_DEADLINE, applied(conn)).await;
    let applied = applied.map_err(|_| StoreError::Deadline(QUERY_DEADLINE))??;
    let ours = || MIGRATOR.iter().filter(|m| m.migration_type.is_up_migration());
    if let Some(newer) = applied.iter().find(|a| !ours().any(|m| m.version == a.version)) {
        return Err(SchemaError::NewerDatabase(newer.version));
    }
    Ok(ours().filter(|m| !applied.iter().any(|a| a.version == m.version)).count())
}

async fn applied(conn: &mut PgConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
    let exists =
        sqlx::query!(r#"select to_regclass('tidings._sqlx_migrations') is not null as "exists!""#)
            .fetch_one(&mut *conn)
            .await
            .map_err(StoreError::from)?
            .exists;
    match exists {
        true => conn.list_applied_migrations(&MIGRATOR.table_name).await.map_err(schema_error),
        false => Ok(Vec::new()),
    }
}

fn schema_error(error: MigrateError) -> SchemaError {
    match error {
        MigrateError::Execute(error) => SchemaError::Store(StoreError::Database(error)),
        MigrateError::VersionMissing(version) => SchemaError::NewerDatabase(version),
        other => SchemaError::Migration(other),
    }
}
