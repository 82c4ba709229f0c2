//! A balancer like any other: round robin over the instances that answer `/readyz`, no sticky
//! sessions. If none is ready it tries them all, as real ones do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use wire::Outcome;

use super::gate::Gate;
use super::instance::is_ready;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Before all instances.
pub(crate) struct Balancer {
    pub(crate) gate: Gate,
    members: Arc<Members>,
    looking: Vec<JoinHandle<()>>,
}

struct Members {
    all: Mutex<Vec<Member>>,
    turn: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Member {
    address: SocketAddr,
    healthy: bool,
    /// Taken out by hand.
    out: bool,
}

impl Balancer {
    pub(crate) async fn open(addresses: Vec<SocketAddr>) -> Outcome<Self> {
        let all =
            addresses.iter().map(|address| Member { address: *address, healthy: true, out: false });
        let members =
            Arc::new(Members { all: Mutex::new(all.collect()), turn: AtomicUsize::new(0) });
        let picking = members.clone();
        let gate = Gate::open(Box::new(move || picking.in_turn())).await?;
        let looking = addresses.into_iter().enumerate().map(|(number, address)| {
            let members = members.clone();
            tokio::spawn(async move {
                loop {
                    let healthy = is_ready(address).await;
                    members.change(number, |member| member.healthy = healthy);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            })
        });
        Ok(Self { gate, looking: looking.collect(), members })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gate.address
    }

    /// Sends it no more clients, or some again.
    pub(crate) fn take_out(&self, instance: usize, out: bool) {
        self.members.change(instance, |member| member.out = out);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.looking.iter().for_each(JoinHandle::abort);
    }
}

impl Members {
    fn change(&self, number: usize, change: impl FnOnce(&mut Member)) {
        change(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner)[number]);
    }

    /// Whom to try, beginning with the one whose turn it is.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let candidates: Vec<Member> = all.into_iter().filter(|member| !member.out).collect();
        let healthy: Vec<Member> =
            candidates.iter().filter(|member| member.healthy).copied().collect();
        let mut chosen = if healthy.is_empty() { candidates } else { healthy };
        if !chosen.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % chosen.len();
            chosen.rotate_left(turn);
        }
        chosen.into_iter().map(|member| member.address).collect()
    }
}
