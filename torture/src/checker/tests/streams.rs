//! What subscribers received.

use super::*;

#[test]
fn a_good_history_is_clean_and_was_looked_at() {
    let entries: Vec<Entry> =
        History::good().0.into_iter().zip(0..).map(|(event, at)| Entry(at, event)).collect();
    let findings = check(&entries);
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    let counts = findings.counts;
    assert_eq!((counts.sends, counts.acknowledged, counts.unknown, counts.rows), (5, 3, 1, 5));
    assert_eq!((counts.deliveries, counts.streams, counts.pings, counts.reads), (4, 3, 3, 5));
}

#[test]
fn an_interrupted_history_is_judged_as_far_as_it_goes() {
    let mut history = History::good();
    // No table, and the last notification is still on its way.
    history.0.retain(|event| !matches!(event, Event::Stored { .. } | Event::Settled { .. }));
    let until = history.find(&delivered(2, 5, 4));
    history.0.truncate(until);
    assert_eq!(History(history.0.clone()).broken(), []);
    // But what the stream went past is missing.
    assert_eq!(history.without(&delivered(1, 1, 1)).broken(), [Rule::Missing]);
}

#[test]
fn what_may_be_gone_is_not_missed_while_the_table_is_not_known() {
    let mut history = History::good().without(&delivered(1, 1, 1));
    for event in &mut history.0 {
        if let Event::Send { send: 1, fleeting, .. } = event {
            *fleeting = true;
        }
    }
    let mut interrupted = History(history.0.clone());
    interrupted.0.retain(|event| !matches!(event, Event::Stored { .. } | Event::Settled { .. }));
    assert_eq!(interrupted.broken(), []);
    // The table says that it is not gone.
    assert_eq!(history.broken(), [Rule::Missing]);
}

#[test]
fn a_missing_notification_is_caught() {
    assert_eq!(History::good().without(&delivered(1, 1, 1)).broken(), [Rule::Missing]);
    // One that nobody acknowledged is stored and so has to arrive, too.
    assert_eq!(History::good().without(&delivered(1, 2, 2)).broken(), [Rule::Missing]);
}

#[test]
fn a_notification_missing_at_the_end_is_caught() {
    let history = History::good()
        .without(&delivered(2, 5, 4))
        .without(&frame(2, ping(id(5))))
        .instead(&frame(2, live(1)), frame(2, live(0)));
    assert_eq!(history.broken(), [Rule::Missing]);
}

#[test]
fn a_doubled_notification_is_caught() {
    let again = History::good().after(&delivered(1, 1, 1), delivered(1, 1, 1));
    assert_eq!(again.broken(), [Rule::Doubled]);
    // Also over a reconnect, where it counts as replayed.
    let again = History::good()
        .after(&frame(2, ready(id(4))), delivered(2, 3, 3))
        .instead(&frame(2, live(1)), frame(2, live(2)));
    assert_eq!(again.broken(), [Rule::Doubled]);
}

#[test]
fn a_reordered_notification_is_caught() {
    let history = History::good().swapped(&delivered(1, 1, 1), &delivered(1, 2, 2));
    assert_eq!(history.broken(), [Rule::Missing, Rule::Reordered]);
}

#[test]
fn a_foreign_notification_is_caught() {
    // Of another user, of another app, and of nobody.
    let bobs = frame(1, notification(id(4), &data(3, 1)));
    assert_eq!(History::good().after(&delivered(1, 3, 3), bobs).broken(), [Rule::Foreign]);
    let others = Event::Frame { client: 1, connection: 1, raw: notification(id(1), &data(1, 0)) };
    assert_eq!(History::good().after(&delivered(1, 1, 1), others).broken(), [Rule::Foreign]);
    let nobodys = frame(2, notification(id(9), "1"));
    assert_eq!(History::good().after(&frame(2, ping(id(5))), nobodys).broken(), [Rule::Foreign]);
}

#[test]
fn altered_bytes_are_caught() {
    let altered = frame(1, notification(id(1), &data(1, 0).replace(':', ": ")));
    assert_eq!(History::good().instead(&delivered(1, 1, 1), altered).broken(), [Rule::Altered]);
    let named = frame(1, notification(id(1), &data(1, 0)).replace("data", "event: x\ndata"));
    assert_eq!(History::good().instead(&delivered(1, 1, 1), named).broken(), [Rule::Altered]);
    let altered = stored(id(1), "user:ada", &data(1, 0).replace('x', "y"));
    let in_table = History::good().instead(&stored(id(1), "user:ada", &data(1, 0)), altered);
    assert!(in_table.broken().contains(&Rule::NotSent));
}

#[test]
fn a_silent_gap_is_caught_and_a_told_one_is_not_a_loss() {
    let silent = || History::good().without(&delivered(1, 2, 2));
    assert_eq!(silent().broken(), [Rule::Missing]);
    let told = silent().after(&delivered(1, 1, 1), frame(1, gap(id(2))));
    // But where nothing can have been lost, telling one is wrong.
    assert_eq!(told.broken(), [Rule::NeedlessGap]);
}

#[test]
fn a_ping_ahead_of_what_was_delivered_is_caught() {
    let early = History::good().after(&delivered(1, 1, 1), frame(1, ping(id(2))));
    assert_eq!(early.broken(), [Rule::Reordered, Rule::PingTooFar]);
    let backwards = History::good().after(&delivered(1, 2, 2), frame(1, ping(id(1))));
    assert_eq!(backwards.broken(), [Rule::Contract]);
}

#[test]
fn a_wrong_number_of_replayed_is_caught() {
    let history = History::good().instead(&frame(2, live(1)), frame(2, live(0)));
    assert_eq!(history.broken(), [Rule::ReplayMiscounted]);
}

#[test]
fn frames_that_break_the_contract_are_caught() {
    let goodbye = frame(1, "event: tidings.goodbye\ndata: {}\n\n".to_owned());
    let broken = [
        History::good().without(&frame(2, ready(id(4)))),
        History::good().instead(&frame(2, ready(id(4))), frame(2, ready(id(3)))),
        History::good().after(&frame(2, ready(id(4))), frame(2, ready(id(4)))),
        History::good().after(&frame(2, live(1)), frame(2, live(1))),
        History::good().after(&delivered(1, 1, 1), goodbye),
        History::good()
            .after(&delivered(1, 1, 1), frame(1, "event: tidings.x\ndata: 1\n\n".to_owned())),
        History::good().after(&delivered(1, 1, 1), frame(1, "id: 17\ndata: 1\n\n".to_owned())),
        History::good().after(&delivered(1, 1, 1), frame(1, format!("id: {}\n\n", id(1)))),
    ];
    for (number, history) in broken.into_iter().enumerate() {
        assert!(history.broken().contains(&Rule::Contract), "number {number}");
    }
}

#[test]
fn a_fault_that_is_not_recovered_from_is_caught() {
    let not = Event::NotRecovered { fault: 1, missing: vec![0] };
    assert_eq!(History::good().after(&frame(2, ping(id(5))), not).broken(), [Rule::NotRecovered]);
}

#[test]
fn what_is_gone_may_be_delivered_or_not() {
    let gone = |number, audience: &str, data: String| Event::Stored {
        id: id(number),
        app: "shop".to_owned(),
        audience: audience.to_owned(),
        event: None,
        data,
        gone: true,
    };
    let history = || {
        History::good()
            .instead(&stored(id(1), "user:ada", &data(1, 0)), gone(1, "user:ada", data(1, 0)))
    };
    assert_eq!(history().broken(), []);
    assert_eq!(history().without(&delivered(1, 1, 1)).broken(), []);
}

#[test]
fn a_state_entry_has_to_arrive_like_any_row_and_counts_as_none() {
    let told = || r#"{"ids":[],"state":"withdrawn"}"#.to_owned();
    let entry = Event::Stored {
        id: id(6),
        app: "shop".to_owned(),
        audience: "everyone".to_owned(),
        event: Some("tidings.state".to_owned()),
        data: told(),
        gone: false,
    };
    let page = |ids: Vec<Ulid>| Event::Read { reader: 0, ids };
    let missing = History::good()
        .after(&stored(id(5), "everyone", &data(4, 0)), entry)
        .instead(&page(vec![id(4), id(5)]), page(vec![id(4), id(5), id(6)]));
    let raw = format!("id: {}\nevent: tidings.state\ndata: {}\n\n", id(6), told());
    // Before live, which still says one.
    let there = History(missing.0.clone()).after(&delivered(2, 5, 4), frame(2, raw));
    let there = there.instead(&frame(2, ping(id(5))), frame(2, ping(id(6))));
    assert_eq!(missing.broken(), [Rule::Missing]);
    assert_eq!(there.broken(), []);
}
