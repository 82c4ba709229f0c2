//! The OpenAPI document says what the server does: it has every answer, in its form, and says of every
//! body what the server says.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tidings::clock::Clock;

use crate::harness::{API, Answer, Request, TestApp};

const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// The document of a server, and the server.
struct Documented {
    app: TestApp,
    document: Value,
}

impl Documented {
    async fn start() -> Documented {
        let app = TestApp::start().await;
        let answer = Request::get("/openapi.json").send(app.address).await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        Documented { document: answer.json(), app }
    }

    /// What the document has for a request.
    fn operation(&self, request: &Request) -> &Value {
        let path = request.path.split('?').next().unwrap();
        let fits = |template: &str| {
            template.split('/').count() == path.split('/').count()
                && template
                    .split('/')
                    .zip(path.split('/'))
                    .all(|(t, p)| t.starts_with('{') || t == p)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let (_, methods) = paths.iter().find(|(template, _)| fits(template)).expect(path);
        &methods[request.method.to_lowercase()]
    }

    /// Sends a request; the answer is among those of the document, and if the body is JSON, it is taken
    /// if, and only if, it fits what the document has.
    async fn exchange(&self, request: Request) -> Answer {
        let answer = request.send(self.app.address).await;
        let operation = self.operation(&request);
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "{request}: {} is not documented", answer.status);
        match answer.header("content-type").map(|kind| kind.split(';').next().unwrap()) {
            None => assert!(documented["content"].is_null() && answer.body.is_empty(), "{request}"),
            Some(kind) => {
                let schema = &documented["content"][kind]["schema"];
                assert!(schema.is_object(), "{request}: {kind} is not documented");
                if kind.ends_with("json") {
                    let body = answer.json();
                    assert!(self.fits(schema, &body), "{request}: {body} is not {schema}");
                }
            }
        }
        // What fits may still be another request than the one with its key (422).
        if let (200..=299 | 400, Ok(body)) = (answer.status, serde_json::from_slice(&request.body))
        {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let fits = schema.is_object() && self.fits(schema, &body);
            assert_eq!(fits, answer.status < 300, "{request}: {}, {schema}", answer.text());
        }
        answer
    }

    /// As much of JSON Schema as the document uses.
    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let schema = schema.as_object().expect("a schema");
        schema.iter().all(|(keyword, rule)| match keyword.as_str() {
            "$ref" => {
                self.fits(self.document.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value)
            }
            "oneOf" => {
                rule.as_array().unwrap().iter().filter(|rule| self.fits(rule, value)).count() == 1
            }
            "allOf" => rule.as_array().unwrap().iter().all(|rule| self.fits(rule, value)),
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_a(value, name)),
                name => is_a(value, name),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "properties" => rule
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, rule)| value.get(name).is_none_or(|value| self.fits(rule, value))),
            "additionalProperties" => {
                assert_eq!(rule, false);
                let known = &schema["properties"];
                value
                    .as_object()
                    .is_none_or(|members| members.keys().all(|name| known.get(name).is_some()))
            }
            "items" => {
                value.as_array().is_none_or(|items| items.iter().all(|item| self.fits(rule, item)))
            }
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap())
            }
            "maxItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap())
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            // A pattern would need an engine for patterns.
            "description" | "examples" | "format" | "pattern" => true,
            unknown => panic!("{unknown} is not checked"),
        })
    }
}

fn is_a(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("{unknown} is not checked"),
    }
}

#[tokio::test]
async fn it_lists_every_route_and_what_any_may_answer() {
    let documented = Documented::start().await;
    let paths = documented.document["paths"].as_object().unwrap();
    let listed: Vec<(&str, Vec<&str>)> = paths
        .iter()
        .map(|(path, methods)| {
            (path.as_str(), methods.as_object().unwrap().keys().map(String::as_str).collect())
        })
        .collect();
    assert_eq!(
        listed,
        [
            ("/api/notifications/batch/{app}", vec!["post"]),
            ("/api/notifications/counts/{app}/{user}", vec!["get"]),
            ("/api/notifications/history/{app}/{user}", vec!["get"]),
            ("/api/notifications/notification/{app}/{id}", vec!["get"]),
            ("/api/notifications/scheduled/{app}/{schedule_id}", vec!["delete"]),
            ("/api/notifications/send/{app}", vec!["post"]),
            ("/api/notifications/send/{app}/{user}", vec!["post"]),
            ("/api/notifications/state/{app}/{user}", vec!["post"]),
            ("/api/notifications/subscribe/{app}/{user}", vec!["get"]),
            ("/api/notifications/withdraw/{app}/{id}", vec!["post"]),
            ("/livez", vec!["get"]),
            ("/metrics", vec!["get"]),
            ("/readyz", vec!["get"]),
        ]
    );
    for (path, methods) in paths {
        let operation = methods.as_object().unwrap().values().next().unwrap();
        let named: Vec<&str> =
            path.split('{').skip(1).map(|n| n.split('}').next().unwrap()).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let in_path: Vec<&str> = in_path.map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(in_path, named, "{path}");
        let anywhere: &[&str] =
            if path.starts_with(API) { &["400", "403", "500", "503"] } else { &["403", "500"] };
        for status in anywhere {
            assert!(operation["responses"][status].is_object(), "{path}: {status}");
        }
    }
    // Whatever it refers to is in it.
    for reference in documented.document.to_string().split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(documented.document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn what_it_says_of_a_body_is_what_the_server_says() {
    let documented = Documented::start().await;
    let post = async |path: &str, body: Value| {
        documented.exchange(Request::json(format!("{API}/{path}"), body.to_string())).await
    };
    let long: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    for body in [json!(null), json!([]), json!({}), json!("everyone"), json!({"data": null})] {
        for path in ["send/shop/ada", "send/shop", "batch/shop", "state/shop/ada"] {
            post(path, body.clone()).await;
        }
    }
    for to in [
        json!("everyone"),
        json!({"user": "ada"}),
        json!({"topic": "news"}),
        json!({"users": ["ada", "ben"]}),
        json!({"users": long[1..]}),
        json!({"users": long}),
        json!({"users": []}),
        json!({"users": [1]}),
        json!({"user": null}),
        json!({"user": "ada", "topic": "news"}),
        json!({"group": "a"}),
        json!(["everyone"]),
        json!(null),
    ] {
        post("send/shop", json!({"to": to, "data": 1})).await;
        post("batch/shop", json!({"notifications": [{"to": to, "data": 1}]})).await;
    }
    for (member, value) in [
        ("expires_in", json!(1)),
        ("expires_in", json!(0)),
        ("expires_in", json!(31_536_000)),
        ("expires_in", json!(31_536_001)),
        ("expires_in", json!(null)),
        ("event", json!("order.shipped")),
        ("event", json!(null)),
        ("replaces", json!("key")),
        ("replaces", json!(null)),
        ("deliver_at", json!(null)),
        ("urgent", json!(true)),
    ] {
        post("send/shop/ada", json!({"data": 1, member: value})).await;
        post("send/shop", json!({"to": "everyone", "data": 1, member: value})).await;
        let entry = json!({"to": "everyone", "data": 1, member: value});
        post("batch/shop", json!({"notifications": [entry]})).await;
    }
    post("send/shop/ada", json!({"data": 1, "to": "everyone"})).await;
    post("batch/shop", json!({"notifications": []})).await;
    post("batch/shop", json!({"notifications": [1]})).await;
    for body in [
        json!({"ids": [ID], "state": "read"}),
        json!({"ids": [ID], "topics": ["news"], "state": "unarchived"}),
        json!({"up_to": ID, "topics": [], "state": "seen"}),
        json!({"up_to": ID, "topics": null, "state": "seen"}),
        json!({"up_to": ID, "topics": long[..101], "state": "seen"}),
        json!({"ids": [ID], "up_to": ID, "state": "read"}),
        json!({"ids": [], "state": "read"}),
        json!({"ids": vec![ID; 1001], "state": "read"}),
        json!({"ids": [ID], "state": "unseen"}),
        json!({"ids": [ID]}),
    ] {
        post("state/shop/ada", body).await;
    }
    post(&format!("withdraw/shop/{ID}"), json!({"reason": "a mistake"})).await;
}

#[tokio::test]
async fn every_answer_is_one_that_it_has() {
    let documented = Documented::start().await;
    let get = |path: String| documented.exchange(Request::get(format!("{API}/{path}")));
    let send = async |path: &str, body: Value| {
        let request = Request::json(format!("{API}/{path}"), body.to_string());
        documented.exchange(request).await.json()
    };
    let full = json!({"data": {"a": [null]}, "event": "e", "expires_in": 60, "replaces": "key"});
    let replaced = send("send/shop/ada", full.clone()).await["id"].as_str().unwrap().to_owned();
    let sent = send("send/shop/ada", full).await["id"].as_str().unwrap().to_owned();
    let plain = send("send/shop/ada", json!({"data": "plain"})).await;
    let topic = send("send/shop", json!({"to": {"topic": "news"}, "data": 1})).await;
    let everyone = send("send/shop", json!({"to": "everyone", "data": null})).await;
    for id in [&plain["id"], &topic["id"], &everyone["id"]] {
        get(format!("notification/shop/{}", id.as_str().unwrap())).await;
    }
    for id in [&sent, &replaced, ID] {
        get(format!("notification/shop/{id}")).await;
    }
    for query in ["", "?topics=news", "?limit=1", "?limit=1&order=asc", "?limit=0"] {
        get(format!("history/shop/ada{query}")).await;
    }
    get(format!("history/shop/ada?before={sent}")).await;
    get("counts/shop/ada".to_owned()).await;

    let soon = Clock::default().now() + TimeDelta::hours(1);
    let later = json!({"data": 1, "deliver_at": soon.to_rfc3339()});
    let scheduled = send("send/shop/ada", later).await["schedule_id"].as_str().unwrap().to_owned();
    for id in [&scheduled, ID] {
        let path = format!("{API}/scheduled/shop/{id}");
        documented.exchange(Request::new("DELETE", path)).await;
        documented.exchange(Request::new("POST", format!("{API}/withdraw/shop/{id}"))).await;
    }
    documented.exchange(Request::new("POST", format!("{API}/withdraw/shop/{sent}"))).await;

    for path in ["send/shop/ada", "send/shop", "batch/shop", "state/shop/ada"] {
        let path = format!("{API}/{path}");
        documented.exchange(Request::text(&path, "x".repeat(70_000))).await;
        documented.exchange(Request::new("POST", &path).body("data=1")).await;
        documented.exchange(Request::json(&path, "x".repeat(9 << 20))).await;
    }
    for (method, path) in [("POST", "withdraw"), ("DELETE", "scheduled")] {
        let request = Request::new(method, format!("{API}/{path}/shop/{ID}"));
        documented.exchange(request.body("x".repeat(9 << 20))).await;
    }
    for body in ["{\"data\":1}", "{\"data\":2}"] {
        let request = Request::json(format!("{API}/send/shop/ada"), body);
        documented.exchange(request.header("idempotency-key", "k")).await;
    }
}

#[tokio::test]
async fn every_route_has_the_refusals_that_all_have() {
    let documented = Documented::start().await;
    for (path, methods) in documented.document["paths"].as_object().unwrap() {
        let method = methods.as_object().unwrap().keys().next().unwrap().to_uppercase();
        let named = path.replace("{app}", "shop").replace("{user}", "ada");
        let named = named.replace("{id}", ID).replace("{schedule_id}", ID);
        let foreign = Request::new(&method, named).header("host", "evil.example");
        assert_eq!(documented.exchange(foreign).await.status, 403, "{path}");
        if path.starts_with(API) {
            let nobody = path.replace("{app}", "%20").replace("{user}", "ada");
            let nobody =
                Request::new(&method, nobody.replace("{id}", ID).replace("{schedule_id}", ID));
            assert_eq!(documented.exchange(nobody).await.status, 400, "{path}");
        } else {
            assert_eq!(
                documented.exchange(Request::get(path.as_str())).await.status,
                200,
                "{path}"
            );
        }
    }
}
