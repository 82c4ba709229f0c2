//! Faults of Postgres itself.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::PgConnection;
use wire::Outcome;

use super::{Effect, Fault};
use crate::cluster::{Cluster, IN_SYNC, send_signal};

const SOON: Duration = Duration::from_secs(30);
const DUMP: Duration = Duration::from_secs(60);

pub(super) async fn terminate_listeners(cluster: &Cluster) -> Outcome<Effect> {
    // After another fault they may still be on their way.
    let listening = "select exists (select from pg_stat_activity
        where application_name = 'tidings listener' and query ilike 'listen%')";
    cluster.postgres().becomes_true(listening).await?;
    let mut connection = cluster.postgres().connect().await?;
    let pids: Vec<i32> = sqlx::query_scalar(
        "select pid from pg_stat_activity
        where application_name = 'tidings listener' and query ilike 'listen%'",
    )
    .fetch_all(&mut connection)
    .await?;
    if pids.is_empty() {
        return Err("no listener was connected".into());
    }
    // In a statement of its own: as a condition it might be asked of any backend first.
    sqlx::query("select pg_terminate_backend(pid) from unnest($1) pid")
        .bind(&pids)
        .execute(&mut connection)
        .await?;
    are_gone(&mut connection, &pids).await?;
    Ok(Effect { observed: format!("backends {pids:?} are gone"), connections: pids.len() })
}

async fn are_gone(connection: &mut PgConnection, pids: &[i32]) -> Outcome<()> {
    let began = Instant::now();
    while began.elapsed() < SOON {
        let left: i64 =
            sqlx::query_scalar("select count(*) from pg_stat_activity where pid = any($1)")
                .bind(pids)
                .fetch_one(&mut *connection)
                .await?;
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("of the backends {pids:?} some are still there").into())
}

pub(super) async fn kill_backend(cluster: &Cluster, dice: usize) -> Outcome<Effect> {
    let mut connection = cluster.postgres().connect().await?;
    let pids: Vec<i32> = sqlx::query_scalar(
        "select pid from pg_stat_activity where application_name like 'tidings %'",
    )
    .fetch_all(&mut connection)
    .await?;
    if pids.is_empty() {
        return Err("no instance was connected to Postgres".into());
    }
    let pid = pids[dice % pids.len()];
    send_signal(u32::try_from(pid)?, Signal::KILL)?;
    let began = Instant::now();
    // Postgres ends all other backends too, ours among them, since shared memory may be damaged.
    while sqlx::raw_sql("select 1").execute(&mut connection).await.is_ok() {
        if began.elapsed() > SOON {
            return Err(format!("Postgres did not notice that backend {pid} was killed").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let observed = format!("backend {pid} was killed, and Postgres ended the others");
    Ok(Effect { observed, connections: pids.len() })
}

pub(super) async fn stop(cluster: &Cluster, fault: Fault) -> Outcome<Effect> {
    let signal = match fault {
        Fault::PostgresFast => Signal::INT,
        Fault::PostgresImmediate => Signal::QUIT,
        _ => Signal::KILL,
    };
    let connections = cluster.database_connections();
    let status = cluster.postgres().end(signal).await?;
    match cluster.postgres().connect().await {
        Ok(_) => Err("Postgres still lets us in".into()),
        Err(error) => {
            let observed = format!("the postmaster is gone ({status}); connecting fails: {error}");
            Ok(Effect { observed, connections })
        }
    }
}

pub(super) async fn start(cluster: &Cluster) -> Outcome<()> {
    cluster.postgres().start().await?;
    is_back(cluster).await
}

/// It lets us in, and if it has a standby, that has found it again: before, nothing can be committed.
pub(super) async fn is_back(cluster: &Cluster) -> Outcome<()> {
    cluster.postgres().is_back().await?;
    match cluster.standby() {
        Ok(_) => cluster.postgres().becomes_true(IN_SYNC).await,
        Err(_) => Ok(()),
    }
}

pub(super) async fn dump(cluster: &Cluster) -> Outcome<Effect> {
    let mut command = cluster.postgres().command("pg_dump")?;
    command.args(cluster.postgres().arguments()).args(["-f", "/dev/null"]);
    let mut connection = cluster.postgres().connect().await?;
    let mut dump = cluster.guard.spawn(&mut command)?;
    let mut seen = false;
    while dump.has_ended()?.is_none() && !seen {
        seen = sqlx::query_scalar(
            "select exists (select from pg_stat_activity
                where application_name = 'pg_dump' and backend_xmin is not null)",
        )
        .fetch_one(&mut connection)
        .await?;
    }
    let status = dump.ended(DUMP).await?;
    if !seen || !status.success() {
        return Err(format!("the dump was not seen at work, or failed: {status}").into());
    }
    Ok(Effect {
        observed: "its backend was seen with a snapshot, and it ended well".to_owned(),
        connections: 0,
    })
}
