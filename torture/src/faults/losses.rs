//! Faults that lose rows which were acknowledged: the database goes back to a copy of itself. They note
//! up to when the copy is complete and where it ends, so that it is known what may be lost.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use sqlx::types::Uuid;
use ulid::Ulid;
use wire::Outcome;

use super::Effect;
use super::connections::let_pass;
use super::replication::{primary_vanishes, receiver, take_over};
use crate::cluster::{Cluster, Mode, Postgres, send_signal};
use crate::history::{Event, Recorder};

/// Some append comes sooner than that.
const NEXT_APPEND: Duration = Duration::from_secs(10);
const CAUGHT_UP: Duration = Duration::from_secs(10);

/// The standby is not waited for any more, and its receiver stands still.
pub(super) async fn leave_behind(cluster: &Cluster, recorder: &Recorder) -> Outcome<Effect> {
    let (primary, standby) = (cluster.postgres(), cluster.standby()?);
    primary.wait_for_standbys("").await?;
    let complete = recorder.now();
    has_received_everything(primary, standby).await?;
    let pid = receiver(&mut standby.connect().await?).await?;
    send_signal(pid, Signal::STOP)?;
    recorder.note(Event::Copied { complete });
    rows_follow(primary).await?;
    let observed = format!("receiver {pid} stands still, and rows were committed without it");
    Ok(Effect { observed, connections: cluster.database_connections() })
}

/// The receiver is killed with what it had not read yet, and the standby promoted without that.
pub(super) async fn fail_over(cluster: &Cluster, recorder: &Recorder) -> Outcome<()> {
    let standby = cluster.standby()?;
    let pid = receiver(&mut standby.connect().await?).await?;
    primary_vanishes(cluster).await?;
    let gone = Gone::now(recorder)?;
    send_signal(pid, Signal::KILL)?;
    take_over(standby).await?;
    went_back(standby, &gone, recorder).await?;
    cluster.switch();
    let_in(cluster);
    Ok(())
}

/// What comes after the copy is for the primary alone: nothing waits for a standby.
pub(super) async fn back_up(cluster: &Cluster, recorder: &Recorder) -> Outcome<Effect> {
    let primary = cluster.postgres();
    primary.wait_for_standbys("").await?;
    let complete = recorder.now();
    primary.back_up().await?;
    recorder.note(Event::Copied { complete });
    rows_follow(primary).await?;
    let observed = "its files were copied, and rows were committed after that".to_owned();
    Ok(Effect { observed, connections: cluster.database_connections() })
}

/// The copy takes the place of the data while nobody is connected. The servers stay up.
pub(super) async fn restore(cluster: &Cluster, recorder: &Recorder) -> Outcome<()> {
    let primary = cluster.postgres();
    // It would follow the restored one over another history.
    cluster.standby()?.end(Signal::QUIT).await?;
    primary_vanishes(cluster).await?;
    let gone = Gone::now(recorder)?;
    primary.restore().await?;
    went_back(primary, &gone, recorder).await?;
    let_in(cluster);
    Ok(())
}

/// When the database that went on after the copy was gone.
struct Gone {
    at: u64,
    until: Ulid,
}

impl Gone {
    #[expect(clippy::disallowed_methods, reason = "the server's clock is not the tester's")]
    fn now(recorder: &Recorder) -> Outcome<Self> {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        // No id given until now has a later time in it: the clocks of these runs go right.
        Ok(Self { at: recorder.now(), until: Ulid::from_parts(u64::try_from(ms)? + 1, 0) })
    }
}

/// Noted before anybody who appends can reach it.
async fn went_back(database: &Postgres, gone: &Gone, recorder: &Recorder) -> Outcome<()> {
    let kept = newest(database).await?;
    recorder.note(Event::WentBack { gone: gone.at, kept, until: gone.until });
    Ok(())
}

fn let_in(cluster: &Cluster) {
    let_pass(cluster);
    cluster.readers.set(Mode::Pass);
}

async fn has_received_everything(primary: &Postgres, standby: &Postgres) -> Outcome<()> {
    let written: String = sqlx::query_scalar("select pg_current_wal_lsn()::text")
        .fetch_one(&mut primary.connect().await?)
        .await?;
    let mut connection = standby.connect().await?;
    let began = Instant::now();
    while began.elapsed() < CAUGHT_UP {
        let received: bool =
            sqlx::query_scalar("select coalesce(pg_last_wal_receive_lsn() >= $1::pg_lsn, false)")
                .bind(&written)
                .fetch_one(&mut connection)
                .await?;
        if received {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("the standby did not receive {written} within {CAUGHT_UP:?}").into())
}

/// Waits until something was appended from now on.
async fn rows_follow(database: &Postgres) -> Outcome<()> {
    let before = newest(database).await?;
    let began = Instant::now();
    while began.elapsed() < NEXT_APPEND {
        if newest(database).await? > before {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("nothing was appended within {NEXT_APPEND:?}").into())
}

async fn newest(database: &Postgres) -> Outcome<Ulid> {
    let id: Option<Uuid> =
        sqlx::query_scalar("select id from tidings.notification order by id desc limit 1")
            .fetch_optional(&mut database.connect().await?)
            .await?;
    Ok(id.map_or(Ulid::nil(), |id| Ulid(id.as_u128())))
}
