//! The two tables in rotation: one is emptied only when no row of it can come any more.

use super::{connect, drain, run, stored, waiting};
use crate::harness::{TestApp, TestDatabase, eventually};

#[tokio::test]
async fn a_table_with_a_row_that_may_still_come_is_never_truncated() {
    let database = TestDatabase::new().await;
    let mut drainer = connect(&database).await;
    let mut held = connect(&database).await;
    run(&mut held, "begin; select tidings.send('shop', 'ada', '\"held\"')").await;
    database.run("select tidings.send('shop', 'ada', '\"moved\"')").await;
    let size = "select pg_relation_size('tidings.outbox_0')";
    let rotate = "call tidings.rotate_outbox(0)";

    drain(&mut drainer, 100).await;
    run(&mut drainer, rotate).await;
    assert_eq!(database.value::<i64>("select last_value from tidings.outbox_turn").await, 1);
    // The table is held open: refused, at once.
    run(&mut drainer, rotate).await;
    assert!(database.value::<i64>(size).await > 0);
    run(&mut held, "commit").await;
    // Now it is free, but for the row.
    run(&mut drainer, rotate).await;
    assert!(database.value::<i64>(size).await > 0);
    drain(&mut drainer, 100).await;
    run(&mut drainer, rotate).await;

    assert_eq!(database.value::<i64>(size).await, 0);
    assert_eq!(stored(&database, "shop").await, ["\"moved\"", "\"held\""]);
}

#[tokio::test]
async fn what_an_old_snapshot_keeps_is_let_go_by_turns() {
    let app = TestApp::start().await;
    let mut old = connect(&app.database).await;
    run(&mut old, "begin isolation level repeatable read; select 1").await;
    // More than one table may hold before the other has its turn.
    let send = "select count(tidings.send('shop', 'ada', to_json(repeat('x', 6000) || i)))
        from generate_series(1, 3000) i";
    app.database.run(send).await;
    let sizes = "select sum(pg_total_relation_size(oid))::bigint from pg_class where relname like 'outbox%' and relkind = 'r'";
    eventually("the room is let go", async || {
        waiting(&app.database).await == 0 && app.database.value::<i64>(sizes).await < 1 << 20
    })
    .await;
    assert_eq!(app.database.count().await, 3000);
    run(&mut old, "commit").await;
}
