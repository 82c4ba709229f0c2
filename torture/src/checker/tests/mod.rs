//! For each rule: the good history passes, and the same history with the smallest break is caught.

mod losses;
mod sends;
mod streams;

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
        let (by, event, fleeting) = (Way::Batch, None, false);
        self.0.push(Event::Send { send, sender: 0, app, by, key, event, rows, fleeting });
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
