//! Marks and the exceptions to them say the same as bits for each notification would.

use fastrand::Rng;
use serde_json::{Value, json};

use super::model::{Bits, FILTERS, Model, STATES};
use super::{change, counted, listed, send, withdraw};
use crate::harness::TestApp;

const AUDIENCES: [&str; 5] = ["user:ada", "user:bob", "everyone", "topic:a", "topic:b"];
const TOPICS: [&str; 4] = ["", "a", "b", "a,b"];
const STEPS: usize = 150;

#[tokio::test]
async fn marks_and_overrides_say_what_a_bit_for_each_notification_would() {
    // The first two are always the same; the last one looks elsewhere each time.
    for seed in [1, 2, fastrand::u64(..)] {
        eprintln!("seed {seed}");
        let mut run = Run {
            app: TestApp::start().await,
            model: Model::of(&["ada", "bob"]),
            rng: Rng::with_seed(seed),
        };
        for _ in 0..STEPS {
            run.step().await;
            run.compare_some().await;
        }
        run.compare_all().await;
    }
}

struct Run {
    app: TestApp,
    model: Model,
    rng: Rng,
}

impl Run {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.rng.usize(..choices.len())]
    }

    fn user(&mut self) -> &'static str {
        // Bob is seldom touched, so that he stays unknown for a while.
        if self.rng.u8(..8) == 0 { "bob" } else { "ada" }
    }

    /// An id from everywhere in the feed, or from between.
    fn some_id(&mut self) -> String {
        let ids: Vec<&String> = self.model.listed.keys().collect();
        match ids.is_empty() || self.rng.u8(..20) == 0 {
            true => "7ZZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
            false => ids[self.rng.usize(..ids.len())].clone(),
        }
    }

    async fn step(&mut self) {
        match self.rng.u8(..10) {
            0..3 => self.send().await,
            3..6 => self.change_ids().await,
            6..8 => self.change_up_to().await,
            _ => self.remove().await,
        }
    }

    async fn send(&mut self) {
        let audience = match self.one_of(&AUDIENCES) {
            "user:bob" if self.rng.bool() => "everyone",
            audience => audience,
        };
        let to = match audience.split_once(':') {
            Some((kind, name)) => json!({kind: name}),
            None => json!(audience),
        };
        let replaces = (self.rng.u8(..4) == 0).then_some("key");
        let mut body = json!({"to": to, "data": 1});
        if let Some(key) = replaces {
            body["replaces"] = json!(key);
        }
        let id = send(&self.app, body).await;
        self.model.send(&id, audience, replaces);
    }

    async fn change_ids(&mut self) {
        let (user, state) = (self.user(), self.one_of(&STATES));
        let count = self.rng.usize(1..5);
        let ids: Vec<String> = (0..count).map(|_| self.some_id()).collect();
        let topics = self.one_of(&TOPICS);
        let body = json!({"ids": ids, "topics": list(topics), "state": state});
        let expected = self.model.change_ids(user, &ids, state);
        self.change(user, topics, body, expected).await;
    }

    async fn change_up_to(&mut self) {
        let (user, state, topics) = (self.user(), self.one_of(&STATES), self.one_of(&TOPICS));
        let up_to = self.some_id();
        let body = json!({"up_to": up_to, "topics": list(topics), "state": state});
        self.model.known(user);
        let expected = self.model.change_up_to(user, &up_to, topics, state);
        self.change(user, topics, body, expected).await;
    }

    async fn change(&mut self, user: &str, topics: &str, body: Value, expected: u64) {
        let answer = change(&self.app, user, body.clone()).await;
        let (unread, unseen) = self.model.counts(user, topics);
        let cursor = answer["cursor"].clone();
        let expected =
            json!({"changed": expected, "unread": unread, "unseen": unseen, "cursor": cursor});
        assert_eq!(answer, expected, "{user}: {body}");
    }

    async fn remove(&mut self) {
        let Some(id) = self.rng.choice(self.model.listed.keys().cloned().collect::<Vec<_>>())
        else {
            return;
        };
        match self.rng.bool() {
            true => assert_eq!(withdraw(&self.app, &id).await, 204),
            false => {
                let uuid = uuid::Uuid::from(ulid::Ulid::from_string(&id).unwrap());
                let expire = format!(
                    "update tidings.notification set expires_at = clock_timestamp() where id = '{uuid}'"
                );
                self.app.database.run(&expire).await;
            }
        }
        self.model.gone(&id);
    }

    async fn compare_some(&mut self) {
        let (user, topics) = (self.user(), self.one_of(&TOPICS));
        let filter = if self.rng.u8(..4) == 0 { "" } else { self.one_of(&FILTERS) };
        self.compare(user, topics, filter).await;
    }

    async fn compare_all(&mut self) {
        for user in ["ada", "bob"] {
            for topics in TOPICS {
                for filter in FILTERS.iter().chain(&[""]) {
                    self.compare(user, topics, filter).await;
                }
            }
        }
    }

    async fn compare(&mut self, user: &str, topics: &str, filter: &str) {
        let order = self.one_of(&["asc", "desc"]);
        let limit = self.rng.usize(1..20);
        let state = if filter.is_empty() { String::new() } else { format!("&state={filter}") };
        let query = format!("limit={limit}&topics={topics}{state}");
        let rows = listed(&self.app, user, order, &query).await;
        let rows: Vec<(String, Bits)> = rows
            .iter()
            .map(|row| (row["id"].as_str().unwrap().to_owned(), Bits::of(row)))
            .collect();
        let mut expected = self.model.list(user, topics, filter);
        if order == "desc" {
            expected.reverse();
        }
        assert_eq!(rows, expected, "{user}: {query}");
        let counts = counted(&self.app, user, topics).await;
        assert_eq!(counts, self.model.counts(user, topics), "{user}: {topics}");
    }
}

fn list(topics: &str) -> Vec<&str> {
    topics.split(',').filter(|topic| !topic.is_empty()).collect()
}
