//! What is sent: requests whose rows can be recognised wherever they turn up.

use fastrand::Rng;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::history::{SendNumber, Way};
use crate::plan::{APPS, TOPICS, USERS};

/// One send, before it is made.
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    pub(crate) number: SendNumber,
    pub(crate) app: &'static str,
    pub(crate) way: Way,
    pub(crate) key: Option<String>,
    pub(crate) event: Option<String>,
    /// Members of each entry that make rows go: they replace another one, or expire.
    going: String,
    /// Audience and data of each row.
    pub(crate) rows: Vec<(String, String)>,
}

const SLOTS: u32 = 3; // few, so that there is something to replace
const LARGE: usize = 8000; // a page of these is cut by bytes
/// What a server might alter: escapes that only look forbidden, white space, numbers, no ASCII.
const TRICKY: [&str; 6] = [
    r#""a  b""#,
    r#""\\u0000""#,
    r#""\u00e9é\/""#,
    "1.0",
    "18446744073709551616",
    r#"{"b":1,"a":[]}"#,
];

impl Composed {
    /// Some send over HTTP.
    pub(crate) fn random(number: SendNumber, rng: &mut Rng) -> Self {
        let app = APPS[rng.usize(..APPS.len())];
        let (way, rows) = match rng.u32(..10) {
            0..=4 => (Way::User, vec![(user(rng), data(number, 0, rng))]),
            5..=7 => (Way::To, vec![(audience(rng), data(number, 0, rng))]),
            8 => (Way::To, to_some_users(number, rng)),
            _ => {
                let count = rng.usize(1..=12);
                (Way::Batch, (0..count).map(|i| (audience(rng), data(number, i, rng))).collect())
            }
        };
        // The rows of a batch have no common name; each could have its own, but one is enough.
        let event = (rng.u32(..4) == 0).then(|| format!("kind.{}", rng.u32(..3)));
        let key = rng.bool().then(|| format!("key-{number}"));
        let going = match rng.u32(..20) {
            0 | 1 => format!(r#","replaces":"slot-{}""#, rng.u32(..SLOTS)),
            2 => format!(r#","expires_in":{}"#, rng.u32(1..=3)),
            _ => String::new(),
        };
        Self { number, app, way, key, event, going, rows }
    }

    /// Some rows in a transaction.
    pub(crate) fn sql(number: SendNumber, rng: &mut Rng) -> Self {
        let app = APPS[rng.usize(..APPS.len())];
        let rows = (0..rng.usize(1..=3)).map(|i| (audience(rng), data(number, i, rng))).collect();
        let event = (rng.u32(..4) == 0).then(|| "kind.sql".to_owned());
        Self { number, app, way: Way::Sql, key: None, event, going: String::new(), rows }
    }

    /// A send to everyone in an app that is repeated until it is stored.
    pub(crate) fn marker(number: SendNumber, app: &'static str, marker: u64) -> Self {
        let data = format!(r#"{{"n":{number},"i":0,"marker":{marker}}}"#);
        let rows = vec![("everyone".to_owned(), data)];
        let key = Some(format!("marker-{number}"));
        Self { number, app, way: Way::To, key, event: None, going: String::new(), rows }
    }

    /// Its rows need not be delivered: they expire, or may be replaced.
    pub(crate) fn is_fleeting(&self) -> bool {
        !self.going.is_empty()
    }

    /// The whole HTTP request.
    pub(crate) fn request(&self) -> String {
        let path = match self.way {
            Way::Batch => format!("batch/{}", self.app),
            Way::User => {
                let (audience, _) = &self.rows[0];
                let user = audience.strip_prefix("user:").unwrap_or(audience);
                format!("send/{}/{}", self.app, utf8_percent_encode(user, NON_ALPHANUMERIC))
            }
            _ => format!("send/{}", self.app),
        };
        let key =
            self.key.as_ref().map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
        let body = self.body();
        format!(
            "POST /api/notifications/{path} HTTP/1.1\r\nHost: localhost\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn body(&self) -> String {
        let event =
            self.event.as_ref().map_or_else(String::new, |name| format!(r#","event":"{name}""#));
        let going = &self.going;
        let entry = |to: &str, data: &str| format!(r#"{{{to}"data":{data}{event}{going}}}"#);
        match self.way {
            Way::User => entry("", &self.rows[0].1),
            Way::Batch => {
                let entries: Vec<String> = self
                    .rows
                    .iter()
                    .map(|(audience, data)| entry(&format!(r#""to":{},"#, to(audience)), data))
                    .collect();
                format!(r#"{{"notifications":[{}]}}"#, entries.join(","))
            }
            _ if self.rows.len() > 1 => {
                let users: Vec<&str> = self
                    .rows
                    .iter()
                    .filter_map(|(audience, _)| audience.strip_prefix("user:"))
                    .collect();
                let to = serde_json::json!({ "users": users });
                entry(&format!(r#""to":{to},"#), &self.rows[0].1)
            }
            _ => entry(&format!(r#""to":{},"#, to(&self.rows[0].0)), &self.rows[0].1),
        }
    }
}

fn user(rng: &mut Rng) -> String {
    format!("user:{}", USERS[rng.usize(..USERS.len())])
}

fn audience(rng: &mut Rng) -> String {
    match rng.u32(..5) {
        0 => "everyone".to_owned(),
        1 | 2 => format!("topic:{}", TOPICS[rng.usize(..TOPICS.len())]),
        _ => user(rng),
    }
}

fn to_some_users(number: SendNumber, rng: &mut Rng) -> Vec<(String, String)> {
    let data = data(number, 0, rng);
    let count = rng.usize(1..=USERS.len());
    // A list of one is sent as one user, which is answered otherwise.
    rng.choose_multiple(USERS, count)
        .into_iter()
        .map(|user| (format!("user:{user}"), data.clone()))
        .collect()
}

/// Compact, as a server has to keep it; its send's number and its place in it come first.
fn data(number: SendNumber, place: usize, rng: &mut Rng) -> String {
    let tricky = TRICKY[rng.usize(..TRICKY.len())];
    let length = if rng.u32(..50) == 0 { LARGE } else { rng.usize(..120) };
    format!(r#"{{"n":{number},"i":{place},"t":{tricky},"p":"{}"}}"#, "x".repeat(length))
}

/// The audience as the member `to`.
fn to(audience: &str) -> String {
    match audience.split_once(':') {
        Some((kind, name)) => serde_json::json!({ kind: name }).to_string(),
        None => format!(r#""{audience}""#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_is_json_and_says_what_its_rows_say() {
        let mut rng = Rng::with_seed(7);
        for number in 0..2000 {
            let send = Composed::random(number, &mut rng);
            let body: serde_json::Value = serde_json::from_str(&send.body()).unwrap();
            let entries = match send.way {
                Way::Batch => body["notifications"].as_array().unwrap().clone(),
                _ => vec![body],
            };
            for ((audience, data), entry) in send.rows.iter().zip(&entries) {
                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                assert_eq!((&entry["data"], data["n"].as_u64()), (&data, Some(number)));
                if send.way != Way::User && send.rows.len() == entries.len() {
                    assert_eq!(entry["to"].to_string(), to(audience));
                }
            }
        }
    }
}
