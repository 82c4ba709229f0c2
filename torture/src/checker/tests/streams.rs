//! What subscribers received.

use super::*;
use crate::checker::FIRST_LOST_MS;

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

/// Another client, which comes with a cursor of nothing that ever was, and what it is sent.
fn with_a_lost_client(frames: &[String]) -> History {
    let lost = Ulid::from_parts(FIRST_LOST_MS, 7);
    let mut history = History::good();
    let mut came = History(Vec::new());
    came.client(2, "shop", &[]);
    came.open(2, 1, Some(lost));
    came.ready(2, 1, lost);
    frames.iter().for_each(|raw| came.raw(2, 1, raw.clone()));
    came.0.push(Event::Left { client: 2 });
    let at = history.find(&frame(2, ready(id(4))));
    history.0.splice(at..at, came.0);
    history
}

#[test]
fn a_client_whose_cursor_is_of_nothing_has_to_be_told_of_a_gap() {
    assert_eq!(with_a_lost_client(&[gap(id(4)), live(0)]).broken(), []);
    assert_eq!(with_a_lost_client(&[]).broken(), [], "it left before it could be told");
    assert_eq!(with_a_lost_client(&[live(0)]).broken(), [Rule::UntoldGap]);
    assert_eq!(
        with_a_lost_client(&[gap(id(4)), gap(id(4)), live(0)]).broken(),
        [Rule::NeedlessGap],
        "once is enough"
    );
}

/// The rules that are broken when client 0 has its second stream's pings at these times, the first
/// after it went live, the second in the middle, the third when the notification has just come.
fn broken_at(times: [u64; 3], pings: [&str; 2]) -> Vec<Rule> {
    let ping = |database| {
        let id = id(4);
        frame(
            2,
            format!("id: {id}\nevent: tidings.ping\ndata: {{\"database\":\"{database}\"}}\n\n"),
        )
    };
    let mut history = History::good()
        .without(&delivered(2, 5, 4))
        .instead(&frame(2, live(1)), frame(2, live(0)))
        .after(&frame(2, live(0)), ping(pings[0]));
    let (first, last) =
        (history.find(&frame(2, live(0))), history.find(&frame(2, self::ping(id(5)))));
    history.0.insert(last, ping(pings[1]));
    history.0.insert(last + 1, delivered(2, 5, 4));
    let seconds = |at: usize| match at {
        at if at <= first => 0,
        at if at < last => times[0],
        at if at == last => times[1],
        _ => times[2],
    };
    let entries = history.0.into_iter().enumerate();
    let entries: Vec<Entry> =
        entries.map(|(at, event)| Entry(seconds(at) * 1_000_000 + at as u64, event)).collect();
    check(&entries).violations.iter().map(|broken| broken.rule).collect()
}

#[test]
fn what_comes_late_on_a_stream_that_says_all_is_well_is_caught() {
    assert_eq!(broken_at([1, 14, 14], ["up", "up"]), []);
    assert_eq!(broken_at([1, 16, 17], ["up", "up"]), [Rule::Late]);
    assert_eq!(broken_at([1, 16, 17], ["up", "unreachable"]), []);
    // From when it is up again it has the same time.
    assert_eq!(broken_at([5, 16, 17], ["unreachable", "up"]), []);
}
