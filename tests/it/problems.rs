//! What a client does wrong is said exactly: status, type, and a detail that names thing and remedy;
//! and nothing is stored.

use chrono::TimeDelta;
use tidings::clock::{Clock, rfc3339};

use crate::harness::{Answer, Request, TestApp};

const SEND: &str = "/api/notifications/send/shop/ada";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const HISTORY: &str = "/api/notifications/history/shop/ada";
const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// The answer is this problem, whole.
pub fn expect_problem(case: &str, answer: &Answer, status: u16, slug: &str, detail: &str) {
    assert_eq!(answer.status, status, "{case}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{case}");
    let body = answer.json();
    assert_eq!(body["type"], format!("urn:tidings:problem:{slug}"), "{case}");
    assert_eq!(body["detail"], detail, "{case}");
    assert_eq!(body["status"], status, "{case}");
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{case}");
    // A server's mistake is looked up by this; a client's explains itself.
    let id = answer.header("x-request-id").filter(|_| status >= 500);
    assert_eq!(body["request_id"].as_str(), id, "{case}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{case}");
}

/// The request is answered with this problem, and nothing is stored.
pub async fn refuses(app: &TestApp, request: &Request, status: u16, slug: &str, detail: &str) {
    let case = request.to_string();
    let answer = request.send(app.address).await;
    expect_problem(&case, &answer, status, slug, detail);
    assert_eq!(app.database.count().await, 0, "{case}: stored");
}

#[tokio::test]
async fn a_path_that_names_nobody_is_refused() {
    let app = TestApp::start().await;
    let too_long = "a".repeat(129);
    for (name, why) in [
        ("", "is empty: give a name of 1 to 128 characters."),
        ("%20", "is only white space: give a name."),
        (".", "is a path of dots, which clients resolve away: give another name."),
        ("%2e%2E", "is a path of dots, which clients resolve away: give another name."),
        ("a%0Ab", "has a control character: remove it."),
        ("a%C2%85", "has a control character: remove it."),
        ("%00", "has a control character: remove it."),
        (too_long.as_str(), "is longer than 128 characters: give a shorter name."),
        ("%ff", "is not UTF-8 after percent-decoding."),
    ] {
        for (method, route) in [("POST", "send"), ("GET", "subscribe"), ("GET", "history")] {
            let base = format!("/api/notifications/{route}");
            for (path, slug, what) in [
                (format!("{base}/{name}/ada"), "invalid-app", "The app"),
                (format!("{base}/shop/{name}"), "invalid-user", "The user"),
            ] {
                let request = Request::new(method, path)
                    .header("content-type", "text/plain")
                    .header("accept", "text/event-stream");
                refuses(&app, &request, 400, slug, &format!("{what} {why}")).await;
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_notification_is_refused() {
    let app = TestApp::start().await;
    let data = |data: &str| format!("{{\"data\":{data}}}");
    let event = |event: &str| format!("{{\"data\":1,\"event\":{event}}}");
    let no_object = "The body is not a JSON object";
    let form = "has to be 1 to 64 characters of A-Z a-z 0-9 _ . : -.";
    let reserved =
        "is reserved: tidings.* are control events; open, error and message are the browser's own.";
    let surrogate = "send the whole pair or the character itself.";
    let nested = format!("{}{}", "[".repeat(129), "]".repeat(129));
    for (body, slug, detail) in [
        (
            "".into(),
            "invalid-json",
            "The body is empty: give a JSON object.".into(),
        ),
        (
            "{".into(),
            "invalid-json",
            format!("{no_object}: EOF while parsing an object at line 1 column 1."),
        ),
        (
            "{\"data\":1} x".into(),
            "invalid-json",
            format!("{no_object}: trailing characters at line 1 column 12."),
        ),
        (
            "[1]".into(),
            "invalid-json",
            "The body is JSON, but not an object: give one, in braces.".into(),
        ),
        (
            "\u{feff}{\"data\":1}".into(),
            "invalid-json",
            format!("{no_object}: expected value at line 1 column 1."),
        ),
        (data("01"), "invalid-json", format!("{no_object}: invalid number at line 1 column 10.")),
        (
            "{}".into(),
            "missing-data",
            "The member data is missing: give any JSON, null for none.".into(),
        ),
        (event("\"a b\""), "invalid-event", format!("The event \"a b\" {form}")),
        (event("\"\""), "invalid-event", format!("The event \"\" {form}")),
        (event("\"a\\n\""), "invalid-event", format!("The event \"a\\n\" {form}")),
        (
            event("\"tidings.live\""),
            "invalid-event",
            format!("The event \"tidings.live\" {reserved}"),
        ),
        (event("\"open\""), "invalid-event", format!("The event \"open\" {reserved}")),
        (event("\"error\""), "invalid-event", format!("The event \"error\" {reserved}")),
        (event("\"message\""), "invalid-event", format!("The event \"message\" {reserved}")),
        (
            event("17"),
            "invalid-event",
            "The event is not a string: give one, or leave it out.".into(),
        ),
        (
            event("null"),
            "invalid-event",
            "The event is not a string: give one, or leave it out.".into(),
        ),
        (
            data("\"\\u0000\""),
            "invalid-data",
            "The data has the escape \\u0000, which no text can hold: remove it.".into(),
        ),
        (
            data("{\"\\u0000\":1}"),
            "invalid-data",
            "The data has the escape \\u0000, which no text can hold: remove it.".into(),
        ),
        (
            data("\"\\ud800\""),
            "invalid-data",
            format!("The data has an unpaired surrogate escape (\\ud800): {surrogate}"),
        ),
        (
            data("\"\\uDE00\\uD83D\""),
            "invalid-data",
            format!("The data has an unpaired surrogate escape (\\uDE00): {surrogate}"),
        ),
        (data(&nested), "invalid-data", "The data is nested deeper than 128: flatten it.".into()),
        (
            "{\"data\":1,\"data\":2}".into(),
            "invalid-field",
            "The member data is given twice: give it once.".into(),
        ),
        (
            "{\"data\":1,\"event\":\"a\",\"event\":\"a\"}".into(),
            "invalid-field",
            "The member event is given twice: give it once.".into(),
        ),
        (
            event("\"\\ud800\""),
            "invalid-event",
            "The event has an unpaired surrogate escape: send the whole pair or the character itself, or leave it out.".into(),
        ),
        (
            format!("{{\"data\":1,\"{}\":5}}", "\\n".repeat(200)),
            "unknown-field",
            format!("There is no member \"{}\"…: a notification has data, event, expires_in, replaces, deliver_at.", "\\n".repeat(128)),
        ),
        (
            "{\"data\":1,\"expires-in\":5}".into(),
            "unknown-field",
            "There is no member \"expires-in\": a notification has data, event, expires_in, replaces, deliver_at.".into(),
        ),
        (
            "{\"data\":1,\"Event\":\"a\"}".into(),
            "unknown-field",
            "There is no member \"Event\": a notification has data, event, expires_in, replaces, deliver_at.".into(),
        ),
    ] {
        refuses(&app, &Request::json(SEND, body), 400, slug, &detail).await;
    }
    let not_utf8 = Request::text(SEND, b"\xff");
    refuses(&app, &not_utf8, 400, "invalid-data", "The text is not UTF-8: send it as UTF-8.").await;
    let nul = "The data has the escape \\u0000, which no text can hold: remove it.";
    refuses(&app, &Request::text(SEND, "a\0"), 400, "invalid-data", nul).await;
}

#[tokio::test]
async fn a_query_with_a_mistake_is_refused() {
    let app = TestApp::start().await;
    let since = |text: &str| {
        format!("since is not RFC 3339: {text:?}; write it like 2026-11-22T12:00:00Z.")
    };
    let limit = |text: &str| format!("limit is not a number from 1 to 500: {text:?}.");
    let there_is_no = |name: &str, known: &str| {
        format!("There is no parameter {name:?}: this route has {known}.")
    };
    let of_history = "limit, order, before, after, topics, state";
    let one_of = "/api/notifications/notification/shop/01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (path, query, slug, detail) in [
        (
            SUBSCRIBE,
            "last_event_id=17",
            "invalid-cursor",
            "last_event_id is not a ULID: \"17\"; give the id of an event, or earliest.".into(),
        ),
        (
            SUBSCRIBE,
            "lastEventId=Earliest",
            "invalid-cursor",
            "lastEventId is not a ULID: \"Earliest\"; give the id of an event, or earliest.".into(),
        ),
        (
            SUBSCRIBE,
            "lastEventID=81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "invalid-cursor",
            "lastEventID is not a ULID: \"81ARZ3NDEKTSV4RRFFQ69G5FAV\"; give the id of an event, or earliest.".into(),
        ),
        (SUBSCRIBE, "since=yesterday", "invalid-parameter", since("yesterday")),
        (SUBSCRIBE, "since=", "invalid-parameter", since("")),
        (SUBSCRIBE, "since=2026-11-22T12:00:00", "invalid-parameter", since("2026-11-22T12:00:00")),
        (
            SUBSCRIBE,
            &format!("since=2026-11-22T12:00:00Z&last_event_id={ID}"),
            "invalid-parameter",
            "Both since and last_event_id are given: give one of them.".into(),
        ),
        (
            SUBSCRIBE,
            &format!("lastEventId={ID}&last_event_id={ID}"),
            "invalid-parameter",
            "The cursor is given under two names: give it once.".into(),
        ),
        (
            SUBSCRIBE,
            "since=a&since=b",
            "invalid-parameter",
            "The parameter \"since\" is given twice: give it once.".into(),
        ),
        (
            SUBSCRIBE,
            "since=%ff",
            "invalid-parameter",
            "The query is not UTF-8 after percent-decoding.".into(),
        ),
        (
            SUBSCRIBE,
            "last-event-id=17",
            "unknown-parameter",
            there_is_no("last-event-id", "last_event_id, since, topics, format"),
        ),
        (
            SUBSCRIBE,
            "state=read",
            "unknown-parameter",
            there_is_no("state", "last_event_id, since, topics, format"),
        ),
        (HISTORY, "limit=0", "invalid-parameter", limit("0")),
        (HISTORY, "limit=501", "invalid-parameter", limit("501")),
        (HISTORY, "limit=", "invalid-parameter", limit("")),
        (
            HISTORY,
            "order=newest",
            "invalid-parameter",
            "order is neither asc nor desc: \"newest\".".into(),
        ),
        (HISTORY, "before=17", "invalid-cursor", "before is not a ULID: \"17\"; give the id of a notification.".into()),
        (HISTORY, "after=earliest", "invalid-cursor", "after is not a ULID: \"earliest\"; give the id of a notification.".into()),
        (HISTORY, "offset=50", "unknown-parameter", there_is_no("offset", of_history)),
        (HISTORY, "format=envelope", "unknown-parameter", there_is_no("format", of_history)),
        (one_of, "limit=1", "unknown-parameter", there_is_no("limit", "none")),
    ] {
        refuses(&app, &Request::get(format!("{path}?{query}")), 400, slug, &detail).await;
    }
    let send = Request::text(format!("{SEND}?event=a"), "hello");
    refuses(&app, &send, 400, "unknown-parameter", &there_is_no("event", "none")).await;
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_by_the_name_of_the_limit() {
    let app = TestApp::with(|config| (config.max_data, config.max_body) = (100, 1000)).await;
    let data = "The data has 101 bytes as compact JSON, over the limit of 100 (TIDINGS_MAX_DATA): send less, or a link to it.";
    let body = "The body is over the limit of 1000 bytes (TIDINGS_MAX_BODY): send less.";
    let string = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
    for (request, detail) in [
        (Request::json(SEND, format!("{{\"data\": {}}}", string(101))), data),
        (Request::text(SEND, "a".repeat(99)), data),
        (Request::text(SEND, "a".repeat(1001)), body),
        (Request::json(SEND, format!("{{\"data\":1{}}}", " ".repeat(1000))), body),
    ] {
        refuses(&app, &request, 413, "too-large", detail).await;
    }
    let padded = Request::json(SEND, format!("{{\"data\":{}{}}}", string(100), " ".repeat(891)));
    assert_eq!(padded.body.len(), 1000);
    assert_eq!(padded.send(app.address).await.status, 201, "both limits are inclusive");
}

#[tokio::test]
async fn a_send_that_has_too_much_for_all_its_users_is_refused_and_not_told_to_come_again() {
    let app = TestApp::start().await;
    let users: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let now = serde_json::json!({"to": {"users": users}, "data": "x".repeat(65_000)});
    let mut later = now.clone();
    later["deliver_at"] = rfc3339(Clock::default().now() + TimeDelta::days(1)).into();

    for body in [now, later] {
        let answer =
            Request::json("/api/notifications/send/shop", body.to_string()).send(app.address).await;

        assert_eq!((answer.status, answer.header("retry-after")), (413, None));
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:tidings:problem:too-large");
        let detail = problem["detail"].as_str().unwrap();
        let remedy = "over the limit of 16777216: send to fewer users at once";
        assert!(detail.contains(remedy), "{detail}");
        assert_eq!(app.database.count().await, 0);
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused_with_the_header_to_add() {
    let app = TestApp::start().await;
    let remedy = "add -H 'content-type: text/plain' for a text, or -H 'content-type: application/json' for {\"data\": …}.";
    for (kind, detail) in [
        (None, format!("The body is of no type: {remedy}")),
        (
            Some("application/x-www-form-urlencoded"),
            format!("The body is application/x-www-form-urlencoded: {remedy}"),
        ),
        (Some("application/jsonp"), format!("The body is application/jsonp: {remedy}")),
        (
            Some("text/plain; charset=latin1"),
            "The body is text/plain; charset=latin1: send it as UTF-8.".into(),
        ),
        (
            Some("application/json;charset=\"UTF-16\""),
            "The body is application/json;charset=\"UTF-16\": send it as UTF-8.".into(),
        ),
    ] {
        let request = Request::new("POST", SEND).body("{\"data\":1}");
        let request = kind.into_iter().fold(request, |r, kind| r.header("content-type", kind));
        refuses(&app, &request, 415, "unsupported-media-type", &detail).await;
    }
    let packed = Request::new("POST", SEND)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("{\"data\":1}");
    let detail = "The body is encoded as \"gzip\": send it as it is, without Content-Encoding.";
    refuses(&app, &packed, 415, "unsupported-media-type", detail).await;
}

#[tokio::test]
async fn a_route_for_json_alone_suggests_nothing_else() {
    let app = TestApp::start().await;
    for (path, form) in [
        ("send/shop", "{\"to\": …, \"data\": …}"),
        ("batch/shop", "{\"notifications\": […]}"),
        ("state/shop/ada", "{\"up_to\": …, \"state\": …}"),
    ] {
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let request = Request::new("POST", format!("/api/notifications/{path}"))
                .header("content-type", kind)
                .body("{}");
            let detail = format!(
                "The body is {kind}: this route takes JSON alone, add -H 'content-type: application/json' for {form}."
            );
            refuses(&app, &request, 415, "unsupported-media-type", &detail).await;
        }
    }
}

#[tokio::test]
async fn a_body_where_none_is_read_is_refused() {
    let app = TestApp::start().await;
    let id = app.send("shop/ada", "1").await.id;
    let detail = "This route takes no body, the path says everything: leave the body out.";
    for (method, path) in [("POST", "withdraw"), ("DELETE", "scheduled")] {
        let path = format!("/api/notifications/{path}/shop/{id}");
        let request = Request::new(method, &path).body("{\"reason\":\"a mistake\"}");
        let answer = request.send(app.address).await;
        expect_problem(&path, &answer, 400, "invalid-field", detail);
    }
    let kept = Request::get(format!("/api/notifications/notification/shop/{id}"));
    assert_eq!(kept.send(app.address).await.status, 200, "it was not withdrawn");
}
