//! Devices that know nothing but their stream show what the server counts and lists, whatever was cut.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};

use super::model::{Bits, Model, STATES};
use super::{change, counted, counts, listed, send, withdraw};
use crate::harness::{API, FakedClock, Request, SseClient, TestApp, TestDatabase, missing};

/// One device of a user. The senders of these tests say in the data whom it is for, as
/// `format=envelope` would.
pub struct Device {
    user: String,
    topics: String,
    client: Option<SseClient>,
    cursor: String,
    held: BTreeMap<String, (String, Bits)>,
}

impl Device {
    /// Draws its list from the history and subscribes from there.
    pub async fn live(app: &TestApp, user: &str, topics: &str) -> Device {
        let path = format!("{API}/history/shop/{user}?limit=500&topics={topics}");
        let page = Request::get(path).send(app.address).await.json();
        let held = page["notifications"].as_array().unwrap().iter().map(|row| {
            let audience = row["data"]["to"].as_str().unwrap().to_owned();
            (row["id"].as_str().unwrap().to_owned(), (audience, Bits::of(row)))
        });
        let (user, topics) = (user.to_owned(), topics.to_owned());
        let cursor = page["cursor"].as_str().unwrap().to_owned();
        let mut device = Device { user, topics, client: None, cursor, held: held.collect() };
        device.connect(app).await;
        let client = device.client.as_mut().unwrap();
        assert!(client.until("tidings.live").await.0.is_empty());
        device
    }

    pub async fn connect(&mut self, app: &TestApp) {
        let path = format!("{API}/subscribe/shop/{}?topics={}", self.user, self.topics);
        self.client = Some(SseClient::connect(app.address, &path, Some(&self.cursor)).await);
    }

    /// Is cut off; what was on its way is lost.
    pub fn cut(&mut self) {
        if let Some(client) = self.client.take() {
            client.cut();
        }
    }

    /// Takes everything up to the head; with its cursor alone, if it was cut off.
    pub async fn catch_up(&mut self, app: &TestApp) {
        let head = counts(app, &self.user, "").await["cursor"].as_str().unwrap().to_owned();
        if self.client.is_none() {
            self.connect(app).await;
        }
        while self.cursor < head {
            self.take_one().await;
        }
    }

    async fn take_one(&mut self) {
        let frame = self.client.as_mut().expect("connected").next().await;
        assert!(!frame.is("tidings.gap"), "{frame:?}");
        if frame.is_notification() {
            let audience = frame.json()["to"].as_str().unwrap().to_owned();
            let before = self.held.insert(frame.id().to_owned(), (audience, Bits::default()));
            assert_eq!(before, None, "twice: {frame:?}");
        } else if frame.is("tidings.state") {
            self.apply(&frame.json());
        }
        if let Some(id) = frame.id {
            assert!(id >= self.cursor, "{id} is below {}", self.cursor);
            self.cursor = id;
        }
    }

    /// What the contract tells a device to do with `tidings.state`.
    fn apply(&mut self, entry: &Value) {
        let state = entry["state"].as_str().unwrap();
        if let Some(up_to) = entry["up_to"].as_str() {
            let mut covered = vec![format!("user:{}", self.user), "everyone".to_owned()];
            let topics = entry["topics"].as_array().into_iter().flatten();
            covered.extend(topics.map(|topic| format!("topic:{}", topic.as_str().unwrap())));
            for (_, (audience, bits)) in self.held.range_mut(..=up_to.to_owned()) {
                if covered.contains(audience) {
                    bits.change(state);
                }
            }
            return;
        }
        for id in entry["ids"].as_array().unwrap() {
            let id = id.as_str().unwrap();
            match state {
                "withdrawn" | "replaced" => drop(self.held.remove(id)),
                state => {
                    if let Some((_, bits)) = self.held.get_mut(id) {
                        bits.change(state);
                    }
                }
            }
        }
    }

    pub fn unread(&self) -> Vec<&str> {
        let unread = self.held.iter().filter(|(_, (_, bits))| bits.is("unread"));
        unread.map(|(id, _)| id.as_str()).collect()
    }

    /// What it shows is what the server lists and counts.
    pub async fn expect_as_listed(&self, app: &TestApp) {
        let rows = listed(app, &self.user, "asc", &format!("topics={}", self.topics)).await;
        let rows: Vec<(&str, Bits)> =
            rows.iter().map(|row| (row["id"].as_str().unwrap(), Bits::of(row))).collect();
        assert_eq!(self.shown(), rows, "{} {}", self.user, self.topics);
        let unseen = self.held.values().filter(|(_, bits)| bits.is("unseen")).count();
        let counts = counted(app, &self.user, &self.topics).await;
        assert_eq!((self.unread().len() as u64, unseen as u64), counts);
    }

    fn shown(&self) -> Vec<(&str, Bits)> {
        self.held.iter().map(|(id, (_, bits))| (id.as_str(), *bits)).collect()
    }
}

fn to(audience: &str) -> Value {
    let to = match audience.split_once(':') {
        Some((kind, name)) => json!({kind: name}),
        None => json!(audience),
    };
    json!({"to": to, "data": {"to": audience}})
}

#[tokio::test]
async fn three_devices_end_the_same_also_the_one_that_was_away_for_an_hour() {
    let Some(clock) = FakedClock::start() else {
        return missing("libfaketime is not installed: install the package libfaketime");
    };
    let database = clock.database().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(Device::live(&app, "ada", "").await);
    }
    let mut ids = Vec::new();
    for audience in ["user:ada", "everyone", "user:ada", "user:ada", "user:ada"] {
        ids.push(send(&app, to(audience)).await);
    }
    for device in &mut devices {
        device.catch_up(&app).await;
        assert_eq!(device.unread(), ids);
    }
    devices[2].cut();

    let read = json!({"ids": [ids[1], ids[3]], "state": "read"});
    assert_eq!(change(&app, "ada", read).await["unread"], 3);

    let left = [&ids[0], &ids[2], &ids[4]];
    for device in &mut devices[..2] {
        device.catch_up(&app).await;
        assert_eq!(device.unread(), left);
    }
    devices[..2].iter_mut().for_each(Device::cut);
    app.stop().await.unwrap();
    clock.go_on("+1h");
    let hour = "select extract(epoch from clock_timestamp() - max(created_at))::float8 from tidings.notification";
    assert!((3600.0..3700.0).contains(&database.value::<f64>(hour).await));
    let app = TestApp::on(database, |_| {}).await;
    let later = send(&app, to("everyone")).await;

    for device in &mut devices {
        device.catch_up(&app).await;
        assert_eq!(device.unread(), [left[0], left[1], left[2], &later]);
        device.expect_as_listed(&app).await;
    }
}

const STEPS: usize = 200;
const AUDIENCES: [&str; 5] = ["user:ada", "user:bob", "everyone", "topic:a", "topic:b"];
/// User and topics.
const DEVICES: [(&str, &str); 6] =
    [("ada", ""), ("ada", "a"), ("ada", "a,b"), ("ada", "b"), ("bob", "a"), ("bob", "")];

#[tokio::test]
async fn devices_that_are_cut_and_come_back_show_what_the_server_counts_and_lists() {
    for seed in [1, 2, fastrand::u64(..)] {
        eprintln!("seed {seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        run.expect_agreement().await;
    }
}

struct Run {
    instances: [TestApp; 2],
    devices: Vec<Device>,
    model: Model,
    rng: Rng,
}

impl Run {
    async fn new(seed: u64) -> Run {
        let database = TestDatabase::new().await;
        let instances =
            [TestApp::on(database.clone(), |_| {}).await, TestApp::on(database, |_| {}).await];
        let mut model = Model::of(&["ada", "bob"]);
        let mut devices = Vec::new();
        for (user, topics) in DEVICES {
            // By the first of its streams the user is known.
            devices.push(Device::live(&instances[0], user, topics).await);
            model.known(user);
        }
        Run { instances, devices, model, rng: Rng::with_seed(seed) }
    }

    fn instance(&self, number: usize) -> &TestApp {
        &self.instances[number % 2]
    }

    async fn step(&mut self) {
        let at = self.rng.usize(..self.devices.len());
        let instance = self.rng.usize(..2);
        match self.rng.u8(..20) {
            0..7 => self.send(instance).await,
            7..13 => self.change(at, instance).await,
            13 => self.withdraw(instance).await,
            14..16 => self.devices[at].cut(),
            16..18 => {
                self.devices[at].cut();
                self.devices[at].connect(&self.instances[instance]).await;
            }
            18 => self.devices[at].catch_up(&self.instances[instance]).await,
            // A device that is new.
            _ => {
                let (user, topics) = DEVICES[at];
                self.devices[at] = Device::live(&self.instances[instance], user, topics).await;
            }
        }
    }

    async fn send(&mut self, instance: usize) {
        let audience = AUDIENCES[self.rng.usize(..AUDIENCES.len())];
        let replaces = (self.rng.u8(..4) == 0).then_some("key");
        let mut body = to(audience);
        if let Some(key) = replaces {
            body["replaces"] = json!(key);
        }
        let id = send(self.instance(instance), body).await;
        self.model.send(&id, audience, replaces);
    }

    /// With what the device shows, which may be long out of date.
    async fn change(&mut self, at: usize, instance: usize) {
        let state = STATES[self.rng.usize(..STATES.len())];
        let Device { user, topics, held, .. } = &self.devices[at];
        let ids: Vec<String> = held.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let listed: Vec<&str> = topics.split(',').filter(|topic| !topic.is_empty()).collect();
        let one = ids[self.rng.usize(..ids.len())].clone();
        let (body, changed) = match self.rng.bool() {
            true => (
                json!({"up_to": one, "topics": listed, "state": state}),
                self.model.change_up_to(user, &one, topics, state),
            ),
            false => {
                let ids = [one, ids[self.rng.usize(..ids.len())].clone()];
                (
                    json!({"ids": ids, "topics": listed, "state": state}),
                    self.model.change_ids(user, &ids, state),
                )
            }
        };
        let answer = change(&self.instances[instance], user, body).await;
        let (unread, unseen) = self.model.counts(user, topics);
        assert_eq!(
            (answer["changed"].as_u64(), answer["unread"].as_u64(), answer["unseen"].as_u64()),
            (Some(changed), Some(unread), Some(unseen))
        );
    }

    async fn withdraw(&mut self, instance: usize) {
        let ids: Vec<String> = self.model.listed.keys().cloned().collect();
        let Some(id) = self.rng.choice(ids) else { return };
        assert_eq!(withdraw(self.instance(instance), &id).await, 204);
        self.model.gone(&id);
    }

    async fn expect_agreement(&mut self) {
        for (at, device) in self.devices.iter_mut().enumerate() {
            device.catch_up(&self.instances[at % 2]).await;
            device.expect_as_listed(&self.instances[(at + 1) % 2]).await;
            let expected = self.model.list(&device.user, &device.topics, "");
            let shown: Vec<(String, Bits)> =
                device.shown().into_iter().map(|(id, bits)| (id.to_owned(), bits)).collect();
            assert_eq!(shown, expected, "{} {}", device.user, device.topics);
        }
    }
}
