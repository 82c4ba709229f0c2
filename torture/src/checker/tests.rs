//! For each rule: the good history passes, and the same history with the smallest break is caught.

use ulid::Ulid;

use super::{Rule, check};
use crate::history::{Entry, Event, SendNumber, Way};

/// The ids are one apart in what orders them.
fn id(number: u128) -> Ulid {
    Ulid((1 << 120) + (number << 65))
}

/// What is sent; its number and place come first in the data.
fn data(send: SendNumber, place: usize) -> String {
    format!(r#"{{"n":{send},"i":{place},"p":"x"}}"#)
}

/// A history as it should be: a user with a topic and a namesake in another app; sends to a user, a
/// topic, everyone and in a batch, with and without a key; a reconnect with a replay.
struct History(Vec<Event>);

impl History {
    fn good() -> Self {
        let mut history =
            Self(vec![Event::Began { seed: 1, instances: 1, seconds: 1, faults: Vec::new() }]);
        history.client(0, "shop", &["news"]);
        history.client(1, "bank", &["news"]);
        history.open(0, 1, None);
        history.open(1, 1, None);
        history.ready(0, 1, id(0));
        history.live(0, 1, 0);
        history.ready(1, 1, id(0));
        history.live(1, 1, 0);
        history.send(1, Some("key-1"), &[("user:ada", &data(1, 0))]);
        history.answer(1, 201, &[id(1)], None);
        history.frame(0, 1, id(1), &data(1, 0));
        history.send(2, None, &[("topic:news", &data(2, 0))]);
        history.broke(2);
        history.frame(0, 1, id(2), &data(2, 0));
        history.send(3, Some("key-3"), &[("everyone", &data(3, 0)), ("user:bob", &data(3, 1))]);
        history.broke(3);
        history.attempt(3, 2);
        history.0.push(answer(3, 2, 201, &[id(3), id(4)], None));
        history.frame(0, 1, id(3), &data(3, 0));
        history.ping(0, 1, id(4));
        history.0.push(Event::Close { client: 0, connection: 1, how: "cut".to_owned() });
        history.send(4, None, &[("everyone", &data(4, 0))]);
        history.answer(4, 201, &[id(5)], None);
        history.send(5, None, &[("everyone", &data(5, 0))]);
        history.answer(5, 503, &[], Some("overloaded"));
        history.open(0, 2, Some(id(4)));
        history.ready(0, 2, id(4));
        history.frame(0, 2, id(5), &data(4, 0));
        history.live(0, 2, 1);
        history.ping(0, 2, id(5));
        history.ping(1, 1, id(5));
        history.0.push(Event::Read { reader: 0, ids: (1..=3).map(id).collect() });
        history.0.push(Event::Read { reader: 0, ids: (4..=5).map(id).collect() });
        history.stored(1, "user:ada", &data(1, 0));
        history.stored(2, "topic:news", &data(2, 0));
        history.stored(3, "everyone", &data(3, 0));
        history.stored(4, "user:bob", &data(3, 1));
        history.stored(5, "everyone", &data(4, 0));
        history.0.push(Event::Settled { complete: 2 });
        history
    }

    fn client(&mut self, client: usize, app: &str, topics: &[&str]) {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let (app, user) = (app.to_owned(), "ada".to_owned());
        self.0.push(Event::Client { client, app, user, topics, steady: true });
    }

    fn open(&mut self, client: usize, connection: u32, cursor: Option<Ulid>) {
        self.0.push(Event::Open { client, connection, to: "balancer".to_owned(), cursor });
    }

    fn raw(&mut self, client: usize, connection: u32, raw: String) {
        self.0.push(Event::Frame { client, connection, raw });
    }

    fn ready(&mut self, client: usize, connection: u32, at: Ulid) {
        self.raw(client, connection, ready(at));
    }

    fn live(&mut self, client: usize, connection: u32, replayed: u64) {
        self.raw(client, connection, live(replayed));
    }

    fn ping(&mut self, client: usize, connection: u32, at: Ulid) {
        self.raw(client, connection, ping(at));
    }

    fn frame(&mut self, client: usize, connection: u32, id: Ulid, data: &str) {
        self.raw(client, connection, notification(id, data));
    }

    fn send(&mut self, send: SendNumber, key: Option<&str>, rows: &[(&str, &str)]) {
        let rows = rows.iter().map(|(to, data)| ((*to).to_owned(), (*data).to_owned())).collect();
        let (app, key) = ("shop".to_owned(), key.map(str::to_owned));
        self.0.push(Event::Send { send, sender: 0, app, by: Way::Batch, key, event: None, rows });
        self.attempt(send, 1);
    }

    fn attempt(&mut self, send: SendNumber, attempt: u32) {
        self.0.push(Event::Attempt { send, attempt, to: "0".to_owned() });
    }

    fn answer(&mut self, send: SendNumber, status: u16, ids: &[Ulid], problem: Option<&str>) {
        self.0.push(answer(send, 1, status, ids, problem));
    }

    fn broke(&mut self, send: SendNumber) {
        self.0.push(Event::Broke { send, attempt: 1, how: "reset".to_owned() });
    }

    fn stored(&mut self, number: u128, audience: &str, data: &str) {
        self.0.push(stored(id(number), audience, data));
    }

    /// Where it says that.
    fn find(&self, what: &Event) -> usize {
        self.0.iter().position(|event| event == what).expect("it is in the good history")
    }

    fn without(mut self, what: &Event) -> Self {
        let at = self.find(what);
        self.0.remove(at);
        self
    }

    fn instead(mut self, what: &Event, other: Event) -> Self {
        let at = self.find(what);
        self.0[at] = other;
        self
    }

    fn after(mut self, what: &Event, more: Event) -> Self {
        let at = self.find(what);
        self.0.insert(at + 1, more);
        self
    }

    fn swapped(mut self, one: &Event, other: &Event) -> Self {
        let (one, other) = (self.find(one), self.find(other));
        self.0.swap(one, other);
        self
    }

    /// The rules that are broken, each once.
    fn broken(self) -> Vec<Rule> {
        let entries = self.0.into_iter().zip(0..).map(|(event, at)| Entry(at, event));
        let findings = check(&entries.collect::<Vec<_>>());
        let mut rules: Vec<Rule> = findings.violations.iter().map(|broken| broken.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        assert!(findings.violations.iter().all(|broken| !broken.witnesses.is_empty()));
        rules
    }
}

fn answer(
    send: SendNumber,
    attempt: u32,
    status: u16,
    ids: &[Ulid],
    problem: Option<&str>,
) -> Event {
    let (ids, problem) = (ids.to_vec(), problem.map(str::to_owned));
    Event::Answer { send, attempt, status, ids, problem }
}

fn stored(id: Ulid, audience: &str, data: &str) -> Event {
    let (app, audience, data) = ("shop".to_owned(), audience.to_owned(), data.to_owned());
    Event::Stored { id, app, audience, event: None, data, gone: false }
}

fn ready(at: Ulid) -> String {
    format!("retry: 700\nid: {at}\nevent: tidings.ready\ndata: {{\"cursor\":\"{at}\"}}\n\n")
}

fn live(replayed: u64) -> String {
    format!("event: tidings.live\ndata: {{\"replayed\":{replayed}}}\n\n")
}

fn ping(at: Ulid) -> String {
    format!("id: {at}\nevent: tidings.ping\ndata: {{\"database\":\"up\"}}\n\n")
}

fn gap(at: Ulid) -> String {
    format!(
        "id: {at}\nevent: tidings.gap\ndata: {{\"after\":null,\"resumes_after\":\"{at}\",\"reason\":\"expired\"}}\n\n"
    )
}

fn notification(id: Ulid, data: &str) -> String {
    format!("id: {id}\ndata: {data}\n\n")
}

/// A frame of client 0 on its first or second connection.
fn frame(connection: u32, raw: String) -> Event {
    Event::Frame { client: 0, connection, raw }
}

fn delivered(connection: u32, number: u128, send: SendNumber) -> Event {
    frame(connection, notification(id(number), &data(send, 0)))
}

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
