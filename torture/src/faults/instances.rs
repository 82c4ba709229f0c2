//! Faults of the server processes, and of what stands before them.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wire::Outcome;

use super::Effect;
use crate::cluster::Cluster;

const SOON: Duration = Duration::from_secs(30);

pub(super) async fn kill(cluster: &Cluster, number: usize) -> Outcome<Effect> {
    let killed = |status: ExitStatus| status.signal() == Some(Signal::KILL.as_raw());
    end(cluster, number, Signal::KILL, killed).await
}

pub(super) async fn terminate(cluster: &Cluster, number: usize) -> Outcome<Effect> {
    end(cluster, number, Signal::TERM, |status| status.success()).await
}

/// Without its database a server may not be able to answer all before the drain is over; then its
/// exit status is 1.
pub(super) async fn terminate_in_trouble(cluster: &Cluster, number: usize) -> Outcome<Effect> {
    end(cluster, number, Signal::TERM, |status| matches!(status.code(), Some(0 | 1))).await
}

async fn end(
    cluster: &Cluster,
    number: usize,
    signal: Signal,
    as_wanted: impl Fn(ExitStatus) -> bool,
) -> Outcome<Effect> {
    let instance = &cluster.instances[number];
    let connections = cluster.balancer.gate.passing(Some(instance.address));
    let pid = instance.signal(signal).await?;
    let status = instance.ended().await?;
    if !as_wanted(status) {
        return Err(format!("instance {number} ended with {status}").into());
    }
    Ok(Effect { observed: format!("instance {number}, pid {pid} is gone ({status})"), connections })
}

pub(super) async fn restart_all(cluster: &Cluster) -> Outcome<Effect> {
    let (mut observed, mut connections) = (Vec::new(), 0);
    for number in 0..cluster.instances.len() {
        let effect = terminate(cluster, number).await?;
        observed.push(effect.observed);
        connections += effect.connections;
        cluster.instances[number].start().await?;
    }
    Ok(Effect { observed: observed.join("; "), connections })
}

pub(super) async fn pause(cluster: &Cluster, number: usize) -> Outcome<Effect> {
    let instance = &cluster.instances[number];
    let connections = cluster.balancer.gate.passing(Some(instance.address));
    let pid = instance.signal(Signal::STOP).await?;
    let began = Instant::now();
    while began.elapsed() < SOON {
        if stands_still(pid)? {
            let observed = format!("instance {number}, pid {pid} stands still");
            return Ok(Effect { observed, connections });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("pid {pid} did not stop within {SOON:?}").into())
}

/// By its state in the process table.
fn stands_still(pid: u32) -> Outcome<bool> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(line.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

pub(super) async fn go_on(cluster: &Cluster, number: usize) -> Outcome<()> {
    cluster.instances[number].signal(Signal::CONT).await?;
    Ok(())
}

pub(super) async fn take_out(cluster: &Cluster, number: usize) -> Outcome<Effect> {
    let address = cluster.instances[number].address;
    let began = Instant::now();
    // After a restart everybody may be at the others, but somebody comes soon.
    while cluster.balancer.gate.passing(Some(address)) == 0 && began.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.balancer.take_out(number, true);
    let connections = cluster.balancer.gate.cut(Some(address)).await;
    if connections == 0 {
        return Err(format!("nobody was connected to instance {number}").into());
    }
    Ok(Effect {
        observed: format!("instance {number} is out, its connections were reset"),
        connections,
    })
}

pub(super) async fn cut_clients(cluster: &Cluster) -> Outcome<Effect> {
    let connections = cluster.balancer.gate.cut(None).await;
    if connections == 0 {
        return Err("nobody was connected".into());
    }
    Ok(Effect {
        observed: "every connection through the balancer was reset".to_owned(),
        connections,
    })
}
