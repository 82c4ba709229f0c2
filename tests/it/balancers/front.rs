//! A balancer in front of two instances, with the configuration that docs/operations.md shows: what is
//! documented is what is tested. Ports and paths alone are put in place of those of the page.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tidings::config::{Config, CorsOrigins};
use tokio::time::timeout;

use crate::harness::{
    Answer, DEADLINE, Program, Request, SseClient, TestApp, TestDatabase, eventually, find,
    free_address,
};

const PAGE: &str = include_str!("../../../docs/operations.md");
/// The name that the page's balancers answer to.
pub const NAME: &str = "notify.example";
pub const ORIGIN: &str = "https://notify.example";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
}

impl Kind {
    /// Of the program, and of its block on the page.
    fn name(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx",
            Kind::HaProxy => "haproxy",
        }
    }
}

/// A balancer and the places of its instances.
pub struct Front {
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Where it expects the instances.
    pub instances: [SocketAddr; 2],
    kind: Kind,
    folder: TempDir,
    program: PathBuf,
    running: Option<Program>,
}

impl Front {
    /// One that does not run yet: what it finds when it starts are two instances, not none. `None`:
    /// the program is not there.
    pub fn plan(kind: Kind) -> Option<Front> {
        let (program, _openssl) = (find(kind.name())?, find("openssl")?);
        let folder = tempfile::tempdir().expect("a folder");
        make_certificate(folder.path());
        let [http, https, a, b] = [0; 4].map(|_| free_address());
        Some(Front { http, https, instances: [a, b], kind, folder, program, running: None })
    }

    /// One that runs, with both of its instances.
    pub async fn with_both(kind: Kind, database: &TestDatabase) -> Option<(Front, [TestApp; 2])> {
        let mut front = Front::plan(kind)?;
        let [a, b] = [0, 1].map(|number| front.instance(number, database, |_| {}));
        let both = [a.await, b.await];
        front.start(|page| page).await;
        Some((front, both))
    }

    /// Starts it, with something changed in the page's configuration.
    pub async fn start(&mut self, change: impl FnOnce(String) -> String) {
        let page = change(block(self.kind.name()));
        let here = self.folder.path().to_str().expect("UTF-8").to_owned();
        let settings = match self.kind {
            Kind::Nginx => for_nginx(&page, &here, self.http, self.https),
            Kind::HaProxy => for_haproxy(&page, self.http, self.https),
        };
        let settings = replace(&settings, "127.0.0.1:8081", &self.instances[0].to_string());
        let settings = replace(&settings, "127.0.0.1:8082", &self.instances[1].to_string());
        let settings = replace(&settings, "/etc/ssl/tidings", &here);
        let file = self.folder.path().join("settings");
        std::fs::write(&file, settings).expect("a file");
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Nginx => {
                let own = format!("daemon off; pid {here}/pid; error_log stderr;");
                command.arg("-c").arg(file).args(["-p", &here, "-e", "stderr", "-g", &own]);
            }
            Kind::HaProxy => {
                command.arg("-db").arg("-f").arg(file);
            }
        }
        self.running = Some(Program::start(command, self.folder.path(), self.http).await);
    }

    /// An instance where the balancer expects it, configured as the page says, and further changed.
    pub async fn instance(
        &self,
        number: usize,
        database: &TestDatabase,
        change: impl FnOnce(&mut Config),
    ) -> TestApp {
        let app = TestApp::launch_at(self.instances[number], database.clone(), |config| {
            config.cors_origins = CorsOrigins::Exactly(vec![ORIGIN.to_owned()]);
            change(config);
        })
        .await;
        let is_ready = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 200);
        eventually("the instance is ready", is_ready).await;
        app
    }

    /// Waits until the balancer has noticed that an instance is there, or not. nginx notices with the
    /// next connection.
    pub async fn notices(&self, number: usize, is: &str) {
        if self.kind == Kind::Nginx {
            return;
        }
        let server = format!("Server tidings/{} is ", ["a", "b"][number]);
        eventually(&format!("{server}{is}"), async || {
            let log = std::fs::read_to_string(self.folder.path().join("log")).expect("a file");
            let last = log.rfind(&server).map(|at| &log[at + server.len()..]);
            last.is_some_and(|last| last.starts_with(is))
        })
        .await;
    }

    /// Sends through the balancer, and waits for its answer.
    pub async fn send(&self, to: &str, data: &str) -> Answer {
        let path = format!("/api/notifications/send/{to}");
        let request = Request::json(path, format!("{{\"data\":{data}}}"));
        request.header("host", NAME).send(self.http).await
    }

    /// Sends until it is stored, as a client without a key may, and returns the id.
    pub async fn send_stored(&self, to: &str, data: &str) -> String {
        let stored = async {
            loop {
                let answer = self.send(to, data).await;
                assert!([201, 502, 503, 504].contains(&answer.status), "{}", answer.text());
                if answer.status == 201 {
                    return answer.json()["id"].as_str().expect("an id").to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, stored).await.expect("a send is stored in time")
    }

    /// Opens a stream through the balancer.
    pub async fn open(&self, path: &str, cursor: Option<&str>) -> std::io::Result<SseClient> {
        let mut headers = vec![("Host", NAME), ("Accept", "text/event-stream")];
        headers.extend(cursor.map(|cursor| ("Last-Event-ID", cursor)));
        let mut client = SseClient::try_request(self.http, path, &headers).await?;
        client.cursor = cursor.map(str::to_owned);
        Ok(client)
    }

    /// A stream of a user that is live.
    pub async fn subscribe(&self, to: &str) -> SseClient {
        let path = format!("/api/notifications/subscribe/{to}");
        let mut client = self.open(&path, None).await.expect("an answer");
        assert_eq!(client.status, 200, "{}", client.headers);
        client.until("tidings.live").await;
        client
    }
}

/// The page's code block in this language.
fn block(language: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect("a block on the page");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// Replaces what has to be there.
pub fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replace(from, to)
}

fn for_nginx(page: &str, folder: &str, http: SocketAddr, https: SocketAddr) -> String {
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .collect();
    let page = replace(page, "http {\n", &format!("http {{\n    access_log off;\n{paths}"));
    let page = replace(&page, "listen 80", &format!("listen {http}"));
    replace(&page, "listen 443", &format!("listen {https}"))
}

fn for_haproxy(page: &str, http: SocketAddr, https: SocketAddr) -> String {
    let page = replace(page, "bind :80", &format!("bind {http}"));
    replace(&page, "bind :443", &format!("bind {https}"))
}

fn make_certificate(folder: &Path) {
    let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "30", "-subj", "/CN=notify.example", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = [std::fs::read(cert), std::fs::read(key)].map(|file| file.expect("it was made"));
    std::fs::write(folder.join("both.pem"), both.concat()).expect("a file");
}
