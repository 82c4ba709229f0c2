//! A restore or a failover can lose what was acknowledged and seen. It never does so in silence: whoever
//! has seen what is lost is told, and misses nothing of what is there.

use crate::harness::{ServerProcess, SseClient, TestApp, TestDatabase, eventually};

/// What a file-level restore of an older state leaves: the rows and the sequence of then. The servers
/// lose their connections, as they do when a database is stopped for it.
async fn go_back_to(database: &TestDatabase, id: &str) {
    go_back(database, id, "").await;
}

/// The same, of a state from before any epoch was opened.
async fn go_back_to_the_first_epoch(database: &TestDatabase, id: &str) {
    go_back(database, id, "delete from tidings.epoch where epoch > 0").await;
}

async fn go_back(database: &TestDatabase, id: &str, and: &str) {
    let id = uuid::Uuid::from(ulid::Ulid::from_string(id).unwrap());
    database.run(&format!("delete from tidings.notification where id > '{id}'; {and}")).await;
    // After the commit of that, since everybody sees it at once.
    database.run(&format!("select setval('tidings.position', tidings.position('{id}'))")).await;
    // Nobody may go on with a database that was there in between.
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    database.run(cut).await;
}

async fn epochs(database: &TestDatabase) -> i64 {
    database.value("select count(*) from tidings.epoch").await
}

/// The next frame that is no ping is the gap, from the lost cursor back to `kept`.
async fn expect_restored(client: &mut SseClient, lost: &str, kept: &str) -> String {
    let gap = client.next_that(|frame| frame.is("tidings.gap")).await;
    let data = gap.json();
    assert_eq!(data["reason"], "restored", "{data}");
    assert_eq!(data["after"], lost, "{data}");
    assert_eq!(data["resumes_after"], gap.id());
    let position = |id: &str| u128::from(ulid::Ulid::from_string(id).unwrap()) >> 65;
    assert_eq!(position(gap.id()), position(kept), "nothing that was kept or comes is passed over");
    gap.id().to_owned()
}

#[tokio::test]
async fn a_database_that_went_back_is_told_to_open_streams_and_to_old_cursors() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let other = TestApp::on(database.clone(), |_| {}).await;
    let kept = app.send("shop/ada", "\"kept\"").await;
    let mut open = app.subscribe("shop/ada").await;
    let mut elsewhere = other.subscribe("shop/ada").await;
    let lost = app.send_many("shop/ada", 2).await;
    open.expect(&lost).await;
    elsewhere.expect(&lost).await;

    go_back_to(&database, &kept.id).await;

    let ready = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 200);
    eventually("the database is back", ready).await;
    let after = app.send_many("shop/ada", 3).await;
    assert!(after.iter().all(|sent| sent.id > lost[1].id), "new ids are above the lost ones");
    for client in [&mut open, &mut elsewhere] {
        expect_restored(client, &lost[1].id, &kept.id).await;
        client.expect(&after).await;
    }
    // Two instances noticed, one epoch was opened.
    assert_eq!(epochs(&database).await, 2);

    // A cursor of then: the ids of now are above it, so no comparison of ids would show it.
    let mut late = app.subscribe_after("shop/ada", &lost[0]).await;
    expect_restored(&mut late, &lost[0].id, &kept.id).await;
    late.expect(&after).await;
    late.expect_silence().await;
    // Cursors of what was kept, and of today, are as good as ever.
    for (cursor, rest) in [(&kept.id, &after[..]), (&after[0].id, &after[1..])] {
        let mut client = app.subscribe_after("shop/ada", cursor).await;
        client.expect(rest).await;
        let (missed, live) = client.until("tidings.live").await;
        assert_eq!((missed.len(), live.json()["replayed"].as_u64()), (0, Some(rest.len() as u64)));
    }
}

#[tokio::test]
async fn a_failover_that_lost_nothing_is_no_gap_for_anyone() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut open = app.subscribe("shop/ada").await;
    let before = app.send_many("shop/ada", 3).await;
    open.expect(&before).await;
    // Of a promoted standby, all but its line of history is the same.
    database.run("update tidings.epoch set timeline = timeline - 1").await;
    go_back_to(&database, &before[2].id).await;

    let ready = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 200);
    eventually("the database is back", ready).await;
    let after = app.send_many("shop/ada", 2).await;

    assert_eq!(epochs(&database).await, 2);
    assert_eq!(app.metric("tidings_gaps_total").await, 0.0);
    open.expect(&after).await;
    let mut late = app.subscribe_after("shop/ada", &before[1]).await;
    late.expect([&before[2], &after[0], &after[1]]).await;
    late.expect_silence().await;
    assert_eq!(app.metric("tidings_gaps_total").await, 0.0);
}

#[tokio::test]
async fn streams_go_live_after_a_failover_before_anything_is_sent() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut open = app.subscribe("shop/ada").await;
    let before = app.send_many("shop/ada", 2).await;
    open.expect(&before).await;
    database.run("update tidings.epoch set timeline = timeline - 1").await;
    go_back_to(&database, &before[1].id).await;
    eventually("the open stream is sent back to replay", async || {
        app.metric("tidings_returns_to_replay_total").await >= 1.0
    })
    .await;

    let mut late = app.subscribe_after("shop/ada", &before[0]).await;

    let (frames, _live) = late.replay().await;
    assert_eq!(frames.iter().map(|frame| frame.id()).collect::<Vec<_>>(), [&before[1].id]);
}

#[tokio::test]
async fn a_restore_that_leaves_no_trace_is_said_by_hand() {
    let database = TestDatabase::new().await;
    let first = TestApp::on(database.clone(), |_| {}).await;
    let kept = first.send("shop/ada", "\"kept\"").await;
    let lost = first.send("shop/ada", "\"lost\"").await;
    first.stop().await.unwrap();
    go_back_to(&database, &kept.id).await;

    let url = [("DATABASE_URL", database.url.as_str())];
    let mut command = ServerProcess::command(&["migrate", "--after-restore"], &url);
    let output = command.output().await.unwrap();

    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("opened epoch 1:"), "{said}");
    let app = TestApp::on(database.clone(), |_| {}).await;
    let after = app.send("shop/ada", "\"after\"").await;
    let mut client = app.subscribe_after("shop/ada", &lost).await;
    expect_restored(&mut client, &lost.id, &kept.id).await;
    client.expect([&after]).await;

    // While servers run it reaches their streams too.
    let seen = app.send("shop/ada", "\"seen\"").await;
    client.expect([&seen]).await;
    let output = ServerProcess::command(&["migrate", "--after-restore"], &url).output().await;
    assert!(output.unwrap().status.success());
    let next = app.send("shop/ada", "\"next\"").await;
    client.expect([&next]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_backup_that_is_restored_twice_is_told_twice() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let kept = app.send("shop/ada", "\"kept\"").await;
    let mut open = app.subscribe_after("shop/ada", &kept).await;
    let mut lost = app.send("shop/ada", "\"lost\"").await;
    open.expect([&lost]).await;
    for _ in 0..2 {
        go_back_to_the_first_epoch(&database, &kept.id).await;
        expect_restored(&mut open, &lost.id, &kept.id).await;
        lost = app.send("shop/ada", "\"lost, too\"").await;
        open.expect([&lost]).await;
    }
    open.expect_silence().await;
}

#[tokio::test]
async fn a_backup_that_is_restored_twice_while_no_server_runs_is_told_twice() {
    let database = TestDatabase::new().await;
    let url = [("DATABASE_URL", database.url.as_str())];
    let app = TestApp::on(database.clone(), |_| {}).await;
    let kept = app.send("shop/ada", "\"kept\"").await;
    app.stop().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        go_back_to_the_first_epoch(&database, &kept.id).await;
        let output = ServerProcess::command(&["migrate", "--after-restore"], &url).output().await;
        // The number that the backup does not know comes again.
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains("opened epoch 1:"), "{said}");
        let app = TestApp::on(database.clone(), |_| {}).await;
        seen.push(app.send("shop/ada", "\"seen\"").await);
        app.stop().await.unwrap();
    }

    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut client = app.subscribe_after("shop/ada", &seen[0]).await;
    expect_restored(&mut client, &seen[0].id, &kept.id).await;
    client.expect([&seen[1]]).await;
    // A cursor of today is good, and so is a time from which nothing is left.
    let mut client = app.subscribe_after("shop/ada", &seen[1]).await;
    client.until("tidings.live").await;
    let ms = ulid::Ulid::from_string(&seen[0].id).unwrap().timestamp_ms() as i64;
    let since = tidings::clock::rfc3339(chrono::DateTime::from_timestamp_millis(ms).unwrap());
    let path = format!("/api/notifications/subscribe/shop/ada?since={since}");
    let mut client = SseClient::connect(app.address, &path, None).await;
    client.expect([&seen[1]]).await;
    assert_eq!(app.metric("tidings_gaps_total").await, 1.0);
}

#[tokio::test]
async fn an_ordinary_restart_of_the_database_opens_no_epoch() {
    let database = TestDatabase::new().await;
    let app = TestApp::on(database.clone(), |_| {}).await;
    let mut client = app.subscribe("shop/ada").await;
    let sent = app.send("shop/ada", "1").await;
    client.expect([&sent]).await;
    for _ in 0..3 {
        go_back_to(&database, &sent.id).await;
        let up = async || app.get("/readyz").await.is_ok_and(|answer| answer.status() == 200);
        eventually("the database is back", up).await;
    }
    let next = app.send("shop/ada", "2").await;
    client.expect([&next]).await;
    client.expect_silence().await;
    assert_eq!(epochs(&database).await, 1);
}
