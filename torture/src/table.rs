//! Looks at the table itself: readers by `id > cursor` while all goes on, as any SQL client may, and
//! the whole of it at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use wire::Outcome;

use crate::cluster::{Cluster, connect_through};
use crate::history::{Event, Recorder};

const PAUSE: Duration = Duration::from_millis(15);
/// Ends a reader that can get no further.
const LAST_LOOK: Duration = Duration::from_secs(30);

/// One that reads the table by its cursor.
pub(crate) struct Reader {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) recorder: Recorder,
    pub(crate) number: usize,
}

impl Reader {
    /// Reads until `stop`, and then to the end.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut cursor = Uuid::nil();
        let mut stopping = None;
        loop {
            if let Ok(mut connection) = connect_through(&self.cluster.readers).await {
                while let Ok(ids) = page(&mut connection, cursor).await {
                    if ids.is_empty() && stop.is_cancelled() {
                        return;
                    }
                    if let Some(last) = ids.last() {
                        cursor = *last;
                        let ids = ids.into_iter().map(ulid).collect();
                        self.recorder.note(Event::Read { reader: self.number, ids });
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if stop.is_cancelled()
                && stopping.get_or_insert_with(Instant::now).elapsed() > LAST_LOOK
            {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn page(connection: &mut PgConnection, cursor: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar("select id from tidings.notification where id > $1 order by id limit 5000")
        // A plan kept from when the table was empty would read all of it each time.
        .persistent(false)
        .bind(cursor)
        .fetch_all(connection)
        .await
}

/// Notes every row there is.
pub(crate) async fn note_all(cluster: &Cluster, recorder: &Recorder) -> Outcome<()> {
    let mut connection = cluster.postgres().connect().await?;
    let rows = sqlx::query(
        "select n.id, n.app, n.audience, n.event, n.data::text,
            -- By a clock that jumps, whatever expires may have expired at some time.
            n.expires_at is not null
                or exists (select from tidings.gone g where g.id = n.id) as gone
        from tidings.notification n order by n.id",
    )
    .fetch_all(&mut connection)
    .await?;
    for row in rows {
        recorder.note(Event::Stored {
            id: ulid(row.try_get(0)?),
            app: row.try_get(1)?,
            audience: row.try_get(2)?,
            event: row.try_get(3)?,
            data: row.try_get(4)?,
            gone: row.try_get(5)?,
        });
    }
    Ok(())
}

fn ulid(id: Uuid) -> Ulid {
    Ulid(id.as_u128())
}
