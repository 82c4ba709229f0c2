//! A fault for the whole run: it goes on while others come and go, and is made again when one of them
//! has ended it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::task::JoinHandle;
use wire::Outcome;

use super::Fault;
use crate::cluster::Cluster;
use crate::history::{Event, Recorder};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Ends when it is dropped.
pub(crate) struct Background {
    holding: JoinHandle<()>,
}

impl Background {
    /// Holds a snapshot from now on.
    pub(crate) fn hold_snapshot(cluster: Arc<Cluster>, recorder: Recorder, fault: usize) -> Self {
        let holding = tokio::spawn(async move {
            let name = Fault::HeldSnapshot.name().to_owned();
            recorder.note(Event::Inject { fault, name, in_flight: 0 });
            loop {
                if let Ok((mut holder, observed)) = take(&cluster).await {
                    recorder.note(Event::Effect { fault, observed, connections: 0 });
                    while sqlx::raw_sql("select 1").execute(&mut holder).await.is_ok() {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { holding }
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.holding.abort();
        while !self.holding.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

async fn take(cluster: &Cluster) -> Outcome<(PgConnection, String)> {
    let mut holder = cluster.postgres().connect().await?;
    sqlx::raw_sql("begin isolation level repeatable read").execute(&mut holder).await?;
    // The snapshot is taken by the first query, not by `begin`.
    sqlx::raw_sql("select id from tidings.notification limit 1").execute(&mut holder).await?;
    let xmin: String = sqlx::query_scalar(
        "select backend_xmin::text from pg_stat_activity where pid = pg_backend_pid()",
    )
    .fetch_one(&mut holder)
    .await?;
    Ok((holder, format!("a snapshot holds transaction {xmin} and later ones back")))
}
