//! Senders by SQL: an application that calls `tidings.send` and its like in its own transactions, some
//! of which it rolls back. It speaks to Postgres past the gates: those are about the instances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use wire::Outcome;

use crate::cluster::Cluster;
use crate::compose::Composed;
use crate::history::{Event, SendNumber};
use crate::senders::Office;

const LONGEST_PAUSE: u64 = 200; // ms
const RETRY: Duration = Duration::from_millis(100);
/// A transaction that waits for a synchronous standby waits as long as the standby is gone.
const PATIENCE: Duration = Duration::from_secs(60);
const ROLLED_BACK_IN: u32 = 4;
/// Until the last of it is in the feed.
const DRAINED: Duration = Duration::from_secs(60);

/// Whether this version can be sent to by SQL.
pub(crate) async fn are_possible(cluster: &Cluster) -> Outcome<bool> {
    let mut connection = cluster.postgres().connect().await?;
    let found = sqlx::query_scalar("select to_regproc('tidings.send_everyone') is not null");
    Ok(found.fetch_one(&mut connection).await?)
}

/// One session that sends, one transaction after the other.
pub(crate) struct SqlSender {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) office: Arc<Office>,
    /// Of all senders.
    pub(crate) number: usize,
    pub(crate) rng: Rng,
}

impl SqlSender {
    /// Sends until `stop`, and waits until the last of it is in the feed.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut last = None;
        while !stop.is_cancelled() {
            let Ok(mut session) = self.cluster.postgres().connect().await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            while !stop.is_cancelled() {
                let send = Composed::sql(self.office.next_number(), &mut self.rng);
                match self.deliver(&mut session, &send).await {
                    Ok(true) => last = Some(send.number),
                    Ok(false) => {}
                    Err(_) => break,
                }
                tokio::time::sleep(Duration::from_millis(self.rng.u64(..LONGEST_PAUSE))).await;
            }
        }
        if let Some(last) = last {
            self.drained(last).await;
        }
    }

    /// True: committed. An error means that the connection is of no more use.
    async fn deliver(&mut self, session: &mut PgConnection, send: &Composed) -> Outcome<bool> {
        let Composed { number, app, way, key, event, rows, .. } = send.clone();
        let recorder = &self.office.recorder;
        let sender = self.number;
        let app = app.to_owned();
        let (by, fleeting) = (way, send.is_fleeting());
        recorder.note(Event::Send { send: number, sender, app, by, key, event, rows, fleeting });
        let (send_number, attempt) = (number, 1);
        recorder.note(Event::Attempt { send: number, attempt, to: "postgres".to_owned() });
        let commit = self.rng.u32(..ROLLED_BACK_IN) != 0;
        let made = tokio::time::timeout(PATIENCE, transaction(session, send, commit)).await;
        let broke = match made {
            Ok(Ok(())) => {
                let status = if commit { 201 } else { 0 };
                let (ids, problem) = (Vec::new(), None);
                recorder.note(Event::Answer { send: send_number, attempt, status, ids, problem });
                return Ok(commit);
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {PATIENCE:?}").into(),
        };
        recorder.note(Event::Broke { send: send_number, attempt, how: broke.to_string() });
        Err(broke)
    }

    async fn drained(&self, last: SendNumber) {
        let began = Instant::now();
        while began.elapsed() < DRAINED {
            if let Ok(true) = is_in_the_feed(&self.cluster, last).await {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn transaction(session: &mut PgConnection, send: &Composed, commit: bool) -> Outcome<()> {
    sqlx::raw_sql("begin").execute(&mut *session).await?;
    for (audience, data) in &send.rows {
        let (kind, name) = audience.split_once(':').unwrap_or((audience, ""));
        let call = match kind {
            "user" => sqlx::query("select tidings.send($1, $4, $2::json, $3)")
                .bind(send.app)
                .bind(data)
                .bind(&send.event)
                .bind(name),
            "topic" => sqlx::query("select tidings.send_topic($1, $4, $2::json, $3)")
                .bind(send.app)
                .bind(data)
                .bind(&send.event)
                .bind(name),
            _ => sqlx::query("select tidings.send_everyone($1, $2::json, $3)")
                .bind(send.app)
                .bind(data)
                .bind(&send.event),
        };
        call.execute(&mut *session).await?;
    }
    sqlx::raw_sql(if commit { "commit" } else { "rollback" }).execute(&mut *session).await?;
    Ok(())
}

async fn is_in_the_feed(cluster: &Cluster, send: SendNumber) -> Outcome<bool> {
    let mut connection = cluster.postgres().connect().await?;
    let found = sqlx::query_scalar(
        "select exists (select from tidings.notification where strpos(data::text, $1) = 1)",
    );
    Ok(found.bind(format!(r#"{{"n":{send},"#)).fetch_one(&mut connection).await?)
}
