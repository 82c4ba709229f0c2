//! Tries everything that can happen within the bounds of a scenario, shortest first. Futures cannot be
//! copied, so each state is reached by doing again what led to it; worlds that are equal after the same
//! number of steps are gone on from once.

use std::collections::HashMap;

use super::scenario::{Act, Scenario};
use super::subscriber::Broken;
use super::world::World;

/// What was examined.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Examined {
    /// Ways in which everything can happen, to the end. Each was gone, up to where it met another.
    pub(super) interleavings: u128,
    pub(super) states: usize,
    pub(super) longest: usize,
}

/// What went wrong, and what led to it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) acts: Vec<Act>,
    pub(super) broken: Broken,
}

struct Reached {
    acts: Vec<Act>,
    /// In so many ways.
    ways: u128,
    next: Vec<Act>,
}

/// Tries all of a scenario. The failure is one of the shortest.
pub(super) fn every_interleaving(scenario: &Scenario) -> Result<Examined, Box<Failure>> {
    let mut examined = Examined::default();
    let start = World::new(scenario);
    let mut level = vec![Reached { acts: Vec::new(), ways: 1, next: start.enabled() }];
    while !level.is_empty() {
        let mut reached = HashMap::new();
        let mut next_level: Vec<Reached> = Vec::new();
        for Reached { acts, ways, next } in &level {
            examined.states += 1;
            examined.longest = examined.longest.max(acts.len());
            if next.is_empty() {
                examined.interleavings += ways;
            }
            for act in next {
                let mut acts = acts.clone();
                acts.push(*act);
                let mut world = run(scenario, &acts)?;
                let place = *reached.entry(world.fingerprint()).or_insert(next_level.len());
                if let Some(known) = next_level.get_mut(place) {
                    known.ways += ways;
                    continue;
                }
                let goes_on = acts.len() < scenario.most_steps;
                let next = if goes_on { world.enabled() } else { Vec::new() };
                calm_down(&mut world).map_err(|broken| failure(&acts, broken))?;
                next_level.push(Reached { acts, ways: *ways, next });
            }
        }
        level = next_level;
    }
    Ok(examined)
}

fn failure(acts: &[Act], broken: Broken) -> Box<Failure> {
    Box::new(Failure { acts: acts.to_vec(), broken })
}

fn run<'a>(scenario: &'a Scenario, acts: &[Act]) -> Result<World<'a>, Box<Failure>> {
    let mut world = World::new(scenario);
    for (place, act) in acts.iter().enumerate() {
        world.act(*act).map_err(|broken| failure(&acts[..=place], broken))?;
    }
    Ok(world)
}

/// Nothing new happens, and what has begun goes on to its end: the client has to get everything, and
/// without the timer, unless something was said that could not be heard.
pub(super) fn calm_down(world: &mut World<'_>) -> Result<(), Broken> {
    /// More than any scenario needs.
    const STEPS: usize = 1000;
    const TICKS: usize = 3;
    let mut ticks = 0;
    for _ in 0..STEPS {
        if let Some(act) = Act::STEPS.into_iter().find(|act| world.can(*act)) {
            world.act(act)?;
        } else if world.is_complete() {
            return Ok(());
        } else if world.needs_timer() && ticks < TICKS {
            ticks += 1;
            world.tick();
        } else {
            break;
        }
    }
    Err(format!("all is quiet, and the client still lacks {:?}", world.lacks()))
}
