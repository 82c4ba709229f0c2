//! What an inbox has to be, the simplest way: three bits for each user and notification.

use std::collections::BTreeMap;

use serde_json::Value;

pub const STATES: [&str; 5] = ["seen", "read", "unread", "archived", "unarchived"];
pub const FILTERS: [&str; 6] = ["unread", "read", "unseen", "seen", "archived", "unarchived"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    pub seen: bool,
    pub read: bool,
    pub archived: bool,
}

impl Bits {
    /// As the row of a history says.
    pub fn of(row: &Value) -> Bits {
        let bit = |name: &str| row[name].as_bool().expect("a bit");
        Bits { seen: bit("seen"), read: bit("read"), archived: bit("archived") }
    }

    pub fn change(&mut self, state: &str) {
        match state {
            "seen" => self.seen = true,
            "read" => (self.seen, self.read) = (true, true),
            "unread" => self.read = false,
            "archived" => self.archived = true,
            "unarchived" => self.archived = false,
            other => panic!("no state: {other}"),
        }
    }

    pub fn is(self, filter: &str) -> bool {
        match filter {
            "" => true,
            "unread" => !self.read && !self.archived,
            "unseen" => !self.seen && !self.archived,
            "read" => self.read,
            "seen" => self.seen,
            "archived" => self.archived,
            "unarchived" => !self.archived,
            other => panic!("no filter: {other}"),
        }
    }
}

#[derive(Default)]
struct User {
    known: bool,
    bits: BTreeMap<String, Bits>,
}

/// All of an app.
pub struct Model {
    users: BTreeMap<String, User>,
    /// What is listed, with its audience.
    pub listed: BTreeMap<String, String>,
    replaceable: BTreeMap<(String, String), String>,
}

impl Model {
    pub fn of(users: &[&str]) -> Model {
        let users = users.iter().map(|user| ((*user).to_owned(), User::default())).collect();
        Model { users, listed: BTreeMap::new(), replaceable: BTreeMap::new() }
    }

    pub fn send(&mut self, id: &str, audience: &str, replaces: Option<&str>) {
        self.listed.insert(id.to_owned(), audience.to_owned());
        for (name, user) in &mut self.users {
            let own = audience == format!("user:{name}");
            user.known |= own;
            let old = !user.known;
            user.bits.insert(id.to_owned(), Bits { seen: old, read: old, archived: false });
        }
        if let Some(key) = replaces {
            let place = (audience.to_owned(), key.to_owned());
            if let Some(old) = self.replaceable.insert(place, id.to_owned()) {
                self.gone(&old);
            }
        }
    }

    pub fn gone(&mut self, id: &str) {
        self.listed.remove(id);
    }

    pub fn known(&mut self, user: &str) {
        self.users.get_mut(user).expect("a user of the model").known = true;
    }

    /// Changes some and returns how many became others.
    pub fn change_ids(&mut self, user: &str, ids: &[String], state: &str) -> u64 {
        let of_others =
            |audience: &str| audience.starts_with("user:") && audience != format!("user:{user}");
        let (listed, found) = (&self.listed, self.users.get_mut(user).expect("a user"));
        found.known = true;
        let mut changed = 0;
        for id in ids {
            if listed.get(id).is_none_or(|audience| of_others(audience)) {
                continue;
            }
            let bits = found.bits.get_mut(id).expect("bits of all");
            let before = *bits;
            bits.change(state);
            changed += u64::from(*bits != before);
        }
        changed
    }

    pub fn change_up_to(&mut self, user: &str, up_to: &str, topics: &str, state: &str) -> u64 {
        let ids: Vec<String> = self.in_lists(user, topics).map(|(id, _)| id.clone()).collect();
        let ids: Vec<String> = ids.into_iter().filter(|id| id.as_str() <= up_to).collect();
        self.change_ids(user, &ids, state)
    }

    fn in_lists(&self, user: &str, topics: &str) -> impl Iterator<Item = (&String, &String)> {
        let mut audiences = vec![format!("user:{user}"), "everyone".to_owned()];
        audiences.extend(topics.split(',').map(|topic| format!("topic:{topic}")));
        self.listed.iter().filter(move |(_, audience)| audiences.contains(audience))
    }

    /// A history, oldest first.
    pub fn list(&self, user: &str, topics: &str, filter: &str) -> Vec<(String, Bits)> {
        let bits = &self.users[user].bits;
        self.in_lists(user, topics)
            .map(|(id, _)| (id.clone(), bits[id]))
            .filter(|(_, bits)| bits.is(filter))
            .collect()
    }

    /// Unread and unseen ones.
    pub fn counts(&self, user: &str, topics: &str) -> (u64, u64) {
        let count = |filter| self.list(user, topics, filter).len() as u64;
        (count("unread"), count("unseen"))
    }
}
