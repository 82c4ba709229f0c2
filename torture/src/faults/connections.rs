//! Faults of the connections between the instances and Postgres, made by the gates between them.

use std::time::Duration;

use wire::Outcome;

use super::{Effect, Fault};
use crate::cluster::{Cluster, Mode, Strike, connect_through};

/// Some append comes sooner than that.
const NEXT_APPEND: Duration = Duration::from_secs(30);
/// An answer would have come sooner than that.
const NO_ANSWER: Duration = Duration::from_millis(150);

pub(super) async fn strike(cluster: &Cluster, number: usize, fault: Fault) -> Outcome<Effect> {
    let (strike, what) = match fault {
        Fault::WriterCallLost => (Strike::LoseCall, "a call was dropped and its connection reset"),
        Fault::WriterAnswerLost => {
            (Strike::LoseAnswer, "a call was passed on and its answer dropped")
        }
        Fault::WriterFrozen => (Strike::FreezeAfterCall, "a call was passed on, then nothing more"),
        _ => (Strike::CutAfterCall, "a call was passed on and its connection reset"),
    };
    if !cluster.gates[number].strike(strike, NEXT_APPEND).await {
        return Err(format!("instance {number} appended nothing within {NEXT_APPEND:?}").into());
    }
    Ok(Effect { observed: format!("instance {number}: {what}"), connections: 1 })
}

pub(super) async fn reset(cluster: &Cluster) -> Outcome<Effect> {
    let mut connections = 0;
    for gate in &cluster.gates {
        connections += gate.cut(None).await;
    }
    if connections == 0 {
        return Err("no instance was connected to Postgres".into());
    }
    Ok(Effect { observed: "sockets were reset on both sides".to_owned(), connections })
}

pub(super) async fn freeze(cluster: &Cluster, instance: Option<usize>) -> Outcome<Effect> {
    let gates = match instance {
        Some(number) => &cluster.gates[number..=number],
        None => &cluster.gates[..],
    };
    for gate in gates {
        gate.set(Mode::Frozen);
    }
    let connections = gates.iter().map(|gate| gate.passing(None)).sum();
    if connections == 0 {
        return Err("no instance was connected to Postgres".into());
    }
    match tokio::time::timeout(NO_ANSWER, connect_through(&gates[0])).await {
        Err(_) => Ok(Effect { observed: "a new connection got no answer".to_owned(), connections }),
        Ok(answered) => Err(format!("a new connection was answered: {answered:?}").into()),
    }
}

pub(super) async fn refuse(cluster: &Cluster) -> Outcome<Effect> {
    let connections = cut_all(cluster).await;
    match connect_through(&cluster.gates[0]).await {
        Err(error) => {
            Ok(Effect { observed: format!("a new connection failed: {error}"), connections })
        }
        Ok(_) => Err("a new connection was accepted".into()),
    }
}

/// Resets all connections, and every new one.
pub(super) async fn cut_all(cluster: &Cluster) -> usize {
    let mut connections = 0;
    for gate in &cluster.gates {
        gate.set(Mode::Refuse);
        connections += gate.cut(None).await;
    }
    connections
}

pub(super) fn let_pass(cluster: &Cluster) {
    for gate in &cluster.gates {
        gate.thaw();
        gate.set(Mode::Pass);
    }
}
