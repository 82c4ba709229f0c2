//! Restores and failovers. A database that went back in time is noticed on the first connection that
//! could append to it or read the feed, before it does (ARCHITECTURE.md, "Epochs").

use std::sync::{Mutex, MutexGuard};

use sqlx::PgConnection;

use super::{QUERY_DEADLINE, Store, StoreError, within};

/// What this instance has seen of the database: a database that has not is not the same any more.
#[derive(Debug, Default)]
pub(super) struct Seen {
    newest: Mutex<Newest>,
}

/// Under one lock: a position of an earlier epoch beside the number of a new one would look as if the
/// database had gone back once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Newest {
    position: i64,
    epoch: i32,
}

impl Default for Newest {
    /// Nothing was seen yet.
    fn default() -> Newest {
        Newest { position: 0, epoch: -1 }
    }
}

impl Seen {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().expect("no code panics while it holds this lock")
    }

    /// Compares the database behind `conn` with what was seen, and opens an epoch if it is another or
    /// has gone back.
    pub(super) async fn check(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if mutant!(RestoreUnnoticed) {
            return Ok(());
        }
        let Newest { position, epoch } = *self.newest();
        sqlx::query!("select tidings.check_epoch($1, $2)", position, epoch).execute(conn).await?;
        Ok(())
    }
}

impl Store {
    /// Remembers that the feed was read up to `position`, in `epoch`.
    pub fn note_seen(&self, position: i64, epoch: i32) {
        *self.seen.newest() = Newest { position, epoch };
    }

    /// Opens an epoch by hand, after a restore that leaves no trace. Returns its number.
    pub async fn open_epoch(&self) -> Result<i32, StoreError> {
        let mut conn = self.session("migration").await?;
        within(QUERY_DEADLINE, async {
            let row = sqlx::query!(r#"select tidings.open_epoch() as "number!""#);
            Ok(row.fetch_one(&mut conn).await?.number)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_never_stands_beside_the_number_of_another_epoch() {
        let seen = Seen::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for epoch in 0..100_000 {
                    *seen.newest() = Newest { position: -i64::from(epoch), epoch };
                }
            });
            while seen.newest().epoch < 99_999 {
                let Newest { position, epoch } = *seen.newest();
                assert!(epoch == -1 || position == -i64::from(epoch), "{position} in {epoch}");
            }
        });
    }
}
