//! What a seed decides: who sends and listens, what they do, and which faults come when. The actors
//! run at the same time, so a seed repeats the decisions, not the interleaving.

use std::time::Duration;

use fastrand::Rng;

use crate::faults::Fault;

/// The same users and topics in both, so that a leak between apps has somebody to leak to.
pub(crate) const APPS: [&str; 2] = ["shop", "bank"];
/// One that has to be percent-encoded.
pub(crate) const USERS: [&str; 3] = ["ada", "bob", "eve/é"];
pub(crate) const TOPICS: [&str; 3] = ["news", "sport", "a b"];
/// Of each user, half of them steady.
const DEVICES: usize = 2;

/// Of so many faults that last, one has another within it.
const TOGETHER_IN: u32 = 3;

/// What to do, by a seed.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) instances: usize,
    pub(crate) length: Duration,
    pub(crate) senders: usize,
    pub(crate) faults: Vec<Fault>,
}

/// One fault at a time of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Another one while it lasts.
    pub(crate) within: Option<Fault>,
    /// The instance it is about, where it is about one.
    pub(crate) instance: usize,
    /// For whatever else has to be chosen.
    pub(crate) dice: usize,
    /// Quiet before it.
    pub(crate) rest: Duration,
    /// How long what it takes away stays away.
    pub(crate) hold: Duration,
}

/// A subscriber to be.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) app: &'static str,
    pub(crate) user: &'static str,
    pub(crate) topics: Vec<&'static str>,
    pub(crate) steady: bool,
}

/// Whose random numbers.
#[derive(Clone, Copy)]
pub(crate) enum Actor {
    Clients,
    Client(usize),
    Sender(usize),
    Faults,
}

impl Plan {
    /// Random numbers of one actor: what it decides does not depend on how often others decide.
    pub(crate) fn rng(&self, actor: Actor) -> Rng {
        let number = match actor {
            Actor::Clients => 0,
            Actor::Faults => 1,
            Actor::Client(number) => 1000 + number as u64,
            Actor::Sender(number) => 1_000_000 + number as u64,
        };
        // Two steps, so that neighbouring seeds and actors have nothing in common.
        Rng::with_seed(Rng::with_seed(self.seed).u64(..) ^ Rng::with_seed(number).u64(..))
    }

    /// Every user's devices in every app.
    pub(crate) fn clients(&self) -> Vec<ClientPlan> {
        let mut rng = self.rng(Actor::Clients);
        let mut clients = Vec::new();
        for app in APPS {
            for user in USERS {
                for device in 0..DEVICES {
                    let topics = TOPICS.into_iter().filter(|_| rng.bool()).collect();
                    clients.push(ClientPlan { app, user, topics, steady: device % 2 == 0 });
                }
            }
        }
        clients
    }

    /// The faults in rounds, each with all of them in an order of its own.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Planned> + Send + use<> {
        let mut rng = self.rng(Actor::Faults);
        let (instances, short) = (self.instances, self.is_short());
        let mut all = self.faults.clone();
        all.retain(|fault| !fault.is_for_the_whole_run());
        let mut round = Vec::new();
        std::iter::from_fn(move || {
            if round.is_empty() {
                round.clone_from(&all);
                rng.shuffle(&mut round);
            }
            let (rest, longest) = if short { (100..=400, 1200) } else { (300..=3000, 8000) };
            let fault = round.pop()?;
            let others: Vec<Fault> =
                all.iter().copied().filter(|other| other.may_happen_within(fault)).collect();
            let together = !short && !others.is_empty() && rng.u32(..TOGETHER_IN) == 0;
            Some(Planned {
                fault,
                within: together.then(|| others[rng.usize(..others.len())]),
                instance: rng.usize(..instances),
                dice: rng.usize(..),
                rest: Duration::from_millis(rng.u64(rest)),
                hold: Duration::from_millis(rng.u64(200..=longest)),
            })
        })
    }

    /// Too short for anything to take its time.
    pub(crate) fn is_short(&self) -> bool {
        self.length < Duration::from_secs(120)
    }
}
