//! Faults of what Postgres stands on: its clock and its disk.

use std::time::{Duration, Instant};

use sqlx::Connection;
use wire::Outcome;

use super::Effect;
use crate::cluster::Cluster;

const SOON: Duration = Duration::from_secs(10);
const FULL: &str = "No space left on device";

pub(super) async fn move_clock(cluster: &Cluster, seconds: i64) -> Outcome<Effect> {
    let postgres = cluster.postgres();
    let clock = postgres.clock().ok_or("its clock cannot be moved")?;
    let before = time(cluster).await?;
    clock.move_by(seconds)?;
    let began = Instant::now();
    while began.elapsed() < SOON {
        let moved = time(cluster).await? - before;
        // Half of it is far more than the time that passes meanwhile.
        if moved.signum() == seconds.signum() && moved.abs() > seconds.abs() / 2 {
            let observed = format!("clock_timestamp() moved by {moved} s");
            return Ok(Effect { observed, connections: cluster.database_connections() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("its clock did not move by {seconds} s within {SOON:?}").into())
}

pub(super) async fn set_clock_right(cluster: &Cluster) -> Outcome<()> {
    let clock = cluster.postgres().clock().ok_or("its clock cannot be moved")?;
    clock.move_by(0)?;
    // Every process has noticed after a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    Ok(())
}

async fn time(cluster: &Cluster) -> Outcome<i64> {
    let mut connection = cluster.postgres().connect().await?;
    let now = sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(now)
}

pub(super) async fn fill_disk(cluster: &Cluster) -> Outcome<Effect> {
    let postgres = cluster.postgres();
    let disk = postgres.disk().ok_or("it has no small disk")?;
    let said_before = postgres.log()?.len();
    let filled = disk.fill()?;
    let began = Instant::now();
    while began.elapsed() < SOON {
        let log = postgres.log()?;
        if let Some(line) = log[said_before..].lines().find(|line| line.contains(FULL)) {
            let observed = format!("{filled} bytes filled it; Postgres says: {line}");
            return Ok(Effect { observed, connections: cluster.database_connections() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("no write was refused within {SOON:?}").into())
}

pub(super) async fn free_disk(cluster: &Cluster) -> Outcome<()> {
    let postgres = cluster.postgres();
    postgres.disk().ok_or("it has no small disk")?.free()?;
    // If it was the WAL that could not grow, Postgres has given up.
    postgres.start().await
}
