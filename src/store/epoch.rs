//! Restores and failovers. A database that went back in time is noticed on the first connection that
//! could append to it or read the feed, before it does (ARCHITECTURE.md, "Epochs").

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use sqlx::PgConnection;

use super::{QUERY_DEADLINE, Store, StoreError, within};

/// What this instance has seen of the database: a database that has not is not the same any more.
#[derive(Debug)]
pub(super) struct Seen {
    position: AtomicI64,
    /// Below zero: nothing was seen yet.
    epoch: AtomicI32,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { position: AtomicI64::new(0), epoch: AtomicI32::new(-1) }
    }
}

impl Seen {
    /// Compares the database behind `conn` with what was seen, and opens an epoch if it is another or
    /// has gone back.
    pub(super) async fn check(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if mutant!(RestoreUnnoticed) {
            return Ok(());
        }
        let position = self.position.load(Ordering::Acquire);
        let epoch = self.epoch.load(Ordering::Acquire);
        sqlx::query!("select tidings.check_epoch($1, $2)", position, epoch).execute(conn).await?;
        Ok(())
    }
}

impl Store {
    /// Remembers that the feed was read up to `position`, in `epoch`.
    pub fn note_seen(&self, position: i64, epoch: i32) {
        // The epoch last: with a position of an earlier one it is never compared.
        self.seen.position.store(position, Ordering::Release);
        self.seen.epoch.store(epoch, Ordering::Release);
    }

    /// Opens an epoch by hand, after a restore that leaves no trace. Returns its number.
    pub async fn open_epoch(&self) -> Result<i32, StoreError> {
        let mut conn = self.session().await?;
        within(QUERY_DEADLINE, async {
            let row = sqlx::query!(r#"select tidings.open_epoch() as "number!""#);
            Ok(row.fetch_one(&mut conn).await?.number)
        })
        .await
    }
}
