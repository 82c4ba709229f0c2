//! What operators, their tools, and web pages of other origins rely on around the API.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidings::config::CorsOrigins;

use crate::harness::{Answer, DatabaseProxy, Request, TestApp, TestDatabase, eventually};

const SEND: &str = "/api/notifications/send/shop/ada";
const PAGE: &str = "https://app.example";
const MANUAL: &str = include_str!("../../docs/operations.md");

async fn get(app: &TestApp, path: &str) -> Answer {
    Request::get(path).send(app.address).await
}

#[tokio::test]
async fn livez_answers_even_without_a_database() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    proxy.take_away();
    let app = TestApp::launch(proxy.database(), |_| {}).await;
    let answer = get(&app, "/livez").await;
    assert_eq!((answer.status, answer.text()), (200, "ok\n"));
}

#[tokio::test]
async fn readyz_says_why_it_is_not_ready() {
    let database = TestDatabase::new().await;
    let proxy = DatabaseProxy::to(&database).await;
    proxy.take_away();
    let app = TestApp::launch(proxy.database(), |config| {
        config.drain_delay = Duration::from_secs(3600);
    })
    .await;
    let says = async |reasons: &[&str]| {
        eventually(&format!("readyz says {reasons:?}"), async || {
            let answer = get(&app, "/readyz").await;
            let ready = reasons.is_empty();
            assert_eq!(answer.status, if answer.json()["ready"] == true { 200 } else { 503 });
            answer.json() == json!({"ready": ready, "reasons": reasons})
        })
        .await;
    };
    says(&["starting"]).await;
    proxy.bring_back();
    says(&[]).await;
    proxy.take_away();
    says(&["database-unreachable"]).await;
    proxy.bring_back();
    says(&[]).await;
    // The listener stays open for the drain delay, so that balancers can see this.
    app.shutdown.graceful.cancel();
    says(&["draining"]).await;
    app.send("shop/ada", "\"still served\"").await;
}

#[tokio::test]
async fn metrics_are_open_metrics_with_our_prefix_and_name_nobody() {
    let app = TestApp::start().await;
    let mut client = app.subscribe("secret-app/secret-user").await;
    let sent = app.send("secret-app/secret-user", "\"secret-data\"").await;
    client.expect([sent]).await;
    get(&app, "/api/notifications/history/secret-app/secret-user").await;

    let answer = get(&app, "/metrics").await;

    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(kind));
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        let name = line
            .trim_start_matches("# HELP ")
            .trim_start_matches("# TYPE ")
            .trim_start_matches("# UNIT ");
        assert!(name.starts_with("tidings_"), "{line}");
    }
    for name in ["secret", "user=", "app="] {
        assert!(!text.contains(name), "{text}");
    }
    for (metric, value) in [
        ("tidings_subscriptions", 1.0),
        ("tidings_database_up", 1.0),
        ("tidings_sends_total{outcome=\"stored\"}", 1.0),
        ("tidings_deliveries_total{phase=\"live\"}", 1.0),
        ("tidings_append_seconds_count", 1.0),
    ] {
        assert_eq!(app.metric(metric).await, value, "{metric}");
    }
}

/// Also the labels: an alarm sees no increase of what begins with its first event.
#[tokio::test]
async fn every_metric_is_in_the_manual_and_there_from_the_start() {
    let rows = || MANUAL.lines().filter(|line| line.starts_with("| `tidings_"));
    let mut explained = BTreeSet::new();
    for row in rows() {
        let (names, kind) =
            row.trim_start_matches("| ").split_once(" | ").expect("a second column");
        let kind = kind.split(" | ").next().unwrap_or_default();
        for name in names.split(", ") {
            let name = name.trim_matches('`').split('{').next().unwrap_or_default();
            explained.insert(format!("{} {kind}", name.trim_end_matches("_total")));
        }
    }
    let app = TestApp::start().await;
    let shown = get(&app, "/metrics").await.text().to_owned();
    let named: BTreeSet<_> =
        shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    assert_eq!(named, explained);

    for line in shown.lines().filter(|line| line.contains("=\"") && !line.contains("le=\"")) {
        let (name, word) = line.split_once('{').expect("a label");
        let word = word.split('"').nth(1).unwrap_or_default();
        let row = rows().find(|row| row.contains(&format!("`{name}{{"))).expect(name);
        assert!(row.contains(&format!("`{word}`")), "{line}");
    }
    for counted in ["sends_total{outcome=\"unknown\"}", "gaps_total{reason=\"restored\"}"] {
        assert!(shown.contains(&format!("tidings_{counted} 0\n")), "{shown}");
    }
}

#[tokio::test]
async fn a_request_id_is_taken_if_it_is_usable_and_else_made() {
    let app = TestApp::start().await;
    let longest = "x".repeat(64);
    for id in ["a", "req-17/~!", &longest] {
        for path in ["/livez", "/nothing"] {
            let answer = Request::get(path).header("x-request-id", id).send(app.address).await;
            assert_eq!(answer.header("x-request-id"), Some(id), "{path}");
        }
    }
    let too_long = "x".repeat(65);
    let mut made = BTreeSet::new();
    for id in [&b""[..], b"a b", b"\xff", "ä".as_bytes(), too_long.as_bytes()] {
        let answer = Request::get("/livez").header("x-request-id", id).send(app.address).await;
        made.insert(answer.header("x-request-id").unwrap().to_owned());
    }
    made.insert(get(&app, "/livez").await.header("x-request-id").unwrap().to_owned());
    assert_eq!(made.len(), 6, "each its own: {made:?}");
    assert!(made.iter().all(|id| (1..=64).contains(&id.len()) && !id.contains('x')), "{made:?}");
}

async fn app_for_a_page() -> TestApp {
    TestApp::with(|config| config.cors_origins = CorsOrigins::Exactly(vec![PAGE.into()])).await
}

fn list(answer: &Answer, header: &str) -> BTreeSet<String> {
    let value = answer.header(header).unwrap_or_default();
    value.split(',').map(|item| item.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_configured_page_may_preflight_with_the_headers_of_the_contract() {
    let app = app_for_a_page().await;
    let answer = Request::new("OPTIONS", SEND)
        .header("origin", PAGE)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,idempotency-key")
        .send(app.address)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    let headers = ["authorization", "content-type", "idempotency-key", "last-event-id"];
    assert_eq!(list(&answer, "access-control-allow-headers"), headers.map(str::to_owned).into());
    let methods = ["delete", "get", "head", "post"];
    assert_eq!(list(&answer, "access-control-allow-methods"), methods.map(str::to_owned).into());
}

#[tokio::test]
async fn a_configured_page_may_read_answers_and_errors_and_their_headers() {
    let app = app_for_a_page().await;
    let exposed = ["idempotency-replayed", "retry-after", "x-request-id"].map(str::to_owned).into();
    for (request, status) in [
        (Request::text(SEND, "a"), 201),
        (Request::get("/api/notifications/history/shop/ada"), 200),
        (Request::json(SEND, "{}"), 400),
        (Request::get("/nothing"), 404),
        (Request::get(SEND), 405),
        (Request::new("DELETE", "/api/notifications/scheduled/shop/1"), 404),
        (Request::get("/livez").header("host", "evil.example"), 403),
    ] {
        let case = format!("{} {}", request.method, request.path);
        let answer = request.header("origin", PAGE).send(app.address).await;
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{case}");
        assert_eq!(list(&answer, "access-control-expose-headers"), exposed, "{case}");
        assert!(list(&answer, "vary").contains("origin"), "{case}");
    }
}

#[tokio::test]
async fn no_other_page_may_read_anything() {
    let app = app_for_a_page().await;
    for origin in ["https://evil.example", "https://app.example.evil", "http://app.example", "null"]
    {
        for request in [
            Request::get("/api/notifications/history/shop/ada"),
            Request::text(SEND, "a"),
            Request::new("OPTIONS", SEND).header("access-control-request-method", "POST"),
        ] {
            let answer = request.header("origin", origin).send(app.address).await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
    }
    assert_eq!(app.database.count().await, 0);
}

#[tokio::test]
async fn any_page_may_read_when_all_origins_are_configured() {
    let app = TestApp::with(|config| config.cors_origins = CorsOrigins::Any).await;
    let answer = Request::text(SEND, "a").header("origin", PAGE).send(app.address).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn head_answers_as_get_does_without_a_body() {
    let app = TestApp::start().await;
    for path in
        ["/livez", "/readyz", "/openapi.json", "/api/notifications/history/shop/ada", "/nothing"]
    {
        let full = get(&app, path).await;
        let head = Request::new("HEAD", path).send(app.address).await;
        assert_eq!((head.status, head.body.len()), (full.status, 0), "{path}");
        assert_eq!(head.header("content-type"), full.header("content-type"), "{path}");
    }
}

#[tokio::test]
async fn options_works_on_every_route() {
    let app = TestApp::start().await;
    for path in ["/", "/livez", "/docs", SEND, "/api/notifications/subscribe/shop/ada"] {
        assert_eq!(Request::new("OPTIONS", path).send(app.address).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_front_page_leads_to_documentation_that_needs_no_other_host() {
    let app = TestApp::start().await;
    let front = get(&app, "/").await;
    assert_eq!((front.status, front.header("location")), (307, Some("/docs")));
    let docs = get(&app, "/docs").await;
    assert_eq!((docs.status, docs.header("location")), (303, Some("/docs/")));
    let page = get(&app, "/docs/").await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));

    let links: Vec<&str> = [" src=\"", " href=\""]
        .iter()
        .flat_map(|attribute| page.text().split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(links.len() >= 4, "{links:?}");
    for link in links {
        let own = link.strip_prefix("./").unwrap_or(link);
        assert!(!own.contains("//") && !own.starts_with('/'), "{link}");
        let asset = get(&app, &format!("/docs/{own}")).await;
        assert_eq!(asset.status, 200, "{link}");
        if link.ends_with(".css") {
            let loaded = asset.text().split("url(").skip(1);
            assert!(!asset.text().contains("@import"), "{link}");
            for url in loaded {
                assert!(
                    url.starts_with("data:") || url.starts_with("\"data:"),
                    "{link}: {:.80}",
                    url
                );
            }
        }
    }
    // It sends the document to a service on the net unless told not to.
    let start = get(&app, "/docs/swagger-initializer.js").await;
    assert!(start.text().contains("\"validatorUrl\": \"none\""), "{}", start.text());
    assert!(
        start.text().contains("\"/openapi.json\"") && !start.text().contains("://"),
        "{}",
        start.text()
    );
}
