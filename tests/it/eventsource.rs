//! An EventSource that others wrote (npm `eventsource`, under Node) against this server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::harness::{API, DEADLINE, Proxy, TestApp, missing};

const CUTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_eventsource_that_is_cut_comes_back_by_itself_and_misses_nothing() {
    let installed = match install().await {
        Ok(installed) => installed,
        Err(why) => {
            return missing(&why);
        }
    };
    let app = TestApp::start().await;
    let proxy = Proxy::start(app.address).await;
    let url = format!("http://{}{API}/subscribe/shop/ada", proxy.address);
    let mut source = EventSource::open(&installed, &url);
    source.until("tidings.live").await;

    let mut sent = vec![app.send("shop/ada", "\"live\"").await.id];
    let mut seen = source.take(1).await;
    for _ in 0..CUTS {
        proxy.cut_connections();
        sent.extend(app.send_many("shop/ada", 3).await.into_iter().map(|sent| sent.id));
        let (before, _) = source.until("tidings.live").await;
        seen.extend(before);
        sent.push(named_event(&app).await);
        seen.extend(source.take(sent.len() - seen.len()).await);
    }

    assert_eq!(seen, sent);
    assert!(source.errors >= CUTS, "it noticed {} cuts", source.errors);
}

async fn named_event(app: &TestApp) -> String {
    let body = json!({"data": {"order": 17}, "event": "order.shipped"}).to_string();
    let answer = app.post("shop/ada", "application/json", body).await;
    answer.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// The package in a folder of the build, installed by the first test run that finds it missing.
async fn install() -> Result<PathBuf, String> {
    let version = Command::new("node").arg("--version").output().await;
    if !version.is_ok_and(|output| output.status.success()) {
        return Err("there is no node".to_owned());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eventsource");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("eventsource");
    std::fs::create_dir_all(&folder).unwrap();
    let mut changed = !folder.join("node_modules/eventsource/package.json").exists();
    for name in ["package.json", "package-lock.json", "follow.js"] {
        let wanted = std::fs::read(source.join(name)).unwrap();
        if std::fs::read(folder.join(name)).ok().as_ref() != Some(&wanted) {
            changed |= name != "follow.js";
            std::fs::write(folder.join(name), wanted).unwrap();
        }
    }
    if changed {
        let npm = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .output();
        match timeout(4 * DEADLINE, npm).await {
            Err(_) => return Err("npm ci took too long".to_owned()),
            Ok(Err(error)) => return Err(format!("npm did not start: {error}")),
            Ok(Ok(output)) if !output.status.success() => {
                return Err(format!("npm ci failed: {}", String::from_utf8_lossy(&output.stderr)));
            }
            Ok(Ok(_)) => {}
        }
    }
    Ok(folder)
}

struct EventSource {
    _node: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: usize,
}

impl EventSource {
    fn open(installed: &Path, url: &str) -> EventSource {
        let mut node = Command::new("node")
            .args(["follow.js", url])
            .current_dir(installed)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(node.stdout.take().unwrap()).lines();
        EventSource { _node: node, lines, errors: 0 }
    }

    /// Type and id of the next event. It never gives up, and a gap would be a loss.
    async fn next(&mut self) -> (String, String) {
        let line = timeout(DEADLINE, self.lines.next_line()).await.expect("an event in time");
        let line = line.unwrap().expect("node goes on");
        let [kind, id, data]: [String; 3] = serde_json::from_str(&line).unwrap();
        assert_ne!(kind, "tidings.gap", "{data}");
        if kind == "error" {
            assert_eq!(data, "false", "it has given up");
            self.errors += 1;
        }
        (kind, id)
    }

    /// Reads on to an event of this type and returns the ids of the notifications before it.
    async fn until(&mut self, wanted: &str) -> (Vec<String>, String) {
        let mut before = Vec::new();
        loop {
            let (kind, id) = self.next().await;
            if kind == wanted {
                return (before, id);
            }
            if kind == "message" || kind == "order.shipped" {
                before.push(id);
            }
        }
    }

    /// The ids of so many notifications.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let (kind, id) = self.next().await;
            if kind == "message" || kind == "order.shipped" {
                ids.push(id);
            }
        }
        ids
    }
}
