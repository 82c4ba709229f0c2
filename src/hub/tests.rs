use futures_util::FutureExt;

use super::*;
use crate::address::User;

fn hub(ring_bytes: usize) -> Arc<Hub> {
    Arc::new(Hub::new(ring_bytes, Arc::default()))
}

fn app() -> App {
    App::try_from("shop").unwrap()
}

fn ada() -> Audience {
    Audience::User(User::try_from("ada").unwrap())
}

fn join(hub: &Arc<Hub>, audiences: &[Audience]) -> Membership {
    join_with(hub, audiences, Format::Data)
}

fn join_with(hub: &Arc<Hub>, audiences: &[Audience], format: Format) -> Membership {
    hub.join(&Coverage { app: app(), audiences: audiences.into(), format })
}

fn id(position: i64) -> EventId {
    EventId::at(position, 0, 7)
}

fn row(position: i64, app: &str, audience: &Audience) -> Notification {
    Notification {
        id: id(position),
        app: app.to_owned(),
        audience: audience.to_sql(),
        event: None,
        data: position.to_string(),
        expires_at: None,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

/// The positions in the frames, and up to where they are complete; `None` when behind.
fn take(membership: &Membership, cursor: EventId) -> Option<(Vec<i64>, EventId)> {
    let Taken::Frames { bytes, complete_to } = membership.take(cursor, 0) else { return None };
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let positions = text.lines().filter_map(|line| line.strip_prefix("data: ")?.parse().ok());
    Some((positions.collect(), complete_to))
}

#[test]
fn a_member_gets_its_audiences_merged_in_id_order_and_nothing_else() {
    let hub = hub(1 << 20);
    let member = join(&hub, &[ada(), Audience::Everyone]);
    let bob = Audience::User(User::try_from("bob").unwrap());
    hub.dispatch(&[
        row(1, "shop", &Audience::Everyone),
        row(2, "shop", &ada()),
        row(3, "shop", &bob),
        row(4, "other", &ada()),
        row(5, "shop", &Audience::Everyone),
        row(6, "shop", &bob),
    ]);
    assert_eq!(take(&member, EventId::ZERO), Some((vec![1, 2, 5], id(6))));
    assert_eq!(take(&member, id(2)), Some((vec![5], id(6))));
    assert_eq!(take(&member, id(9)), Some((vec![], id(9))));
}

#[test]
fn a_row_that_both_sources_bring_is_dispatched_once() {
    let hub = hub(1 << 20);
    let member = join(&hub, &[ada()]);
    hub.dispatch(&[row(1, "shop", &ada()), row(2, "shop", &ada())]);
    hub.dispatch(&[row(2, "shop", &ada()), row(3, "shop", &ada())]);
    assert_eq!(take(&member, EventId::ZERO), Some((vec![1, 2, 3], id(3))));
}

#[test]
fn whoever_falls_off_the_ring_is_behind_and_the_ring_stays_in_its_bound() {
    let hub = hub(10 * (EVENT_OVERHEAD + 50));
    let member = join(&hub, &[ada()]);
    for position in 1..=100 {
        hub.dispatch(&[row(position, "shop", &ada())]);
        assert!(hub.state().bytes <= hub.ring_bytes);
    }
    assert_eq!(take(&member, EventId::ZERO), None);
    let oldest = hub.state().ring.front().map(|(_, event)| event.id.position()).unwrap();
    assert_eq!(take(&member, id(oldest - 2)), None);
    let kept = (oldest..=100).collect();
    assert_eq!(take(&member, id(oldest - 1)), Some((kept, id(100))));
}

#[test]
fn a_long_ring_is_taken_in_steps_that_are_complete() {
    let hub = hub(1 << 20);
    let member = join(&hub, &[ada(), Audience::Everyone]);
    let audience = |p| if p % 3 == 0 { Audience::Everyone } else { ada() };
    let rows: Vec<_> = (1..=1000).map(|p| row(p, "shop", &audience(p))).collect();
    hub.dispatch(&rows);
    let (mut cursor, mut seen) = (EventId::ZERO, Vec::new());
    while cursor < id(1000) {
        let (positions, complete_to) = take(&member, cursor).unwrap();
        assert!(complete_to > cursor);
        seen.extend(positions);
        cursor = complete_to;
    }
    assert_eq!(seen, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn rows_from_before_an_audience_joined_are_not_taken_for_complete() {
    let hub = hub(1 << 20);
    hub.dispatch(&[row(1, "shop", &ada())]);
    let member = join(&hub, &[ada()]);
    assert_eq!(take(&member, EventId::ZERO), None);
    assert_eq!(take(&member, id(1)), Some((vec![], id(1))));
}

#[test]
fn after_a_jump_everyone_below_it_is_behind() {
    let hub = hub(1 << 20);
    let member = join(&hub, &[ada()]);
    hub.dispatch(&[row(1, "shop", &ada())]);
    hub.skip_to(id(50));
    assert_eq!(take(&member, id(1)), None);
    assert_eq!(take(&member, id(50)), Some((vec![], id(50))));
}

#[test]
fn the_last_one_to_leave_takes_the_audience_along() {
    let hub = hub(1 << 20);
    let (first, second) = (join(&hub, &[ada()]), join(&hub, &[ada()]));
    drop(first);
    hub.dispatch(&[row(1, "shop", &ada())]);
    assert_eq!(take(&second, EventId::ZERO), Some((vec![1], id(1))));
    drop(second);
    let state = hub.state();
    assert!(state.audiences.is_empty() && state.data.is_empty());
}

#[test]
fn each_format_that_somebody_wants_is_framed_and_no_other() {
    let hub = hub(1 << 20);
    let data = join(&hub, &[ada()]);
    hub.dispatch(&[row(1, "shop", &ada())]);
    let envelope = join_with(&hub, &[ada()], Format::Envelope);
    hub.dispatch(&[row(2, "shop", &ada())]);

    assert_eq!(take(&data, EventId::ZERO), Some((vec![1, 2], id(2))));
    assert_eq!(take(&envelope, EventId::ZERO), None, "joined too late for the first");
    let Taken::Frames { bytes, .. } = envelope.take(id(1), 0) else { panic!("it is in the ring") };
    assert!(bytes.ends_with(b",\"data\":2}\n\n"), "{bytes:?}");
    assert_eq!(hub.state().ring.len(), 3);
    drop(data);
    drop(envelope);
    assert!(hub.state().audiences.is_empty() && hub.state().envelope.is_empty());
}

#[test]
fn a_hundred_long_queues_are_taken_in_order_and_in_steps() {
    let hub = hub(64 << 20);
    let topic = |n: i64| {
        Audience::Topic(crate::address::Topic::try_from(format!("t{n}").as_str()).unwrap())
    };
    let topics: Vec<Audience> = (0..100).map(topic).collect();
    let member = join(&hub, &topics);
    let rows: Vec<_> = (1..=10_000).map(|p| row(p, "shop", &topic(p * 7 % 100))).collect();
    hub.dispatch(&rows);
    let (mut cursor, mut seen, mut steps) = (EventId::ZERO, Vec::new(), 0);
    while cursor < id(10_000) {
        let (positions, complete_to) = take(&member, cursor).unwrap();
        assert_eq!(positions.last().copied().map(id), Some(complete_to));
        seen.extend(positions);
        (cursor, steps) = (complete_to, steps + 1);
    }
    assert_eq!(seen, (1..=10_000).collect::<Vec<_>>());
    assert!((5..20).contains(&steps), "{steps} steps of 64 KiB");
}

#[test]
fn a_member_that_leaves_is_woken_no_more_and_its_place_is_taken_again() {
    let hub = hub(1 << 20);
    let members: Vec<_> = (0..5).map(|_| join(&hub, &[Audience::Everyone])).collect();
    let mut members = members.into_iter();
    let (first, second) = (members.next().unwrap(), members.next());
    drop(second);
    let third = join(&hub, &[Audience::Everyone]);
    assert_eq!(third.places[0].1, 1, "no hole is left");
    hub.dispatch(&[row(1, "shop", &Audience::Everyone)]);
    let woken = |member: &Membership| member.woken().now_or_never().is_some();
    assert!(woken(&first) && woken(&third) && members.all(|member| woken(&member)));
}

#[test]
fn a_new_epoch_sends_even_those_above_it_back_to_replay_and_nobody_meets_the_ring_of_an_old_one() {
    let hub = hub(1 << 20);
    let member = join(&hub, &[ada()]);
    hub.dispatch(&[row(1, "shop", &ada()), row(50, "shop", &ada())]);
    assert!(matches!(member.take(id(1), 1), Taken::NotYet));
    hub.start_at(id(1), 1);
    assert!(matches!(member.take(id(50), 0), Taken::Behind));
    hub.dispatch(&[row(2, "shop", &ada())]);
    let Taken::Frames { complete_to, .. } = member.take(id(1), 1) else { panic!("it is there") };
    assert_eq!(complete_to, id(2));
}

impl Hub {
    /// All that decides what the hub does next, for the tests of the handover.
    pub(crate) fn fingerprint(&self, into: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let state = self.state();
        (state.position, state.epoch, state.bytes).hash(into);
        state.ring.iter().for_each(|(key, event)| (key, event.id).hash(into));
        let mut keys: Vec<_> = state.audiences.keys().collect();
        keys.sort_unstable();
        for key in keys {
            let AudienceEntry { floor, events, members, .. } = &state.audiences[key];
            (key, floor, members.counts()).hash(into);
            events.iter().for_each(|event| event.id.hash(into));
        }
    }
}
