//! Sends to more than one user: whom they reach, in which order, and what is refused whole.

use crate::harness::{Request, TestApp};
use crate::problems::{expect_problem, refuses};

const SEND_TO: &str = "/api/notifications/send/shop";
const BATCH: &str = "/api/notifications/batch/shop";

fn ids(answer: &crate::harness::Answer) -> Vec<String> {
    assert_eq!(answer.status, 201, "{}", answer.text());
    let body = answer.json();
    let ids = body["ids"].as_array().expect("a list of ids");
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_row_reaches_everyone_and_one_row_each_the_users_of_a_list() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let mut bob = app.subscribe("shop/bob").await;

    let everyone = Request::json(SEND_TO, r#"{"to":"everyone","data":1}"#).send(app.address).await;
    let everyone = everyone.json()["id"].as_str().unwrap().to_owned();
    let one = Request::json(SEND_TO, r#"{"to":{"user":"bob"},"data":2}"#).send(app.address).await;
    let one = one.json()["id"].as_str().unwrap().to_owned();
    let list = r#"{"to":{"users":["bob","ada","bob"]},"data":3}"#;
    let list = ids(&Request::json(SEND_TO, list).send(app.address).await);

    assert_eq!(list.len(), 2, "a user named twice gets one");
    assert_eq!(app.database.count().await, 4);
    ada.expect([&everyone, &list[1]]).await;
    bob.expect([&everyone, &one, &list[0]]).await;
    ada.expect_silence().await;
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_batch_is_stored_in_its_order_without_a_hole() {
    let app = TestApp::start().await;
    let mut ada = app.subscribe("shop/ada").await;
    let entries: Vec<String> =
        (0..1000).map(|n| format!(r#"{{"to":{{"user":"ada"}},"data":{n}}}"#)).collect();
    let body = format!(r#"{{"notifications":[{}]}}"#, entries.join(","));

    let ids = ids(&Request::json(BATCH, body).send(app.address).await);

    let positions: Vec<u128> =
        ids.iter().map(|id| u128::from(ulid::Ulid::from_string(id).unwrap()) >> 65).collect();
    assert_eq!(positions.len(), 1000);
    assert!(positions.windows(2).all(|two| two[1] == two[0] + 1));
    for (n, id) in ids.iter().enumerate() {
        let frame = ada.notification().await;
        assert_eq!((frame.id(), frame.data.as_deref()), (id.as_str(), Some(&*n.to_string())));
    }
}

#[tokio::test]
async fn a_batch_with_a_bad_entry_is_refused_whole_and_says_which() {
    let app = TestApp::start().await;
    let good = r#"{"to":"everyone","data":1}"#;
    let missing_to = "The member to is missing: give \"everyone\", {\"user\":…}, {\"topic\":…} or {\"users\":[…]}.";
    for (bad, slug, detail) in [
        (r#"{"data":1}"#, "invalid-field", missing_to),
        (
            r#"{"to":"everyone"}"#,
            "missing-data",
            "The member data is missing: give any JSON, null for none.",
        ),
        (
            r#"{"to":{"user":" "},"data":1}"#,
            "invalid-user",
            "The user is only white space: give a name.",
        ),
        (
            r#"{"to":"everyone","data":1,"deliver_at":"2030-01-01T00:00:00Z"}"#,
            "invalid-field",
            "The member deliver_at is not allowed in a batch: schedule each by itself.",
        ),
        (
            r#"{"to":"everyone","data":1,"expiresIn":1}"#,
            "unknown-field",
            "There is no member \"expiresIn\": a notification has to, data, event, expires_in, replaces.",
        ),
        (r#"17"#, "invalid-json", "The entry is JSON, but not an object: give one, in braces."),
    ] {
        let body = format!(r#"{{"notifications":[{good},{good},{bad},{good}]}}"#);
        let answer = Request::json(BATCH, body).send(app.address).await;
        let detail = format!("In notifications[2]: {detail}");
        expect_problem(bad, &answer, 400, slug, &detail);
        assert_eq!(answer.json()["index"], 2, "{bad}");
        assert_eq!(app.database.count().await, 0, "{bad}");
    }
}

#[tokio::test]
async fn a_batch_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let entry = r#"{"to":"everyone","data":1}"#;
    let too_many = format!(r#"{{"notifications":[{}]}}"#, vec![entry; 1001].join(","));
    let list = r#"{"to":{"users":["a","b"]},"data":1}"#;
    let too_many_users = format!(r#"{{"notifications":[{}]}}"#, vec![list; 501].join(","));
    for (body, slug, detail) in [
        (
            r#"{"notifications":[]}"#,
            "invalid-field",
            "The list notifications has 0 entries: give 1 to 1000.",
        ),
        (&too_many, "invalid-field", "The list notifications has 1001 entries: give 1 to 1000."),
        (
            &too_many_users,
            "invalid-field",
            "The batch has more than 1000 notifications, one for each user: send it in parts.",
        ),
        ("{}", "invalid-field", "The member notifications is missing: give a list."),
        (
            r#"{"notifications":{}}"#,
            "invalid-field",
            "The member notifications is not a list: give one.",
        ),
        (
            r#"{"notifications":[],"to":"everyone"}"#,
            "unknown-field",
            "There is no member \"to\": a batch has notifications alone.",
        ),
    ] {
        refuses(&app, &Request::json(BATCH, body), 400, slug, detail).await;
    }
}

#[tokio::test]
async fn an_addressee_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let none = "The member to is none of \"everyone\", {\"user\":…}, {\"topic\":…} and {\"users\":[…]}: give one of them.";
    let missing = "The member to is missing: give \"everyone\", {\"user\":…}, {\"topic\":…} or {\"users\":[…]}.";
    let too_many: Vec<String> = (0..1001).map(|n| format!("\"u{n}\"")).collect();
    let too_many = format!(r#"{{"users":[{}]}}"#, too_many.join(","));
    refuses(&app, &Request::json(SEND_TO, r#"{"data":1}"#), 400, "invalid-field", missing).await;
    for (to, slug, detail) in [
        ("null", "invalid-field", none),
        (r#""ada""#, "invalid-field", none),
        (r#"["everyone"]"#, "invalid-field", none),
        ("{}", "invalid-field", none),
        (r#"{"user":1}"#, "invalid-field", "In to, user is not a string: give one."),
        (r#"{"user":"a","topic":"b"}"#, "invalid-field", none),
        (r#"{"users":"a"}"#, "invalid-field", "The member users is not a list: give one."),
        (r#"{"users":["a",1]}"#, "invalid-field", "users[1] is not a string: give one."),
        (
            r#"{"users":["a","\ud800"]}"#,
            "invalid-field",
            "users[1] has an unpaired surrogate escape: send the whole pair or the character itself.",
        ),
        (
            r#"{"group":"a"}"#,
            "unknown-field",
            "There is no member \"group\": to has one of user, topic, users.",
        ),
        (r#"{"users":[]}"#, "invalid-field", "The list users has 0 entries: give 1 to 1000."),
        (&too_many, "invalid-field", "The list users has 1001 entries: give 1 to 1000."),
        (
            r#"{"users":["a","."]}"#,
            "invalid-user",
            "The user users[1] is a path of dots, which clients resolve away: give another name.",
        ),
        (
            r#"{"topic":"a,b"}"#,
            "invalid-topic",
            "The topic \"a,b\" has a comma, which separates topics: remove it.",
        ),
        (
            r#"{"topic":""}"#,
            "invalid-topic",
            "The topic \"\" is empty: give a name of 1 to 128 characters.",
        ),
    ] {
        let body = format!(r#"{{"to":{to},"data":1}}"#);
        refuses(&app, &Request::json(SEND_TO, body), 400, slug, detail).await;
    }
}

#[tokio::test]
async fn an_option_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let send = "/api/notifications/send/shop/ada";
    let expires = "The member expires_in is not a whole number of seconds from 1 to 31536000: give one, or leave it out.";
    let to = "There is no member to here, since the path names the user: leave it out, or send to the app alone.";
    let string = "The member replaces is not a string: give one, or leave it out.";
    let too_long = format!("\"{}\"", "k".repeat(129));
    for (member, slug, detail) in [
        (r#""to":"everyone""#.to_owned(), "unknown-field", to),
        (r#""expires_in":0"#.to_owned(), "invalid-field", expires),
        (r#""expires_in":31536001"#.to_owned(), "invalid-field", expires),
        (r#""expires_in":1.5"#.to_owned(), "invalid-field", expires),
        (r#""expires_in":"60""#.to_owned(), "invalid-field", expires),
        (r#""expires_in":null"#.to_owned(), "invalid-field", expires),
        (r#""replaces":17"#.to_owned(), "invalid-field", string),
        (
            r#""replaces":"""#.to_owned(),
            "invalid-field",
            "The member replaces is empty: give a name of 1 to 128 characters.",
        ),
        (
            format!(r#""replaces":{too_long}"#),
            "invalid-field",
            "The member replaces is longer than 128 characters: give a shorter name.",
        ),
        (
            r#""replaces":"\ud800""#.to_owned(),
            "invalid-field",
            "The member replaces has an unpaired surrogate escape: send the whole pair or the character itself, or leave it out.",
        ),
    ] {
        let body = format!(r#"{{"data":1,{member}}}"#);
        refuses(&app, &Request::json(send, body), 400, slug, detail).await;
    }
}
