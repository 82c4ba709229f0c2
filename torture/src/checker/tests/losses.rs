//! What may be lost, and who has to be told.

use super::*;

const LAST_KEPT: u128 = 2;
const LAST_LOST: u128 = 6;

/// The largest id at the place of the last row that was kept: where a gap resumes.
fn end() -> Ulid {
    Ulid(id(LAST_KEPT).0 | 0xffff_ffff_ffff)
}

fn gap_from(after: Ulid, to: Ulid, reason: &str) -> String {
    let data = format!(r#"{{"after":"{after}","resumes_after":"{to}","reason":"{reason}"}}"#);
    format!("id: {to}\nevent: tidings.gap\ndata: {data}\n\n")
}

fn told() -> Event {
    frame(1, gap_from(id(LAST_LOST), end(), "restored"))
}

fn entry() -> String {
    format!("id: {}\nevent: tidings.state\ndata: {{}}\n\n", id(LAST_LOST))
}

impl History {
    /// Rows 1 and 2 are kept; 3 to 6 are lost, of which one came by SQL, one has a key and is not
    /// acknowledged yet, and one is a state entry; 101 and 102 come after. Client 0 sees all of it, and
    /// client 1 is away meanwhile. An entry's place is its time.
    fn with_a_loss() -> Self {
        let mut history =
            Self(vec![Event::Began { seed: 1, instances: 1, seconds: 1, faults: Vec::new() }]);
        for client in 0..2 {
            history.client(client, "shop", &["news"]);
            history.open(client, 1, None);
            history.ready(client, 1, id(0));
            history.live(client, 1, 0);
        }
        for number in 1..=LAST_KEPT {
            history.acknowledged(number, number as SendNumber);
            history.frame(1, 1, id(number), &data(number as SendNumber, 0));
        }
        history.0.push(Event::Close { client: 1, connection: 1, how: "cut".to_owned() });
        history.0.push(Event::Copied { complete: history.0.len() as u64 });
        history.acknowledged(3, 3);
        history.send(4, None, &[("topic:news", &data(4, 0))]);
        if let [.., Event::Send { by, .. }, _] = &mut history.0[..] {
            *by = Way::Sql;
        }
        history.answer(4, 201, &[], None);
        history.frame(0, 1, id(4), &data(4, 0));
        history.send(5, Some("key-5"), &[("everyone", &data(5, 0))]);
        history.broke(5);
        history.frame(0, 1, id(5), &data(5, 0));
        history.raw(0, 1, entry());
        history.ping(0, 1, id(LAST_LOST));
        history.0.push(Event::Read { reader: 0, ids: (1..=4).map(id).collect() });
        let gone = history.0.len() as u64;
        history.0.push(Event::WentBack { gone, kept: id(LAST_KEPT), until: id(100) });
        history.0.push(told());
        history.acknowledged(101, 6);
        history.attempt(5, 2);
        history.0.push(answer(5, 2, 201, &[id(102)], None));
        history.frame(0, 1, id(102), &data(5, 0));
        history.open(1, 2, Some(id(LAST_KEPT)));
        history.ready(1, 2, id(LAST_KEPT));
        history.frame(1, 2, id(101), &data(6, 0));
        history.frame(1, 2, id(102), &data(5, 0));
        history.live(1, 2, 2);
        history.0.push(Event::Read { reader: 0, ids: vec![id(101), id(102)] });
        for (number, send) in [(1, 1), (2, 2), (101, 6), (102, 5)] {
            history.stored(number, "everyone", &data(send, 0));
        }
        history.0.push(Event::Settled { complete: 2 });
        history
    }

    /// A send to everyone that client 0 gets.
    fn acknowledged(&mut self, number: u128, send: SendNumber) {
        self.send(send, None, &[("everyone", &data(send, 0))]);
        self.answer(send, 201, &[id(number)], None);
        self.frame(0, 1, id(number), &data(send, 0));
    }

    fn went_back(&self) -> Event {
        let is_it = |event: &&Event| matches!(event, Event::WentBack { .. });
        self.0.iter().find(is_it).expect("it is in the history").clone()
    }

    /// The copy was complete only when all this had happened.
    fn copied_after(mut self, what: &Event) -> Self {
        let at = self.find(what) as u64;
        for event in &mut self.0 {
            if let Event::Copied { complete } = event {
                *complete = at + 1;
            }
        }
        self
    }

    fn breaks_at_least(self, rule: Rule) {
        let broken = self.broken();
        assert!(broken.contains(&rule), "{broken:?}");
    }
}

#[test]
fn what_went_with_the_copy_may_be_lost_and_is_counted() {
    let entries = History::with_a_loss().0.into_iter().zip(0..);
    let findings = check(&entries.map(|(event, at)| Entry(at, event)).collect::<Vec<_>>());
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    let counts = findings.counts;
    assert_eq!((counts.losses, counts.lost, counts.told), (1, 3, 1));
}

#[test]
fn an_interrupted_history_with_a_loss_is_judged_as_far_as_it_goes() {
    let mut history = History::with_a_loss();
    history.0.retain(|event| !matches!(event, Event::Stored { .. } | Event::Settled { .. }));
    assert_eq!(History(history.0.clone()).broken(), []);
    assert_eq!(history.without(&told()).broken(), [Rule::UntoldGap]);
}

#[test]
fn a_loss_of_what_was_known_when_the_copy_was_complete_is_caught() {
    let history = || History::with_a_loss();
    assert_eq!(history().copied_after(&answer(3, 1, 201, &[id(3)], None)).broken(), [Rule::Lost]);
    // By SQL nobody is told an id.
    assert_eq!(history().copied_after(&answer(4, 1, 201, &[], None)).broken(), [Rule::Lost]);
}

#[test]
fn a_loss_before_or_after_the_window_is_caught() {
    let history = || History::with_a_loss();
    history().without(&stored(id(2), "everyone", &data(2, 0))).breaks_at_least(Rule::Lost);
    history().without(&stored(id(101), "everyone", &data(6, 0))).breaks_at_least(Rule::Lost);
    let went_back = history().went_back();
    history().without(&went_back).breaks_at_least(Rule::Lost);
}

#[test]
fn what_a_reader_read_outside_of_the_window_has_to_be_stored() {
    let read = || Event::Read { reader: 0, ids: vec![id(101), id(102)] };
    let more = Event::Read { reader: 0, ids: vec![id(101), id(102), id(103)] };
    assert_eq!(History::with_a_loss().instead(&read(), more).broken(), [Rule::Lost]);
}

#[test]
fn a_request_after_the_loss_must_not_be_acknowledged_with_what_was_lost() {
    let anew = || answer(5, 2, 201, &[id(102)], None);
    let history = History::with_a_loss().instead(&anew(), answer(5, 2, 201, &[id(5)], None));
    history.breaks_at_least(Rule::Lost);
}

#[test]
fn what_was_lost_may_be_carried_out_again_once() {
    let (broke, acknowledged) = (
        Event::Broke { send: 5, attempt: 1, how: "reset".to_owned() },
        answer(5, 1, 201, &[id(5)], None),
    );
    let anew = || answer(5, 2, 201, &[id(102)], None);
    let history = || History::with_a_loss().instead(&broke, acknowledged.clone());
    assert_eq!(history().broken(), []);
    history()
        .after(&anew(), answer(5, 2, 201, &[id(101)], None))
        .breaks_at_least(Rule::AnswersDiffer);
    let again = stored(id(103), "everyone", &data(5, 0));
    let last = || stored(id(102), "everyone", &data(5, 0));
    history().after(&last(), again).breaks_at_least(Rule::StoredTwice);
}

#[test]
fn an_id_from_before_that_is_given_anew_is_caught() {
    let last = stored(id(2), "everyone", &data(2, 0));
    let among = History::with_a_loss().after(&last, stored(id(50), "everyone", &data(3, 0)));
    among.breaks_at_least(Rule::OutOfOrder);
}

#[test]
fn who_saw_what_was_lost_and_is_not_told_before_anything_new_is_caught() {
    assert_eq!(History::with_a_loss().without(&told()).broken(), [Rule::UntoldGap]);
    // A position in a ping is enough.
    let history = History::with_a_loss().instead(&told(), frame(1, ping(id(101))));
    history.breaks_at_least(Rule::UntoldGap);
    let late = History::with_a_loss().swapped(&told(), &delivered(1, 101, 6));
    assert_eq!(late.broken(), [Rule::NeedlessGap, Rule::UntoldGap]);
}

#[test]
fn who_is_never_told_to_the_end_is_caught() {
    let mut history = History::with_a_loss();
    let until = history.find(&told());
    // Nothing comes after the loss, to anybody.
    let kept = history.0.drain(until..).filter(|event| {
        matches!(event, Event::Stored { id: row, .. } if *row <= id(LAST_KEPT))
            || matches!(event, Event::Settled { .. })
    });
    let kept: Vec<Event> = kept.collect();
    history.0.extend(kept);
    history.breaks_at_least(Rule::UntoldGap);
}

#[test]
fn who_cannot_have_seen_what_was_lost_and_is_told_is_caught() {
    let ready = Event::Frame { client: 1, connection: 2, raw: ready(id(LAST_KEPT)) };
    for after in [id(LAST_KEPT), id(3)] {
        let raw = gap_from(after, end(), "restored");
        let gap = Event::Frame { client: 1, connection: 2, raw };
        assert_eq!(History::with_a_loss().after(&ready, gap).broken(), [Rule::NeedlessGap]);
    }
}

#[test]
fn who_is_told_twice_or_too_early_is_caught() {
    assert_eq!(History::with_a_loss().after(&told(), told()).broken(), [Rule::NeedlessGap]);
    let went_back = History::with_a_loss().went_back();
    let early = History::with_a_loss().swapped(&told(), &went_back);
    assert_eq!(early.broken(), [Rule::NeedlessGap]);
}

#[test]
fn a_stream_that_was_open_may_have_come_further_than_its_client_knows() {
    let seen = [delivered(1, 3, 3), delivered(1, 4, 4), delivered(1, 5, 5), frame(1, entry())];
    let mut history = History::with_a_loss().without(&frame(1, ping(id(LAST_LOST))));
    for frame in &seen {
        history = history.without(frame);
    }
    assert_eq!(history.broken(), []);
}

#[test]
fn a_gap_that_does_not_resume_where_the_copy_ended_is_caught() {
    let resumes = |to, reason| {
        let gap = frame(1, gap_from(id(LAST_LOST), to, reason));
        History::with_a_loss().instead(&told(), gap).broken()
    };
    assert_eq!(resumes(id(LAST_KEPT), "restored"), []);
    assert_eq!(resumes(id(LAST_KEPT), "ahead"), []);
    assert_eq!(resumes(end(), "ahead"), [Rule::Contract]);
    assert_eq!(resumes(end(), "expired"), [Rule::Contract]);
    assert_eq!(resumes(id(1), "restored"), [Rule::Contract]);
    assert!(resumes(id(101), "restored").contains(&Rule::Contract));
}

#[test]
fn what_was_kept_must_not_come_again_and_what_is_new_must_come() {
    let again = History::with_a_loss().after(&told(), delivered(1, 2, 2));
    assert_eq!(again.broken(), [Rule::Doubled]);
    let missing = History::with_a_loss().without(&delivered(1, 101, 6));
    assert_eq!(missing.broken(), [Rule::Missing]);
    let kept = History::with_a_loss().without(&delivered(1, 2, 2));
    assert_eq!(kept.broken(), [Rule::Missing]);
}

#[test]
fn what_is_lost_obeys_every_other_rule_until_it_is_told() {
    let history = || History::with_a_loss();
    // The stream went past it when it was there.
    assert_eq!(history().without(&delivered(1, 3, 3)).broken(), [Rule::Missing]);
    let altered = frame(1, notification(id(3), &data(3, 0).replace(':', ": ")));
    assert_eq!(history().instead(&delivered(1, 3, 3), altered).broken(), [Rule::Altered]);
    let nobodys = frame(1, notification(id(6), "1"));
    assert_eq!(history().instead(&frame(1, entry()), nobodys).broken(), [Rule::Foreign]);
    assert_eq!(history().after(&delivered(1, 3, 3), delivered(1, 3, 3)).broken(), [Rule::Doubled]);
    history().after(&told(), delivered(1, 4, 4)).breaks_at_least(Rule::Foreign);
}

#[test]
fn what_was_replaced_by_something_that_is_lost_may_come_back_unseen() {
    let visitor = |fleeting: bool, copied: bool| {
        let mut history = History::with_a_loss();
        for event in &mut history.0 {
            if let Event::Send { send: 2, fleeting: is, .. } = event {
                *is = fleeting;
            }
        }
        // One that comes in the window, is not sent row 2, and is told.
        let mut came = History(Vec::new());
        came.client(2, "shop", &[]);
        came.open(2, 1, Some(id(1)));
        came.ready(2, 1, id(1));
        came.frame(2, 1, id(3), &data(3, 0));
        came.0.push(Event::Left { client: 2 });
        let window = match copied {
            true => history.find(&delivered(1, 3, 3)) + 1,
            false => history.find(&delivered(1, 2, 2)) + 1,
        };
        history.0.splice(window..window, came.0);
        for event in &mut history.0 {
            if let (Event::Copied { complete }, false) = (event, copied) {
                *complete += 5;
            }
        }
        history.broken()
    };
    assert_eq!(visitor(true, true), []);
    assert_eq!(visitor(false, true), [Rule::Missing]);
    assert!(visitor(true, false).contains(&Rule::Missing));
}

/// A visitor whose cursor is of nothing that ever was, and what it is sent.
fn with_a_visitor_of_nothing(before: &Event, frames: &[String]) -> Vec<Rule> {
    let cursor = Ulid::from_parts(crate::checker::FIRST_LOST_MS, 7);
    let mut came = History(Vec::new());
    came.client(2, "shop", &[]);
    came.open(2, 1, Some(cursor));
    came.ready(2, 1, cursor);
    frames.iter().for_each(|raw| came.raw(2, 1, raw.clone()));
    came.0.push(Event::Left { client: 2 });
    let mut history = History::with_a_loss();
    let at = history.find(before);
    history.0.splice(at..at, came.0);
    history.broken()
}

#[test]
fn a_visitor_of_nothing_may_be_told_to_resume_in_the_window_and_has_seen_it_then() {
    let in_window = [gap(id(3)), notification(id(5), &data(5, 0))];
    assert_eq!(with_a_visitor_of_nothing(&frame(1, entry()), &in_window), []);
    let untold = [&in_window[..], &[notification(id(102), &data(5, 0))]].concat();
    let last = Event::Read { reader: 0, ids: vec![id(101), id(102)] };
    assert!(with_a_visitor_of_nothing(&last, &untold).contains(&Rule::Foreign));
    // After the loss that is the end of the copy, and nothing behind it was seen.
    let after = [gap(end()), notification(id(101), &data(6, 0))];
    assert_eq!(with_a_visitor_of_nothing(&last, &after), []);
}
