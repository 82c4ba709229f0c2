//! One stream covers a user, everyone, and topics: one id order under one cursor, live and replayed.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::watch;

use crate::harness::{DEADLINE, Request, SseClient, TestApp, TestDatabase};
use crate::problems::refuses;

const ZERO: &str = "00000000000000000000000000";
const SUBSCRIBE: &str = "/api/notifications/subscribe/shop/ada";

/// Sends `data` to one audience of an app, as in the member `to`; its id.
async fn send_to(app: &TestApp, tenant: &str, to: serde_json::Value, data: u32) -> String {
    let body = json!({"to": to, "data": data}).to_string();
    let path = format!("/api/notifications/send/{tenant}");
    let answer = Request::json(path, body).send(app.address).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn all_that_a_stream_covers_comes_in_one_order_on_every_instance_and_nothing_else() {
    let one = TestApp::start().await;
    let two = TestApp::on(one.database.clone(), |_| {}).await;
    let mut live =
        [one.subscribe("shop/ada?topics=b,a").await, two.subscribe("shop/ada?topics=a,b,a").await];
    let mut covered = Vec::new();
    for round in 0..5 {
        for (at, to, is_covered) in [
            (&one, json!({"user": "ada"}), true),
            (&two, json!({"topic": "a"}), true),
            (&one, json!({"topic": "b"}), true),
            (&two, json!("everyone"), true),
            (&one, json!({"user": "bob"}), false),
            (&two, json!({"user": "a"}), false),
            (&one, json!({"topic": "c"}), false),
            (&two, json!({"topic": "A"}), false),
            (&one, json!({"topic": "ada"}), false),
            (&two, json!({"topic": "everyone"}), false),
            (&one, json!({"topic": "a:b"}), false),
        ] {
            let id = send_to(at, "shop", to.clone(), round).await;
            covered.extend(is_covered.then_some(id));
            send_to(at, "shop2", to, round).await;
        }
    }

    for client in &mut live {
        client.expect(&covered).await;
        client.expect_silence().await;
    }
    for app in [&one, &two] {
        for (cursor, missed) in [(ZERO, &covered[..]), (&covered[6], &covered[7..])] {
            let mut client = app.subscribe_after("shop/ada?topics=a,b", cursor).await;
            client.expect(missed).await;
            assert_eq!(client.until("tidings.live").await.1.json()["replayed"], missed.len());
            client.expect_silence().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_merged_in_order_over_cuts_and_instances() {
    const SENDS: u32 = 120;
    const SENDERS: u32 = 4;
    let one = TestApp::start().await;
    let two = TestApp::on(one.database.clone(), |_| {}).await;
    let seen = watch::Sender::new(0);
    let audiences =
        [json!({"user": "ada"}), json!({"topic": "a"}), json!({"topic": "b"}), json!("everyone")];

    let senders = join_all((0..SENDERS).map(async |sender| {
        let mut ids = Vec::new();
        let mut progress = seen.subscribe();
        for number in 0..SENDS {
            // Not far ahead of the client, so that there are sends in each phase of its streams.
            let wait = progress.wait_for(|seen| seen + 40 >= ids.len() * SENDERS as usize);
            tokio::time::timeout(DEADLINE, wait).await.expect("in time").unwrap();
            let to = &audiences[((sender + number) % 4) as usize];
            let app = [&one, &two][(number / 4 % 2) as usize];
            ids.push(send_to(app, "shop", to.clone(), number).await);
        }
        ids
    }));
    let client = async {
        let (mut all, mut cursor) = (Vec::new(), ZERO.to_owned());
        let mut connections = 0;
        while all.len() < (SENDS * SENDERS) as usize {
            let app = [&one, &two][connections % 2];
            let mut stream = app.subscribe_after("shop/ada?topics=a,b", &cursor).await;
            // Sometimes in the replay, sometimes after it.
            for _ in 0..(3 + connections * 7 % 23).min((SENDS * SENDERS) as usize - all.len()) {
                all.push(stream.notification().await.id().to_owned());
            }
            seen.send_replace(all.len());
            cursor = stream.cursor.clone().unwrap();
            stream.cut();
            connections += 1;
        }
        (all, connections)
    };
    let (sent, (received, connections)) = tokio::join!(senders, client);

    let mut sent = sent.concat();
    sent.sort();
    assert_eq!(received, sent);
    assert!(connections > 20, "{connections} connections");
    let mut late = two.subscribe_after("shop/ada?topics=a,b", &sent[sent.len() - 1]).await;
    late.expect_silence().await;
}

/// Appends the numbers of a run to an audience.
async fn append_run(database: &TestDatabase, audience: &str, count: usize) {
    let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for chunk in numbers.chunks(400) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        database.append("shop", audience, &chunk).await;
    }
}

/// What the table has for these audiences, in order.
async fn stored(database: &TestDatabase, audiences: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for audience in audiences {
        ids.extend(database.ids("shop", audience).await);
    }
    ids.sort();
    ids
}

#[tokio::test]
async fn a_page_of_several_topics_is_complete_up_to_the_one_that_was_cut_first() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    // By the largest id of a page, what the first topic has beyond its limit would be lost.
    for (audience, count) in
        [("topic:a", 600), ("topic:b", 350), ("user:ada", 200), ("topic:a", 50), ("everyone", 1)]
    {
        append_run(&database, audience, count).await;
    }
    let expected = stored(&database, &["topic:a", "topic:b", "user:ada", "everyone"]).await;
    assert_eq!(expected.len(), 1201);

    let mut client = app.subscribe_after("shop/ada?topics=a,b,c", ZERO).await;

    client.expect(&expected).await;
    assert_eq!(client.until("tidings.live").await.1.json()["replayed"], 1201);
    client.expect_silence().await;
}

/// `t0,t1,…`
fn topics(count: usize) -> String {
    (0..count).map(|topic| format!("t{topic}")).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_hundred_topics_are_replayed_completely_be_they_all_busy_or_one_of_them() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let names: Vec<String> = (0..100).map(|topic| format!("topic:t{topic}")).collect();
    for name in &names {
        append_run(&database, name, 40).await;
    }
    append_run(&database, "topic:t7", 700).await;
    append_run(&database, "everyone", 40).await;
    let mut audiences: Vec<&str> = names.iter().map(String::as_str).collect();
    audiences.push("everyone");
    let expected = stored(&database, &audiences).await;
    assert_eq!(expected.len(), 100 * 40 + 700 + 40);
    let topics = topics(100);

    let mut client = app.subscribe_after(&format!("shop/ada?topics={topics}"), ZERO).await;

    client.expect(&expected).await;
    assert_eq!(client.until("tidings.live").await.1.json()["replayed"], expected.len());
    append_run(&database, "topic:t99", 1).await;
    client.expect(&database.ids("shop", "topic:t99").await[40..]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_page_of_a_hundred_topics_takes_no_more_memory_than_another() {
    const PAGE_BYTES: f64 = (256 << 10) as f64;
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    // Short enough to be stored as they are; and one that is not, so that it is unpacked.
    let (long, longest) = ("x".repeat(1800), "y".repeat(60_000));
    for topic in 0..100 {
        let data = if topic % 10 == 0 { &longest } else { &long };
        let data = format!("\"{data}\"");
        database.append("shop", &format!("topic:t{topic}"), &[&data, &data, &data]).await;
    }
    let path = format!("{SUBSCRIBE}?topics={}", topics(100));
    let mut client = SseClient::connect(app.address, &path, Some(ZERO)).await;

    let mut most = 0.0;
    for number in 0..300 {
        most = app.metric("tidings_replay_pages_bytes").await.max(most);
        let frame = client.notification().await;
        let length = frame.data.unwrap().len();
        assert!(length == 1802 || length == 60_002, "{number}: {length}");
    }

    assert!(most <= PAGE_BYTES, "{most} bytes in pages");
    assert!(most > PAGE_BYTES / 2.0, "the page's bytes are for all audiences together: {most}");
    client.until("tidings.live").await;
}

#[tokio::test]
async fn topics_that_are_none_or_too_many_are_refused() {
    let app = TestApp::start().await;
    let too_many = topics(101);
    let empty = "is empty: give a name of 1 to 128 characters.";
    for (topics, detail) in [
        (too_many.as_str(), "There are 101 topics: name up to 100.".to_owned()),
        ("a,,b", format!("The topic \"\" {empty}")),
        (",", format!("The topic \"\" {empty}")),
        ("a,%20", "The topic \" \" is only white space: give a name.".into()),
        ("a%0Ab", "The topic \"a\\nb\" has a control character: remove it.".into()),
        (
            "..",
            "The topic \"..\" is a path of dots, which clients resolve away: give another name."
                .into(),
        ),
    ] {
        let request = Request::get(format!("{SUBSCRIBE}?topics={topics}"))
            .header("accept", "text/event-stream");
        refuses(&app, &request, 400, "invalid-topic", &detail).await;
    }
    for accepted in [topics(100), format!("{},t1", topics(100)), String::new()] {
        let mut client = app.subscribe(&format!("shop/ada?topics={accepted}")).await;
        client.expect_silence().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_everyone_is_one_row_and_reaches_all_who_are_connected() {
    const USERS: usize = 1000;
    // As by default: more pings to so many would be most of what is done.
    let app = TestApp::with(|config| config.heartbeat = Duration::from_secs(10)).await;
    let open =
        async |user| app.subscribe(&format!("shop/user-{user}?topics=t{}", user % 100)).await;
    let mut clients = Vec::with_capacity(USERS);
    for first in (0..USERS).step_by(50) {
        clients.extend(join_all((first..first + 50).map(open)).await);
    }

    let ids = [
        send_to(&app, "shop", json!("everyone"), 1).await,
        send_to(&app, "shop", json!("everyone"), 2).await,
    ];

    for client in &mut clients {
        client.expect(&ids).await;
    }
    assert_eq!(app.database.count().await, 2, "one row each");
    assert_eq!(app.metric("tidings_subscriptions").await, USERS as f64);
}
