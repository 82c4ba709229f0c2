//! Long ways at random, where there are too many to try all; one that fails is shortened.

use fastrand::Rng;

use super::scenario::{Act, Scenario};
use super::search::{Failure, calm_down};
use super::subscriber::Broken;
use super::world::World;

/// Goes one way to its end, or to where it fails.
pub(super) fn walk(scenario: &Scenario, seed: u64) -> Result<usize, Box<Failure>> {
    let mut rng = Rng::with_seed(seed);
    let (mut world, mut acts) = (World::new(scenario), Vec::new());
    while acts.len() < scenario.most_steps
        && let Some(act) = rng.choice(world.enabled())
    {
        acts.push(act);
        if world.act(act).is_err() {
            return Err(shortened(scenario, acts));
        }
    }
    match calm_down(&mut world) {
        Ok(()) => Ok(acts.len()),
        Err(_) => Err(shortened(scenario, acts)),
    }
}

/// Leaves out whatever is not needed for it to fail.
fn shortened(scenario: &Scenario, mut acts: Vec<Act>) -> Box<Failure> {
    let mut place = 0;
    while place < acts.len() {
        let mut without = acts.clone();
        without.remove(place);
        if replay(scenario, &without).is_err() {
            (acts, place) = (without, 0);
        } else {
            place += 1;
        }
    }
    let broken = replay(scenario, &acts).expect_err("it failed before");
    Box::new(Failure { acts, broken })
}

/// What cannot happen without something that was left out is left out too.
fn replay(scenario: &Scenario, acts: &[Act]) -> Result<(), Broken> {
    let mut world = World::new(scenario);
    for act in acts {
        if world.can(*act) {
            world.act(*act)?;
        }
    }
    calm_down(&mut world)
}
