//! Faults of a synchronous standby: it goes away, and it takes over.

use std::process::ExitStatus;

use rustix::process::Signal;
use sqlx::PgConnection;
use wire::Outcome;

use super::Effect;
use super::connections::{cut_all, let_pass};
use crate::cluster::{Cluster, IN_SYNC, Mode, Postgres, send_signal};

pub(super) async fn stop_standby(cluster: &Cluster) -> Outcome<Effect> {
    let status = cluster.standby()?.end(Signal::QUIT).await?;
    cluster.postgres().becomes_true("select not exists (select from pg_stat_replication)").await?;
    let observed = format!("the standby is gone ({status}), and the primary has none left");
    Ok(Effect { observed, connections: 1 })
}

pub(super) async fn start_standby(cluster: &Cluster) -> Outcome<()> {
    cluster.standby()?.start().await?;
    cluster.postgres().becomes_true(IN_SYNC).await
}

pub(super) async fn kill_primary(cluster: &Cluster) -> Outcome<Effect> {
    cluster.standby()?;
    let (status, connections) = primary_vanishes(cluster).await?;
    Ok(Effect { observed: format!("the primary is gone ({status})"), connections })
}

/// As when its machine is gone, its connections end first: a backend that waits for the standby sees
/// that its postmaster was killed, waits no longer, and lets others see its rows before they end, too.
pub(super) async fn primary_vanishes(cluster: &Cluster) -> Outcome<(ExitStatus, usize)> {
    let connections = cut_all(cluster).await;
    cluster.readers.set(Mode::Refuse);
    cluster.readers.cut(None).await;
    Ok((cluster.postgres().end(Signal::KILL).await?, connections))
}

/// The standby takes over alone: it must not wait for one that is not there.
pub(super) async fn take_over(standby: &Postgres) -> Outcome<()> {
    let receives_nothing = "select not exists (select from pg_stat_activity
        where backend_type = 'walreceiver')";
    standby.becomes_true(receives_nothing).await?;
    standby.promote().await?;
    standby.becomes_true("select not pg_is_in_recovery()").await
}

pub(super) async fn promote(cluster: &Cluster) -> Outcome<()> {
    take_over(cluster.standby()?).await?;
    cluster.switch();
    let_pass(cluster);
    cluster.readers.set(Mode::Pass);
    Ok(())
}

/// The old primary becomes the new one's standby.
pub(super) async fn rebuild_standby(cluster: &Cluster) -> Outcome<()> {
    let (primary, standby) = (cluster.postgres(), cluster.standby()?);
    standby.follow(primary).await?;
    primary.wait_for_standbys("*").await
}

/// The process that receives stands still: for the primary the standby is there and confirms nothing.
pub(super) async fn stop_receiving(cluster: &Cluster) -> Outcome<Effect> {
    let pid = receiver(&mut cluster.standby()?.connect().await?).await?;
    send_signal(pid, Signal::STOP)?;
    let waiting = "select exists (select from pg_stat_activity
        where application_name like 'tidings %' and wait_event = 'SyncRep')";
    cluster.postgres().becomes_true(waiting).await?;
    let observed = format!("receiver {pid} stands still, and a commit waits for it");
    Ok(Effect { observed, connections: cluster.database_connections() })
}

/// The receiver is killed with what it had not read yet, so that it is lost.
pub(super) async fn fail_over_behind(cluster: &Cluster) -> Outcome<()> {
    let standby = cluster.standby()?;
    let pid = receiver(&mut standby.connect().await?).await?;
    primary_vanishes(cluster).await?;
    send_signal(pid, Signal::KILL)?;
    promote(cluster).await
}

pub(super) async fn receiver(connection: &mut PgConnection) -> Outcome<u32> {
    let pid: i32 =
        sqlx::query_scalar("select pid from pg_stat_activity where backend_type = 'walreceiver'")
            .fetch_one(connection)
            .await?;
    Ok(u32::try_from(pid)?)
}
