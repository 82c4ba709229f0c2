//! `?format=envelope`: data says whose it is and what it is, in the same bytes everywhere.

use serde_json::{Value, json};

use crate::harness::{Frame, Request, SseClient, TestApp};
use crate::problems::refuses;

const ZERO: &str = "00000000000000000000000000";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";

/// Sends what `body` says and returns the id and the time of the answer.
async fn send(app: &TestApp, body: &str) -> (String, String) {
    let answer = Request::json("/api/notifications/send/shop", body).send(app.address).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("id"), text("created_at"))
}

async fn replayed(app: &TestApp, query: &str) -> Vec<Frame> {
    let path = format!("{SUBSCRIBE}{query}");
    SseClient::connect(app.address, &path, Some(ZERO)).await.replay().await.0
}

#[tokio::test]
async fn an_envelope_has_the_same_bytes_live_and_replayed_on_every_instance() {
    let one = TestApp::start().await;
    let two = TestApp::on(one.database.clone(), |_| {}).await;
    let query = "?topics=a%20%22b%22&format=envelope";
    let mut live = [
        one.subscribe(&format!("shop/ada{query}")).await,
        two.subscribe(&format!("shop/ada{query}")).await,
    ];
    let mut plain = one.subscribe("shop/ada?topics=a%20%22b%22").await;
    let data = r#"{"b":1.0,"a":"\u00e4ä \"","a":18446744073709551616}"#;
    let mut expected = Vec::new();
    for (at, event, to) in [
        (&one, None, r#"{"user":"ada"}"#),
        (&two, Some("order.shipped"), r#"{"topic":"a \"b\""}"#),
        (&one, Some("x"), "\"everyone\""),
        (&two, None, "\"everyone\""),
    ] {
        let event_member = event.map_or(String::new(), |event| format!(",\"event\":\"{event}\""));
        let (id, time) =
            send(at, &format!("{{\"to\":{to}, \"data\" : {data}{event_member}}}")).await;
        let name = event.map_or("null".to_owned(), |event| format!("\"{event}\""));
        let envelope = format!(
            "{{\"id\":\"{id}\",\"event\":{name},\"audience\":{to},\"created_at\":\"{time}\",\"data\":{data}}}"
        );
        expected.push((id, event, envelope));
    }

    for client in &mut live {
        for (id, event, envelope) in &expected {
            let frame = client.notification().await;
            assert_eq!((frame.id(), frame.event.as_deref()), (id.as_str(), *event));
            assert_eq!(frame.data.as_deref(), Some(envelope.as_str()));
        }
        client.expect_silence().await;
    }
    for app in [&one, &two] {
        let frames = replayed(app, query).await;
        assert!(frames.iter().map(|f| f.data.as_ref().unwrap()).eq(expected.iter().map(|e| &e.2)));
    }
    // Beside them, whoever did not ask for it gets the data alone.
    for (id, ..) in &expected {
        let frame = plain.notification().await;
        assert_eq!((frame.id(), frame.data.as_deref()), (id.as_str(), Some(data)));
    }
}

#[tokio::test]
async fn an_envelope_says_what_the_history_says() {
    let app = TestApp::start().await;
    send(&app, r#"{"to":"everyone","data":[1],"event":"a"}"#).await;
    send(&app, r#"{"to":{"user":"ada"},"data":"ä"}"#).await;
    send(&app, r#"{"to":{"topic":"t"},"data":1.0}"#).await;
    let path = "/api/notifications/history/shop/ada?order=asc&topics=t";
    let mut history = Request::get(path).send(app.address).await.json();
    let rows = history["notifications"].as_array_mut().unwrap();
    for row in rows.iter_mut() {
        // What a list shows beyond the notification itself.
        let row = row.as_object_mut().unwrap();
        row.retain(|member, _| {
            !["expires_at", "seen", "read", "archived"].contains(&member.as_str())
        });
    }

    let frames = replayed(&app, "?topics=t&format=envelope").await;

    let envelopes: Vec<Value> = frames.iter().map(Frame::json).collect();
    assert_eq!(envelopes.len(), 3);
    assert_eq!(&envelopes, rows);
}

#[tokio::test]
async fn state_entries_and_control_events_are_in_no_envelope() {
    let app = TestApp::start().await;
    let mut live = app.subscribe("shop/ada?format=envelope").await;
    let body = |data| format!(r#"{{"to":{{"user":"ada"}},"data":{data},"replaces":"k"}}"#);
    let (old, _) = send(&app, &body(1)).await;
    let (new, _) = send(&app, &body(2)).await;

    let mut plain = app.subscribe("shop/ada").await;
    let ping = |frame: &Frame| frame.is("tidings.ping");
    let members =
        |frame: Frame| frame.json().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(plain.next_that(ping).await), members(live.next_that(ping).await));
    let replayed_plain = replayed(&app, "").await;
    let replayed_envelope = replayed(&app, "?format=envelope").await;

    let entry = replayed_envelope.last().unwrap();
    assert!(entry.is("tidings.state"), "{entry:?}");
    assert_eq!(entry.json(), json!({"ids": [old], "state": "replaced", "by": new}));
    assert_eq!(replayed_plain.last(), Some(entry));
}

#[tokio::test]
async fn another_format_is_refused() {
    let app = TestApp::start().await;
    for format in ["", "data", "Envelope", "envelope%20"] {
        let shown = format.replace("%20", " ");
        let detail = format!("format is not envelope: {shown:?}; leave it out for the data alone.");
        let request = Request::get(format!("{SUBSCRIBE}?format={format}"));
        refuses(&app, &request, 400, "invalid-parameter", &detail).await;
    }
}
