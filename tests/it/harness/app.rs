//! A server in this process.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use tidings::RunError;
use tidings::config::Config;
use tidings::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{SseClient, TestDatabase};

pub const API: &str = "/api/notifications";

/// A running instance; dropping it stops it at once.
pub struct TestApp {
    pub address: SocketAddr,
    pub database: TestDatabase,
    pub http: reqwest::Client,
    pub shutdown: Shutdown,
    pub ended: JoinHandle<Result<(), RunError>>,
}

/// What a send is answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Sent {
    pub id: String,
    pub created_at: String,
}

impl AsRef<str> for Sent {
    fn as_ref(&self) -> &str {
        &self.id
    }
}

impl TestApp {
    /// On a database of its own.
    pub async fn start() -> TestApp {
        TestApp::with(|_| {}).await
    }

    /// On a database of its own, configured by `change`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::on(TestDatabase::new().await, change).await
    }

    /// Another instance on a database.
    pub async fn on(database: TestDatabase, change: impl FnOnce(&mut Config)) -> TestApp {
        let app = TestApp::launch(database, change).await;
        super::eventually("the instance is ready", async || {
            app.get("/readyz").await.is_ok_and(|response| response.status() == StatusCode::OK)
        })
        .await;
        app
    }

    /// Another instance that need not become ready.
    pub async fn launch(database: TestDatabase, change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::launch_at(([127, 0, 0, 1], 0).into(), database, change).await
    }

    /// The same at an address that others know.
    pub async fn launch_at(
        address: SocketAddr,
        database: TestDatabase,
        change: impl FnOnce(&mut Config),
    ) -> TestApp {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        // Short, because a ping is how a test knows that nothing else came.
        let mut config =
            Config { heartbeat: Duration::from_millis(300), listen: address, ..Config::default() };
        change(&mut config);
        let shutdown = Shutdown::default();
        let (url, tokens) = (database.url.clone(), shutdown.clone());
        let ended = tokio::spawn(async move { tidings::run(config, &url, listener, tokens).await });
        TestApp { address, database, http: super::http_client(), shutdown, ended }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        self.http.get(self.url(path)).send().await
    }

    /// Sends `data` (JSON) to `app/user`, and expects it to be stored.
    pub async fn send(&self, to: &str, data: &str) -> Sent {
        let response = self.post(to, "application/json", format!("{{\"data\":{data}}}")).await;
        assert_eq!(
            response.status(),
            StatusCode::CREATED,
            "{}",
            response.text().await.unwrap_or_default()
        );
        response.json().await.expect("an id and a time")
    }

    /// Sends the numbers 0 to `count`, one after the other.
    pub async fn send_many(&self, to: &str, count: usize) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(count);
        for number in 0..count {
            sent.push(self.send(to, &number.to_string()).await);
        }
        sent
    }

    /// Sends any body to `app/user`.
    pub async fn post(
        &self,
        to: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        self.http
            .post(self.url(&format!("{API}/send/{to}")))
            .header("content-type", content_type)
            .body(body)
            .send()
            .await
            .expect("an answer")
    }

    /// Subscribes from the head, and waits until the stream is live.
    pub async fn subscribe(&self, to: &str) -> SseClient {
        let mut client =
            SseClient::connect(self.address, &format!("{API}/subscribe/{to}"), None).await;
        client.until("tidings.live").await;
        client
    }

    /// Comes back with a cursor.
    pub async fn subscribe_after(&self, to: &str, cursor: impl AsRef<str>) -> SseClient {
        SseClient::connect(self.address, &format!("{API}/subscribe/{to}"), Some(cursor.as_ref()))
            .await
    }

    /// The sum of all samples of a metric whose line begins with `name` (labels may follow).
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.expect("metrics").text().await.expect("text");
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Ends in good order.
    pub async fn stop(self) -> Result<(), RunError> {
        self.shutdown.graceful.cancel();
        self.ended.await.expect("the instance does not panic")
    }
}
