//! What a client does wrong is said exactly: status, type, and a detail that names thing and remedy;
//! and nothing is stored.

use crate::harness::{Answer, Request, TestApp};

const SEND: &str = "/api/notifications/send/shop/ada";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const HISTORY: &str = "/api/notifications/history/shop/ada";
const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// The answer is this problem, whole.
fn expect_problem(case: &str, answer: &Answer, status: u16, slug: &str, detail: &str) {
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
async fn refuses(app: &TestApp, request: &Request, status: u16, slug: &str, detail: &str) {
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
            format!("{no_object}: EOF while parsing a value at line 1 column 0."),
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
            format!(
                "{no_object}: invalid type: sequence, expected an object with the member data at line 1 column 0."
            ),
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
            "The event is not a string: give a name, or leave it out.".into(),
        ),
        (
            event("null"),
            "invalid-event",
            "The event is not a string: give a name, or leave it out.".into(),
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
            "{\"data\":1,\"expires-in\":5}".into(),
            "unknown-field",
            "There is no member expires-in: a notification has data and event.".into(),
        ),
        (
            "{\"data\":1,\"Event\":\"a\"}".into(),
            "unknown-field",
            "There is no member Event: a notification has data and event.".into(),
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
    let since =
        |text: &str| format!("since is not RFC 3339: {text}; write it like 2026-11-22T12:00:00Z.");
    let limit = |text: &str| format!("limit is not a number from 1 to 500: {text}.");
    let there_is_no =
        |name: &str, known: &str| format!("There is no parameter {name}: this route has {known}.");
    let of_history = "limit, order, before, after";
    let one_of = "/api/notifications/notification/shop/01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (path, query, slug, detail) in [
        (
            SUBSCRIBE,
            "last_event_id=17",
            "invalid-cursor",
            "last_event_id is not a ULID: 17.".into(),
        ),
        (
            SUBSCRIBE,
            "lastEventId=Earliest",
            "invalid-cursor",
            "lastEventId is not a ULID: Earliest.".into(),
        ),
        (
            SUBSCRIBE,
            "lastEventID=81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "invalid-cursor",
            "lastEventID is not a ULID: 81ARZ3NDEKTSV4RRFFQ69G5FAV.".into(),
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
            "The parameter since is given twice: give it once.".into(),
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
            there_is_no("last-event-id", "last_event_id, since"),
        ),
        (
            SUBSCRIBE,
            "state=read",
            "unknown-parameter",
            there_is_no("state", "last_event_id, since"),
        ),
        (HISTORY, "limit=0", "invalid-parameter", limit("0")),
        (HISTORY, "limit=501", "invalid-parameter", limit("501")),
        (HISTORY, "limit=", "invalid-parameter", limit("")),
        (
            HISTORY,
            "order=newest",
            "invalid-parameter",
            "order is neither asc nor desc: newest.".into(),
        ),
        (HISTORY, "before=17", "invalid-cursor", "before is not a ULID: 17.".into()),
        (HISTORY, "after=earliest", "invalid-cursor", "after is not a ULID: earliest.".into()),
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
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_may_not_send() {
    let app = TestApp::start().await;
    for origin in ["https://evil.example", "null", "http://localhost:1", "http://localhost.evil"] {
        let request = Request::text(SEND, "hello").header("origin", origin);
        let detail = format!(
            "A web page of {origin} may not send: add its origin to TIDINGS_CORS_ORIGINS if it is yours."
        );
        refuses(&app, &request, 403, "foreign-origin", &detail).await;
    }
}

#[tokio::test]
async fn a_page_of_ours_or_of_a_configured_origin_may_send() {
    use tidings::config::CorsOrigins::Exactly;
    let ours = "https://app.example".to_owned();
    let app = TestApp::with(|config| config.cors_origins = Exactly(vec![ours])).await;
    let host = app.address.to_string();
    for origin in ["https://app.example", &format!("http://{host}")] {
        let request = Request::text(SEND, "a").header("origin", origin).header("host", &host);
        assert_eq!(request.send(app.address).await.status, 201, "{origin}");
    }
}

#[tokio::test]
async fn a_foreign_host_is_refused_on_every_route() {
    let app = TestApp::start().await;
    for (host, shown) in [
        ("evil.example", "evil.example"),
        ("localhost.evil.example:8080", "localhost.evil.example:8080"),
        ("192.168.0.1", "192.168.0.1"),
        ("evil example", "\"evil example\""),
    ] {
        for path in [
            "/",
            "/livez",
            "/readyz",
            "/metrics",
            "/docs",
            "/docs/",
            "/openapi.json",
            "/nothing",
            SUBSCRIBE,
            HISTORY,
            &format!("/api/notifications/notification/shop/{ID}"),
            "/api/notifications/counts/shop/ada",
            "/api/notifications/send/shop/",
            SEND,
        ] {
            let method = if path == SEND { "POST" } else { "GET" };
            let request = Request::new(method, path)
                .header("host", host)
                .header("content-type", "text/plain");
            let detail = format!(
                "The host {shown} is not localhost, 127.0.0.0/8 or [::1], and this server listens on loopback only: use one of these, or have your proxy set the Host header."
            );
            refuses(&app, &request, 403, "foreign-host", &detail).await;
        }
    }
}

#[tokio::test]
async fn names_of_this_machine_and_requests_without_a_host_pass() {
    let app = TestApp::start().await;
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"] {
        let answer = Request::get("/livez").header("host", host).send(app.address).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let answer = Answer::to(app.address, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer.status, 200, "HTTP/1.0 has no Host");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let app = TestApp::start().await;
    let one = |id: &str| format!("/api/notifications/notification/shop/{id}");
    for (request, detail) in [
        (Request::get("/nothing"), "There is no GET /nothing; /docs lists the routes.".to_owned()),
        (
            Request::new("PUT", "/api/notifications"),
            "There is no PUT /api/notifications; /docs lists the routes.".into(),
        ),
        (
            Request::get(format!("{SEND}/x")),
            format!("There is no GET {SEND}/x; /docs lists the routes."),
        ),
        (Request::get(one(ID)), format!("There is no notification {ID} in this app.")),
        (
            Request::get(one("17")),
            "There is no notification 17 in this app: the id is not a ULID.".into(),
        ),
        (Request::get(one("%ff")), "There is no such notification: the id is not a ULID.".into()),
    ] {
        refuses(&app, &request, 404, "not-found", &detail).await;
    }
}

#[tokio::test]
async fn another_method_is_answered_with_those_that_there_are() {
    let app = TestApp::start().await;
    for (method, path, allow) in [
        ("GET", SEND, "POST"),
        ("DELETE", SEND, "POST"),
        ("POST", SUBSCRIBE, "GET,HEAD"),
        ("PUT", HISTORY, "GET,HEAD"),
        ("DELETE", &format!("/api/notifications/notification/shop/{ID}"), "GET,HEAD"),
        ("POST", "/livez", "GET,HEAD"),
        ("POST", "/metrics", "GET,HEAD"),
        ("POST", "/openapi.json", "GET,HEAD"),
        ("POST", "/docs", "GET,HEAD"),
        ("POST", "/", "GET,HEAD"),
    ] {
        let answer = Request::new(method, path).send(app.address).await;
        let detail = "This route has other methods; the Allow header names them.";
        expect_problem(path, &answer, 405, "method-not-allowed", detail);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn what_comes_later_is_said_and_never_ignored() {
    let app = TestApp::start().await;
    let api = "/api/notifications";
    let route = |method: &str, path: &str| {
        (Request::json(format!("{api}/{path}"), "{}"), method.to_owned())
    };
    for (mut request, method) in [
        route("POST", "send/shop"),
        route("POST", "batch/shop"),
        route("DELETE", &format!("scheduled/shop/{ID}")),
        route("POST", "state/shop/ada"),
        route("GET", "counts/shop/ada"),
        route("POST", &format!("withdraw/shop/{ID}")),
    ] {
        request.method = method;
        let detail = "This route is in the contract, but not built in this version.";
        refuses(&app, &request, 501, "not-implemented", detail).await;
    }
    let member = |member: &str| Request::json(SEND, format!("{{\"data\":1,{member}}}"));
    for (request, what) in [
        (member("\"expires_in\":3600"), "member expires_in"),
        (member("\"replaces\":\"a\""), "member replaces"),
        (member("\"deliver_at\":\"2030-01-01T00:00:00Z\""), "member deliver_at"),
        (Request::text(SEND, "a").header("idempotency-key", "k"), "header Idempotency-Key"),
        (Request::get(format!("{SUBSCRIBE}?topics=a")), "parameter topics"),
        (Request::get(format!("{SUBSCRIBE}?format=envelope")), "parameter format"),
        (Request::get(format!("{HISTORY}?topics=a")), "parameter topics"),
        (Request::get(format!("{HISTORY}?state=read")), "parameter state"),
    ] {
        let detail = format!("The {what} is in the contract, but not built in this version.");
        refuses(&app, &request, 501, "not-implemented", &detail).await;
    }
}
