//! What senders were told, and what is stored.

use super::*;

#[test]
fn an_acknowledgement_of_what_is_not_stored_is_caught() {
    // The namesake in the other app does not get it, so nobody's stream shows it.
    let history = History::good().without(&stored(id(4), "user:bob", &data(3, 1))).instead(
        &Event::Read { reader: 0, ids: vec![id(4), id(5)] },
        Event::Read { reader: 0, ids: vec![id(5)] },
    );
    assert_eq!(history.broken(), [Rule::Lost]);
}

#[test]
fn an_acknowledgement_with_anothers_id_is_caught() {
    let history = History::good()
        .instead(&answer(1, 1, 201, &[id(1)], None), answer(1, 1, 201, &[id(2)], None));
    assert!(history.broken().contains(&Rule::Lost));
}

#[test]
fn what_is_stored_twice_is_caught() {
    let history = History::good()
        .after(&stored(id(5), "everyone", &data(4, 0)), stored(id(6), "everyone", &data(4, 0)))
        .after(&frame(2, ping(id(5))), delivered(2, 6, 4))
        .instead(
            &Event::Read { reader: 0, ids: vec![id(4), id(5)] },
            Event::Read { reader: 0, ids: vec![id(4), id(5), id(6)] },
        );
    assert_eq!(history.broken(), [Rule::StoredTwice]);
}

#[test]
fn a_refused_send_that_is_stored_is_caught() {
    let history = History::good()
        .after(&stored(id(5), "everyone", &data(4, 0)), stored(id(6), "everyone", &data(5, 0)))
        .after(&frame(2, ping(id(5))), delivered(2, 6, 5))
        .instead(
            &Event::Read { reader: 0, ids: vec![id(4), id(5)] },
            Event::Read { reader: 0, ids: vec![id(4), id(5), id(6)] },
        );
    assert_eq!(history.broken(), [Rule::RefusedButStored]);
}

#[test]
fn an_unknown_outcome_may_be_either() {
    let unknown = answer(5, 1, 503, &[], Some("outcome-unknown"));
    let refused = answer(5, 1, 503, &[], Some("overloaded"));
    assert_eq!(History::good().instead(&refused, unknown).broken(), []);
}

#[test]
fn a_repeat_that_is_answered_otherwise_is_caught() {
    let first = answer(3, 1, 201, &[id(1), id(2)], None);
    let broke = Event::Broke { send: 3, attempt: 1, how: "reset".to_owned() };
    assert!(History::good().instead(&broke, first).broken().contains(&Rule::AnswersDiffer));
}

#[test]
fn rows_of_one_send_that_do_not_follow_each_other_are_caught() {
    let (one, other) =
        (stored(id(4), "user:bob", &data(3, 1)), stored(id(5), "everyone", &data(4, 0)));
    let apart = History::good()
        .instead(&one, stored(id(4), "everyone", &data(4, 0)))
        .instead(&other, stored(id(5), "user:bob", &data(3, 1)));
    assert!(apart.broken().contains(&Rule::Scattered));
}

#[test]
fn a_send_with_a_key_that_is_never_answered_is_caught() {
    let refused = answer(1, 1, 503, &[], Some("overloaded"));
    let history = History::good()
        .instead(&answer(1, 1, 201, &[id(1)], None), refused)
        .without(&stored(id(1), "user:ada", &data(1, 0)))
        .without(&delivered(1, 1, 1))
        .instead(
            &Event::Read { reader: 0, ids: (1..=3).map(id).collect() },
            Event::Read { reader: 0, ids: (2..=3).map(id).collect() },
        );
    assert_eq!(history.broken(), [Rule::NeverAnswered]);
}

#[test]
fn a_row_that_nobody_sent_is_caught() {
    let row = stored(id(6), "user:bob", "1");
    let history = History::good().after(&stored(id(5), "everyone", &data(4, 0)), row).instead(
        &Event::Read { reader: 0, ids: vec![id(4), id(5)] },
        Event::Read { reader: 0, ids: vec![id(4), id(5), id(6)] },
    );
    assert_eq!(history.broken(), [Rule::NotSent]);
}

#[test]
fn an_id_below_one_that_was_known_before_its_send_began_is_caught() {
    let mut history = History::good();
    let sent = history.find(&Event::Attempt { send: 1, attempt: 1, to: "0".to_owned() });
    history.0.insert(sent - 1, Event::Read { reader: 1, ids: (1..=5).map(id).collect() });
    let rules = history.broken();
    assert_eq!(rules, [Rule::OutOfOrder]);
}

#[test]
fn a_row_that_a_reader_by_cursor_never_saw_is_caught() {
    let page = || Event::Read { reader: 0, ids: (1..=3).map(id).collect() };
    let missed = Event::Read { reader: 0, ids: vec![id(1), id(3)] };
    assert_eq!(History::good().instead(&page(), missed).broken(), [Rule::ReaderMissed]);
    let backwards = Event::Read { reader: 0, ids: vec![id(2), id(1), id(3)] };
    assert!(History::good().instead(&page(), backwards).broken().contains(&Rule::ReaderMissed));
    let last = Event::Read { reader: 0, ids: vec![id(4), id(5)] };
    assert_eq!(History::good().without(&last).broken(), [Rule::ReaderMissed]);
}

#[test]
fn an_answer_that_a_good_request_must_not_get_is_caught() {
    let refused = || answer(5, 1, 503, &[], Some("overloaded"));
    for (status, problem) in
        [(500, Some("internal")), (422, None), (503, Some("else")), (503, None)]
    {
        let history = History::good().instead(&refused(), answer(5, 1, status, &[], problem));
        assert_eq!(history.broken(), [Rule::Contract], "{status} {problem:?}");
    }
}
