//! The program as a person meets it: what it prints works, what is wrong is one sentence, and the
//! client commands keep their word.

use std::net::TcpListener;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::{
    DEADLINE, Proxy, ServerProcess, TestApp, TestDatabase, eventually, http_client, missing,
};
use crate::private_postgres::harness::Folder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_serve_prints_works_as_printed() {
    if !std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return missing("there is no curl");
    }
    let folder = Folder::new();
    let server = start_in(&folder).await;
    let banner = server.banner.join("\n");
    assert!(banner.contains(&format!("http://{}", server.address)), "{banner}");
    assert!(banner.contains(folder.path().to_str().unwrap()), "{banner}");
    let [subscribe, send, history] = lines_with(&banner, "curl ")[..] else { panic!("{banner}") };
    let [psql] = lines_with(&banner, "psql ")[..] else { panic!("{banner}") };

    let mut stream = shell(subscribe).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stream_lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    until(&mut stream_lines, "event: tidings.live").await;
    let sent: Value = serde_json::from_slice(&output(shell(send)).await.stdout).unwrap();
    let id = sent["id"].as_str().unwrap();
    until(&mut stream_lines, &format!("id: {id}")).await;
    until(&mut stream_lines, "data: \"Your parcel is on its way\"").await;
    let history: Value = serde_json::from_slice(&output(shell(history)).await.stdout).unwrap();
    assert_eq!(history["notifications"][0]["id"], id);
    let psql = psql.strip_prefix("SQL: ").unwrap();
    let count = shell(&format!("{psql} -XAtc 'select count(*) from tidings.notification'"));
    assert_eq!(String::from_utf8_lossy(&output(count).await.stdout), "1\n");
    stream.kill().await.unwrap();
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_finds_the_data_again() {
    let folder = Folder::with_database();
    let server = start_in(&folder).await;
    let url = format!("http://{}", server.address);
    let sent = output(client(&["send", "shop", "ada", "17"], &url)).await;
    stop(server).await;

    let server = start_in(&folder).await;

    let url = format!("http://{}", server.address);
    let history = output(client(&["history", "shop", "ada", "--json"], &url)).await;
    let row: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(row["id"], text(&sent.stdout));
    stop(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_folder_is_refused_and_the_first_goes_on() {
    let folder = Folder::with_database();
    let server = start_in(&folder).await;

    let refused = refusal(&[("TIDINGS_DATA_DIR", folder.path().to_str().unwrap())]).await;

    assert_eq!(refused.code, 1);
    assert!(refused.sentence.contains(folder.path().to_str().unwrap()), "{}", refused.sentence);
    let url = format!("http://{}", server.address);
    assert!(output(client(&["send", "shop", "ada", "17"], &url)).await.status.success());
    stop(server).await;
}

#[tokio::test]
async fn a_port_in_use_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let refused = refusal(&[("TIDINGS_LISTEN", &address)]).await;

    assert_eq!(refused.code, 1);
    assert!(refused.sentence.contains(&address), "{}", refused.sentence);
    assert!(refused.sentence.contains("TIDINGS_LISTEN"), "{}", refused.sentence);
}

#[tokio::test]
async fn a_folder_that_cannot_be_reached_is_one_sentence() {
    let refused = refusal(&[("TIDINGS_DATA_DIR", "/dev/null/tidings")]).await;

    assert_eq!(refused.code, 1);
    assert!(refused.sentence.contains("/dev/null/tidings"), "{}", refused.sentence);
}

#[tokio::test]
async fn a_wrong_value_is_one_sentence_that_names_the_variable() {
    for (name, value) in [
        ("TIDINGS_LISTEN", "nowhere"),
        ("TIDINGS_LISTEN", "0.0.0.0:0"),
        ("TIDINGS_HEARTBEAT", "10 parsecs"),
        ("TIDINGS_DRAIN", "-1s"),
        ("TIDINGS_MAX_DATA", "much"),
        ("TIDINGS_MAX_CONNECTIONS", "0"),
        ("TIDINGS_CORS_ORIGINS", "example.org/page"),
        ("TIDINGS_LOG_FORMAT", "xml"),
        ("TIDINGS_MIGRATE", "perhaps"),
        ("DATABASE_URL", "mysql://localhost/shop"),
    ] {
        let refused = refusal(&[(name, value)]).await;
        assert_eq!(refused.code, 2, "{name}={value}: {}", refused.sentence);
        assert!(refused.sentence.contains(name), "{name}={value}: {}", refused.sentence);
    }
}

#[tokio::test]
async fn a_database_that_refuses_us_is_one_sentence() {
    let database = TestDatabase::empty().await;
    let no_such_database = database.url.replace(&format!("/{}?", database.name), "/nowhere?");
    let no_such_role = database.url.replace("tidings@", "nobody-of-that-name@");
    for (url, reason) in [(no_such_database, "nowhere"), (no_such_role, "nobody-of-that-name")] {
        let refused = refusal(&[("DATABASE_URL", &url)]).await;
        assert_eq!(refused.code, 1, "{}", refused.sentence);
        assert!(refused.sentence.contains(reason), "{}", refused.sentence);
        assert!(refused.sentence.contains("DATABASE_URL"), "{}", refused.sentence);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_waited_for() {
    // Bound and not listening: connections are refused, and nobody else can take the port.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("postgres://tidings@{}/tidings", nobody.local_addr().unwrap());
    let mut command =
        ServerProcess::command(&["serve", "--listen", "127.0.0.1:0"], &[("DATABASE_URL", &url)]);
    command.stderr(Stdio::piped());
    let mut server = ServerProcess::spawn(command).await;
    let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines();

    until(&mut log, "waiting for the database").await;

    let answer =
        http_client().get(format!("http://{}/readyz", server.address)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.json::<Value>().await.unwrap(),
        json!({"ready": false, "reasons": ["starting"]})
    );
    stop(server).await;
}

#[tokio::test]
async fn send_prints_the_id_alone_and_stores_the_data_as_given() {
    let app = TestApp::start().await;
    let url = app.url("");

    let json = output(client(&["send", "shop", "ada", "{\"order\": 1.0}"], &url)).await;
    let word = output(client(&["send", "shop", "ada", "shipped"], &url)).await;
    let number = output(client(&["send", "shop", "ada", "--text", "17"], &url)).await;

    let ids = [&json, &word, &number].map(|output| text(&output.stdout));
    assert_eq!(app.database.ids("shop", "user:ada").await, ids);
    let mut stream = app.subscribe_after("shop/ada", "0".repeat(26)).await;
    for data in ["{\"order\":1.0}", "\"shipped\"", "\"17\""] {
        assert_eq!(stream.notification().await.data.as_deref(), Some(data));
    }
}

#[tokio::test]
async fn history_prints_what_is_stored() {
    let app = TestApp::start().await;
    let sent = app.send_many("shop/ada", 3).await;

    let arguments = ["history", "shop", "ada", "--json", "--order", "asc"];
    let history = output(client(&arguments, &app.url(""))).await;

    let ids: Vec<String> = String::from_utf8(history.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, sent.iter().map(|sent| sent.id.clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn tail_misses_nothing_when_it_is_cut_and_ends_with_130() {
    let app = TestApp::start().await;
    let proxy = Proxy::start(app.address).await;
    let mut sent = app.send_many("shop/ada", 2).await;
    let arguments = ["tail", "shop", "ada", "--json", "--after", "earliest"];
    let mut tail = client(&arguments, &format!("http://{}", proxy.address));
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut seen = vec![next_object(&mut lines).await, next_object(&mut lines).await];

    for _ in 0..3 {
        proxy.cut_connections();
        sent.extend(app.send_many("shop/ada", 3).await);
        while seen.len() < sent.len() {
            seen.push(next_object(&mut lines).await);
        }
    }
    let pid = rustix::process::Pid::from_raw(tail.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();

    assert_eq!(timeout(DEADLINE, tail.wait()).await.unwrap().unwrap().code(), Some(130));
    let ids: Vec<&str> = seen.iter().map(|object| object["id"].as_str().unwrap()).collect();
    assert_eq!(ids, sent.iter().map(|sent| sent.id.as_str()).collect::<Vec<_>>());
}

#[tokio::test]
async fn migrate_makes_the_schema_once() {
    let database = TestDatabase::empty().await;
    let variables = [("DATABASE_URL", database.url.as_str())];

    for said in ["applied", "up to date"] {
        let migrated = output(ServerProcess::command(&["migrate"], &variables)).await;
        assert!(migrated.status.success(), "{migrated:?}");
        assert!(text(&migrated.stderr).contains(said), "{migrated:?}");
    }

    assert_eq!(database.count().await, 0);
}

#[tokio::test]
async fn what_a_client_command_meets_is_in_its_exit_code() {
    let app = TestApp::start().await;
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}", nobody.local_addr().unwrap());
    for (arguments, url, code) in [
        (&["send", "shop", "ada", "17"][..], app.url(""), 0),
        (&["send", "shop", "ada"], app.url(""), 2),
        (&["send", "shop", "ada", "17"], "nonsense".to_owned(), 2),
        (&["send", "shop", " ", "17"], app.url(""), 3),
        (&["send", "shop", "ada", "17"], nobody, 4),
    ] {
        let ended = output(client(arguments, &url)).await;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?} {url}: {ended:?}");
    }
}

#[tokio::test]
async fn migrate_and_prune_say_by_their_exit_code_that_there_is_no_database() {
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("postgres://tidings@{}/tidings", nobody.local_addr().unwrap());
    for command in ["migrate", "prune"] {
        let ended =
            output(ServerProcess::command(&[command], &[("DATABASE_URL", url.as_str())])).await;
        assert_eq!(ended.status.code(), Some(4), "{command}: {ended:?}");
        assert!(text(&ended.stderr).contains("the database cannot be reached"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_server_whose_log_cannot_be_written_goes_on() {
    let database = TestDatabase::empty().await;
    let mut command = ServerProcess::command(
        &["serve", "--listen", "127.0.0.1:0"],
        &[("DATABASE_URL", database.url.as_str()), ("TIDINGS_LOG", "debug")],
    );
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stderr(full);
    let server = ServerProcess::spawn(command).await;
    let url = |path: &str| format!("http://{}{path}", server.address);

    eventually("it is ready", async || {
        let answer = http_client().get(url("/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let sent = http_client().post(url("/api/notifications/send/shop/ada")).body("stored");
    let sent = sent.header("content-type", "text/plain").send().await.unwrap();

    assert_eq!(sent.status(), 201);
    assert_eq!(database.count().await, 1);
    stop(server).await;
}

async fn start_in(folder: &Folder) -> ServerProcess {
    let server =
        ServerProcess::start(&[("TIDINGS_DATA_DIR", folder.path().to_str().unwrap())]).await;
    eventually("it is ready", async || {
        let answer = http_client().get(format!("http://{}/readyz", server.address)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    server
}

async fn stop(mut server: ServerProcess) {
    server.signal(Signal::TERM);
    let ended = timeout(DEADLINE, server.child.wait()).await.expect("it ends in time");
    assert_eq!(ended.unwrap().code(), Some(0));
}

struct Refusal {
    code: i32,
    sentence: String,
}

/// A start that fails: with a code and one line.
async fn refusal(variables: &[(&str, &str)]) -> Refusal {
    let mut command = ServerProcess::command(&["serve"], &[("TIDINGS_LISTEN", "127.0.0.1:0")]);
    command.envs(variables.iter().copied());
    let output = output(command).await;
    let sentence = text(&output.stderr);
    assert_eq!(sentence.lines().count(), 1, "{variables:?}: {output:?}");
    assert!(sentence.starts_with("tidings: "), "{variables:?}: {output:?}");
    Refusal { code: output.status.code().expect("no signal"), sentence }
}

/// A client command against a server.
fn client(arguments: &[&str], url: &str) -> Command {
    ServerProcess::command(arguments, &[("TIDINGS_URL", url)])
}

/// A printed line as a person would run it.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]).kill_on_drop(true).stdin(Stdio::null());
    // What is on this machine is not for a proxy.
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

async fn output(mut command: Command) -> Output {
    timeout(DEADLINE, command.output()).await.expect("it ends in time").expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn lines_with<'a>(banner: &'a str, word: &str) -> Vec<&'a str> {
    banner.lines().map(str::trim).filter(|line| line.contains(word)).collect()
}

/// Reads on to a line with this text.
async fn until<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, wanted: &str) {
    let search = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(wanted) {
                return;
            }
        }
        panic!("it ended before {wanted:?}");
    };
    timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("{wanted:?} in time"));
}

async fn next_object<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>) -> Value {
    let line = timeout(DEADLINE, lines.next_line()).await.expect("a line in time");
    serde_json::from_str(&line.unwrap().expect("it goes on")).unwrap()
}

#[tokio::test]
async fn whatever_the_database_has_by_default_it_is_migrated_and_served() {
    let database = TestDatabase::empty().await;
    for setting in [
        "standard_conforming_strings = off",
        "default_transaction_isolation = 'serializable'",
        "bytea_output = 'escape'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'iso_8601'",
        "search_path = ''",
        "timezone = 'Asia/Kathmandu'",
    ] {
        database.run(&format!("alter database {} set {setting}", database.name)).await;
    }
    let app = TestApp::on(database, |_| {}).await;
    let mut ada = app.subscribe("shop/ada").await;
    let data = r#""\\ud800 \ud83d\ude00""#;

    app.send("shop/ada", data).await;
    app.database.run(&format!("select tidings.send('shop', 'ada', $${data}$$)")).await;

    for _ in 0..2 {
        assert_eq!(ada.notification().await.data.as_deref(), Some(data));
    }
    let ahead = "select count(*) from tidings.partitions";
    eventually("partitions are made", async || app.database.value::<i64>(ahead).await > 7).await;
}
