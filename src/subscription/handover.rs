//! The handover from replay to live and back, in every order of what can happen around it (invariant 3).
//!
//! The server's own code (`hub.rs`, `feed/follower.rs`, `replayer.rs`, what `store/replay.rs` makes of its
//! rows, `subscription.rs`, `frame.rs`) is driven one step at a time; a model of Postgres takes the place
//! of the tables, since the point is to choose when each answer comes. That Postgres keeps to the model is
//! what the tests in `tests/it` and `torture/` are for.

#![expect(
    clippy::print_stdout,
    reason = "how much was examined is for whoever asks with --nocapture"
)]

mod row;
mod scenario;
mod search;
mod subscriber;
mod table;
mod walk;
mod world;

use row::To::{Ada, Bob, Everyone, OtherApp};
use scenario::{Act, Append, Scenario, foreign, own};
use search::every_interleaving;

use super::Start;
use crate::event_id::EventId;

/// `HANDOVER=long`: once more of everything, for a release build and some patience.
fn is_long() -> bool {
    std::env::var("HANDOVER").is_ok_and(|value| value == "long")
}

/// Examines a scenario whole, and prints how much that was.
fn examine(name: &str, scenario: &Scenario, at_least: u128) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let began = std::time::Instant::now();
    let scenario = if is_long() { &scenario.clone().longer() } else { scenario };
    let examined = match every_interleaving(scenario) {
        Ok(examined) => examined,
        Err(failure) => panic!("{name}: after {:?}: {}", failure.acts, failure.broken),
    };
    println!(
        "{name}: {} interleavings of up to {} steps, over {} states, in {:.1} s",
        examined.interleavings,
        examined.longest,
        examined.states,
        began.elapsed().as_secs_f64(),
    );
    if std::env::var("HANDOVER_CAP").is_err() {
        assert!(examined.interleavings >= at_least, "{name}: {examined:?}");
    }
}

/// Rows, of which the third pushes the first out of the ring.
fn three() -> Vec<Append> {
    vec![own(Ada), foreign(Everyone), own(Ada)]
}

#[test]
fn whatever_comes_first_a_replay_meets_the_ring_and_nothing_is_lost_or_doubled() {
    examine("handover", &Scenario { appends: three(), ..Scenario::small() }, 73_000_000);
}

#[test]
fn long_replays_are_read_in_pages_that_end_where_they_are_complete() {
    let before = vec![Ada, Everyone, Everyone, Bob, Ada, Ada, Everyone];
    let appends = vec![own(Ada), foreign(Everyone)];
    examine("pages", &Scenario { before, appends, ..Scenario::small() }, 4_600_000);
}

#[test]
fn an_edge_that_moves_at_any_moment_is_told_by_those_that_it_overtakes() {
    let limits = vec![(Act::EdgeOfAll, 1)];
    let (before, appends) = (vec![Ada], vec![own(Ada), foreign(Ada)]);
    examine("edges", &Scenario { before, appends, limits, ..Scenario::small() }, 13_400_000);
}

#[test]
fn an_edge_of_another_app_takes_nothing_away() {
    let limits = vec![(Act::OtherEdge, 1)];
    let appends = vec![foreign(Ada), foreign(OtherApp)];
    examine("another app", &Scenario { appends, limits, ..Scenario::small() }, 137_000);
}

#[test]
fn a_client_that_is_cut_anywhere_gets_the_rest_when_it_comes_back() {
    let limits = vec![(Act::Cut, 1), (Act::CutInside, 1)];
    let (before, appends) = (vec![Ada, Everyone], vec![own(Ada)]);
    examine("cuts", &Scenario { before, appends, limits, ..Scenario::small() }, 212_000);
}

#[test]
fn a_client_that_comes_back_to_a_ring_that_others_kept_gets_the_rest() {
    let limits = vec![(Act::Cut, 1)];
    let (before, appends) = (vec![Everyone], vec![own(Ada)]);
    let scenario = Scenario { before, appends, limits, bystander: true, ..Scenario::small() };
    examine("cuts beside another", &scenario, 30_000);
}

#[test]
fn a_ping_at_any_moment_says_no_more_than_was_sent() {
    let limits = vec![(Act::Ping, 1), (Act::Cut, 1)];
    let appends = vec![foreign(Ada)];
    examine(
        "pings",
        &Scenario { before: vec![Ada], appends, limits, ..Scenario::small() },
        140_000,
    );
}

#[test]
fn wake_ups_and_groups_that_are_lost_cost_time_and_no_rows() {
    use Act::*;
    let limits = vec![(Lose, 1), (Deafen, 1), (FeedFails, 1), (DropGroup, 1)];
    let appends = vec![own(Ada)];
    examine("faults", &Scenario { appends, limits, ..Scenario::small() }, 17_300_000);
}

#[test]
fn positions_that_were_issued_and_never_used_are_no_hole() {
    let limits = vec![(Act::Burn, 1)];
    let appends = vec![own(Ada), own(Bob)];
    examine("failed appends", &Scenario { appends, limits, ..Scenario::small() }, 2_200_000);
}

#[test]
fn a_stream_that_is_opened_before_the_feed_has_begun_misses_nothing() {
    let limits = vec![(Act::Ping, 1)];
    let (before, appends) = (vec![Ada], vec![foreign(Ada)]);
    let scenario = Scenario { before, appends, limits, started: false, ..Scenario::small() };
    examine("first start", &scenario, 360_000);
}

#[test]
fn a_stream_from_the_head_has_everything_from_there_on() {
    let limits = vec![(Act::Cut, 1), (Act::EdgeOfAll, 1)];
    let (before, appends) = (vec![Ada], vec![own(Ada)]);
    let scenario = Scenario { before, appends, limits, start: Start::Head, ..Scenario::small() };
    examine("from the head", &scenario, 570_000);
}

#[test]
fn a_stream_from_the_earliest_is_told_only_what_goes_while_it_lasts() {
    let limits = vec![(Act::Edge, 2)];
    let before = vec![Ada, Ada, Ada, Ada];
    let appends = vec![foreign(Ada)];
    let scenario =
        Scenario { before, appends, limits, start: Start::Earliest, ..Scenario::small() };
    examine("from the earliest", &scenario, 85_000);
}

#[test]
fn a_cursor_of_another_feed_is_told_and_goes_on_from_the_head() {
    let (before, appends) = (vec![Ada], vec![own(Ada), foreign(Everyone)]);
    let start = Start::After(EventId::at(1000, 0, 7));
    examine("ahead", &Scenario { before, appends, start, ..Scenario::small() }, 444_000);
}

#[test]
fn what_a_restore_took_is_told_and_what_it_kept_is_not_passed_over() {
    let limits = vec![(Act::Restore, 1)];
    let (before, appends) = (vec![Ada, Ada], vec![own(Ada)]);
    examine("restore", &Scenario { before, appends, limits, ..Scenario::small() }, 124_000_000);
}

#[test]
fn a_ring_from_before_a_restore_is_met_by_nobody_who_has_read_what_came_after_it() {
    let limits = vec![(Act::Restore, 1), (Act::Cut, 1)];
    let (before, appends, most_steps) = (vec![Ada], vec![own(Ada), foreign(Ada)], 12);
    let small = Scenario { before, appends, limits, most_steps, ..Scenario::small() };
    let scenario = Scenario { bystander: true, ..small };
    examine("restore beside another", &scenario, 12_000_000);
}

#[test]
fn what_is_withdrawn_leaves_no_hole_behind() {
    let limits = vec![(Act::Withdraw, 2)];
    let (before, appends) = (vec![Ada, Ada, Everyone], vec![own(Ada)]);
    examine("withdrawn", &Scenario { before, appends, limits, ..Scenario::small() }, 305_000);
}

#[test]
fn rows_that_fill_a_page_and_a_write_each_are_taken_one_by_one() {
    let scenario = Scenario {
        before: vec![Ada, Everyone],
        appends: vec![own(Ada)],
        ring_bytes: 100 << 10,
        page_bytes: 60 << 10,
        padding: 40 << 10,
        ..Scenario::small()
    };
    examine("large rows", &scenario, 5_100);
}

#[test]
fn long_ways_at_random_with_everything_lose_and_double_nothing() {
    use Act::*;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let rows =
        [own(Ada), foreign(Ada), own(Bob), foreign(Everyone), foreign(OtherApp), own(Everyone)];
    let limits = [
        DropGroup, Lose, Deafen, Timer, FeedFails, PageFails, Ping, Cut, CutInside, Edge,
        EdgeOfAll, OtherEdge, Withdraw, Burn, Restore,
    ];
    let walks = if is_long() { 100_000 } else { 500 };
    let mut steps = 0;
    for number in 0..walks {
        let seed = fastrand::u64(..);
        let scenario = Scenario {
            before: vec![Ada, Bob, Everyone],
            appends: rows.repeat(2),
            limits: limits.map(|act| (act, 2)).to_vec(),
            start: [Start::After(EventId::ZERO), Start::Head, Start::Earliest][number % 3],
            started: number % 2 == 0,
            bystander: number % 5 == 0,
            most_steps: 300,
            ..Scenario::small()
        };
        match walk::walk(&scenario, seed) {
            Ok(length) => steps += length,
            Err(failure) => panic!("seed {seed}, {:?}: {}", failure.acts, failure.broken),
        }
    }
    println!("at random: {walks} interleavings of {} steps on average", steps / walks);
    assert!(steps > 40 * walks, "{steps}");
}
