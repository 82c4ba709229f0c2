//! Who may not come in, and which routes and parameters do not exist, or not yet.

use crate::harness::{Answer, Request, TestApp};
use crate::problems::{expect_problem, refuses};

const SEND: &str = "/api/notifications/send/shop/ada";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";
const HISTORY: &str = "/api/notifications/history/shop/ada";
const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

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
async fn loopback_in_the_form_of_ipv6_keeps_foreign_hosts_out_too() {
    let mapped = "[::ffff:127.0.0.1]:0".parse().unwrap();
    let app = TestApp::with(|config| config.listen = mapped).await;
    for (host, status) in [("localhost.evil.example", 403), ("[::ffff:127.0.0.1]:8080", 200)] {
        let answer = Request::get("/livez").header("host", host).send(app.address).await;
        assert_eq!(answer.status, status, "{host}");
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
            "There is no notification \"17\" in this app: the id is not a ULID.".into(),
        ),
        (Request::get(one("%ff")), "There is no such notification: the id is not a ULID.".into()),
        (Request::get("/docs/x"), "There is no such file under /docs: open /docs.".into()),
    ] {
        refuses(&app, &request, 404, "not-found", &detail).await;
    }
}

#[tokio::test]
async fn of_what_is_long_a_problem_tells_the_beginning() {
    let app = TestApp::start().await;
    let long = "x".repeat(5000);
    for request in [
        Request::get(format!("/{long}")),
        Request::new(&long, "/nothing"),
        Request::get(format!("/api/notifications/notification/shop/{long}")),
        Request::get("/livez").header("host", &long),
        Request::text(SEND, "").header("origin", format!("http://{long}")),
        Request::new("POST", SEND).header("content-type", &long),
        Request::new("POST", SEND).header("content-type", format!("text/plain; charset={long}")),
        Request::new("POST", SEND)
            .header("content-type", "text/plain")
            .header("content-encoding", &long),
    ] {
        let answer = request.send(app.address).await;
        let text = answer.text();
        assert!((400..500).contains(&answer.status), "{text}");
        assert!(text.contains("xxx…") || text.contains("xxx\\\"…"), "{text}");
        assert!(text.len() < 500, "{text}");
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
        ("GET", "/api/notifications/state/shop/ada", "POST"),
        ("POST", "/api/notifications/counts/shop/ada", "GET,HEAD"),
        ("GET", &format!("/api/notifications/withdraw/shop/{ID}"), "POST"),
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
