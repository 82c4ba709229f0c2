//! The faults. Each one is injected, seen to have taken effect (else it does not count), and healed.

mod background;
mod connections;
mod database;
mod instances;
mod losses;
mod machine;
mod replication;

use std::time::Duration;

use wire::{Failure, Outcome};

use crate::cluster::{Clock, Cluster, Needs, SmallDisk};
use crate::history::Recorder;
use crate::plan::Planned;

pub(crate) use background::Background;

const HOUR: i64 = 3600;
/// A server waits 5 s for one call.
const LONGER_THAN_A_CALL: Duration = Duration::from_secs(7);

/// What can go wrong, by the name it has in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of an instance.
    KillInstance,
    /// SIGTERM of an instance.
    TermInstance,
    /// All instances, one after the other, by SIGTERM.
    RollingRestart,
    /// An instance stops running for a while, and goes on as if nothing had happened (SIGSTOP).
    PauseInstance,
    /// The writer's connection is reset before its call arrives.
    WriterCallLost,
    /// The writer's connection is reset right after its call was sent.
    WriterCut,
    /// The writer's call arrives, its answer does not, and the connection is reset.
    WriterAnswerLost,
    /// The writer's connection is frozen right after its call was sent.
    WriterFrozen,
    /// Every connection from the instances to Postgres is reset.
    ResetConnections,
    /// They are all frozen, in both directions.
    FreezeConnections,
    /// Those of one instance are frozen.
    FreezeOneInstance,
    /// Postgres cannot be reached.
    RefuseConnections,
    /// The backends of the listeners are terminated.
    ListenerTerminated,
    /// kill -9 of a backend, upon which Postgres restarts all of them.
    KillBackend,
    /// Postgres is stopped fast and started again.
    PostgresFast,
    /// Postgres is stopped at once, without a checkpoint, and started again.
    PostgresImmediate,
    /// kill -9 of the postmaster.
    KillPostmaster,
    /// A snapshot is held for the whole run.
    HeldSnapshot,
    /// A pg_dump runs.
    Dump,
    /// All clients are cut at once, and come back at once.
    ReconnectAll,
    /// An instance is taken out of the balancer and its clients are cut; then it comes back.
    InstanceOut,
    /// The database's clock jumps an hour ahead, and back.
    ClockAhead,
    /// It jumps an hour back, and ahead again.
    ClockBehind,
    /// The disk of tables and WAL is full.
    DiskFull,
    /// The synchronous standby is gone: nothing can be acknowledged.
    StandbyGone,
    /// The primary is killed and the standby promoted.
    Failover,
    /// The standby receives nothing for longer than a server waits; then the primary is killed and the
    /// standby promoted without what it did not receive.
    FailoverBehind,
    /// The same of a standby that nothing waits for: what it did not receive was acknowledged.
    FailoverAsync,
    /// Postgres' files are replaced by a copy that was made of them a while before.
    RestoreBackup,
}

/// What was seen of a fault's effect.
pub(crate) struct Effect {
    pub(crate) observed: String,
    /// Connections broken or stopped.
    pub(crate) connections: usize,
}

/// Every fault with its name and one line about it.
pub const FAULTS: [(Fault, &str, &str); 27] = [
    (Fault::KillInstance, "kill-instance", "kill -9 of an instance under load"),
    (Fault::TermInstance, "term-instance", "SIGTERM of an instance under load"),
    (Fault::RollingRestart, "rolling-restart", "all instances restarted, one after the other"),
    (Fault::PauseInstance, "pause-instance", "an instance is stopped (SIGSTOP) and goes on"),
    (
        Fault::WriterCallLost,
        "writer-call-lost",
        "a writer's connection reset before its call arrived",
    ),
    (Fault::WriterCut, "writer-cut", "a writer's connection reset right after its call was sent"),
    (
        Fault::WriterAnswerLost,
        "writer-answer-lost",
        "a writer's connection reset instead of the answer",
    ),
    (
        Fault::WriterFrozen,
        "writer-frozen",
        "a writer's connection frozen right after its call was sent",
    ),
    (Fault::ResetConnections, "reset-connections", "every connection to Postgres reset"),
    (
        Fault::FreezeConnections,
        "freeze-connections",
        "every connection to Postgres frozen in both directions",
    ),
    (
        Fault::FreezeOneInstance,
        "freeze-one-instance",
        "one instance's connections to Postgres frozen",
    ),
    (
        Fault::RefuseConnections,
        "refuse-connections",
        "every connection to Postgres reset, new ones refused",
    ),
    (Fault::ListenerTerminated, "listener-terminated", "the listeners' backends terminated"),
    (Fault::KillBackend, "kill-backend", "kill -9 of a backend: Postgres restarts them all"),
    (Fault::PostgresFast, "postgres-fast", "Postgres stopped fast and started"),
    (
        Fault::PostgresImmediate,
        "postgres-immediate",
        "Postgres stopped without a checkpoint and started",
    ),
    (Fault::KillPostmaster, "kill-postmaster", "kill -9 of the postmaster"),
    (Fault::HeldSnapshot, "held-snapshot", "a REPEATABLE READ snapshot held for the whole run"),
    (Fault::Dump, "dump", "a pg_dump runs"),
    (Fault::ReconnectAll, "reconnect-all", "all clients cut at once"),
    (Fault::InstanceOut, "instance-out", "an instance taken out of the balancer and back"),
    (Fault::ClockAhead, "clock-ahead", "the database's clock an hour ahead, and back"),
    (Fault::ClockBehind, "clock-behind", "the database's clock an hour behind, and back"),
    (Fault::DiskFull, "disk-full", "the disk of tables and WAL full"),
    (Fault::StandbyGone, "standby-gone", "the synchronous standby gone"),
    (Fault::Failover, "failover", "the primary killed, its synchronous standby promoted"),
    (
        Fault::FailoverBehind,
        "failover-behind",
        "the same, after the standby had received nothing for a while",
    ),
];

/// Those that lose what was acknowledged: whoever saw it has to be told. In runs of their own, since in
/// all others nothing may be lost.
pub const LOSSES: [(Fault, &str, &str); 2] = [
    (
        Fault::FailoverAsync,
        "failover-async",
        "an asynchronous standby promoted without what it did not receive",
    ),
    (Fault::RestoreBackup, "restore-backup", "Postgres' files replaced by an older copy of them"),
];

/// What else happens in runs with losses, between them and within them: none of it loses anything.
pub const BESIDE_LOSSES: [Fault; 5] = [
    Fault::Failover,
    Fault::KillInstance,
    Fault::PauseInstance,
    Fault::ReconnectAll,
    Fault::ResetConnections,
];

impl Fault {
    /// As in reports and on the command line.
    pub fn name(self) -> &'static str {
        let mut all = FAULTS.iter().chain(&LOSSES);
        all.find(|(fault, ..)| *fault == self).map_or("", |(_, name, _)| name)
    }

    /// By its name; those that lose something have none here.
    pub fn named(name: &str) -> Outcome<Self> {
        let found = FAULTS.iter().find(|(_, known, _)| *known == name);
        let unknown = || Failure::from(format!("there is no fault {name}: see `torture list`"));
        found.map(|(fault, ..)| *fault).ok_or_else(unknown)
    }

    /// It needs nothing but Postgres: no rights, no library, no second database.
    pub fn is_cheap(self) -> bool {
        !matches!(
            self,
            Self::ClockAhead
                | Self::ClockBehind
                | Self::DiskFull
                | Self::StandbyGone
                | Self::Failover
                | Self::FailoverBehind
                | Self::FailoverAsync
                | Self::RestoreBackup
        )
    }

    /// Runs beside the others instead of having a time of its own.
    pub(crate) fn is_for_the_whole_run(self) -> bool {
        self == Self::HeldSnapshot
    }

    /// Makes it happen, and says what was seen; an error means that it did not happen.
    pub(crate) async fn inject(
        self,
        cluster: &Cluster,
        recorder: &Recorder,
        planned: &Planned,
    ) -> Outcome<Effect> {
        let number = planned.instance;
        match self {
            Self::KillInstance => instances::kill(cluster, number).await,
            Self::TermInstance if planned.within == Some(self) => {
                instances::terminate_in_trouble(cluster, number).await
            }
            Self::TermInstance => instances::terminate(cluster, number).await,
            Self::RollingRestart => instances::restart_all(cluster).await,
            Self::PauseInstance => instances::pause(cluster, number).await,
            Self::InstanceOut => instances::take_out(cluster, number).await,
            Self::ReconnectAll => instances::cut_clients(cluster).await,
            Self::WriterCallLost
            | Self::WriterCut
            | Self::WriterAnswerLost
            | Self::WriterFrozen => connections::strike(cluster, number, self).await,
            Self::ResetConnections => connections::reset(cluster).await,
            Self::FreezeConnections => connections::freeze(cluster, None).await,
            Self::FreezeOneInstance => connections::freeze(cluster, Some(number)).await,
            Self::RefuseConnections => connections::refuse(cluster).await,
            Self::ListenerTerminated => database::terminate_listeners(cluster).await,
            Self::KillBackend => database::kill_backend(cluster, planned.dice).await,
            Self::PostgresFast | Self::PostgresImmediate | Self::KillPostmaster => {
                database::stop(cluster, self).await
            }
            Self::Dump => database::dump(cluster).await,
            Self::ClockAhead => machine::move_clock(cluster, HOUR).await,
            Self::ClockBehind => machine::move_clock(cluster, -HOUR).await,
            Self::DiskFull => machine::fill_disk(cluster).await,
            Self::StandbyGone => replication::stop_standby(cluster).await,
            Self::Failover => replication::kill_primary(cluster).await,
            Self::FailoverBehind => replication::stop_receiving(cluster).await,
            Self::FailoverAsync => losses::leave_behind(cluster, recorder).await,
            Self::RestoreBackup => losses::back_up(cluster, recorder).await,
            Self::HeldSnapshot => Err("it has no time of its own".into()),
        }
    }

    /// Brings back what it took away.
    pub(crate) async fn heal(
        self,
        cluster: &Cluster,
        recorder: &Recorder,
        planned: &Planned,
    ) -> Outcome<()> {
        let number = planned.instance;
        match self {
            Self::KillInstance | Self::TermInstance => cluster.instances[number].start().await,
            Self::PauseInstance => instances::go_on(cluster, number).await,
            Self::InstanceOut => {
                cluster.balancer.take_out(number, false);
                Ok(())
            }
            Self::WriterFrozen
            | Self::FreezeConnections
            | Self::FreezeOneInstance
            | Self::RefuseConnections => {
                connections::let_pass(cluster);
                Ok(())
            }
            Self::PostgresFast | Self::PostgresImmediate | Self::KillPostmaster => {
                database::start(cluster).await
            }
            Self::KillBackend => database::is_back(cluster).await,
            Self::ClockAhead | Self::ClockBehind => machine::set_clock_right(cluster).await,
            Self::DiskFull => machine::free_disk(cluster).await,
            Self::StandbyGone => replication::start_standby(cluster).await,
            Self::Failover => replication::promote(cluster).await,
            Self::FailoverBehind => replication::fail_over_behind(cluster).await,
            Self::FailoverAsync => losses::fail_over(cluster, recorder).await,
            Self::RestoreBackup => losses::restore(cluster, recorder).await,
            _ => Ok(()),
        }
    }

    /// Whether it can be injected while `other` lasts, and be healed after it.
    pub(crate) fn may_happen_within(self, other: Self) -> bool {
        // A server that starts on the restored files knows of nothing, and may be the first to append:
        // that leaves no trace (docs/reliability.md, "What is not promised").
        if other == Self::RestoreBackup && matches!(self, Self::KillInstance | Self::TermInstance) {
            return false;
        }
        let of_instances_or_sockets = matches!(
            self,
            Self::KillInstance
                | Self::TermInstance
                | Self::PauseInstance
                | Self::ReconnectAll
                | Self::InstanceOut
                | Self::ResetConnections
        );
        let lasts_and_is_of_the_database = matches!(
            other,
            Self::WriterFrozen
                | Self::FreezeConnections
                | Self::FreezeOneInstance
                | Self::RefuseConnections
                | Self::PostgresFast
                | Self::PostgresImmediate
                | Self::KillPostmaster
                | Self::ClockAhead
                | Self::ClockBehind
                | Self::DiskFull
                | Self::StandbyGone
                | Self::Failover
                | Self::FailoverBehind
                | Self::FailoverAsync
                | Self::RestoreBackup
        );
        of_instances_or_sockets && lasts_and_is_of_the_database
    }

    /// What has to be made ready again for the next time; nothing waits for it.
    pub(crate) async fn afterwards(self, cluster: &Cluster) -> Outcome<()> {
        match self {
            Self::Failover | Self::FailoverBehind | Self::FailoverAsync | Self::RestoreBackup => {
                replication::rebuild_standby(cluster).await
            }
            _ => Ok(()),
        }
    }

    /// What it needs of the databases from the start; an error says what this machine lacks.
    pub(crate) fn prepare(self, needs: &mut Needs) -> Outcome<()> {
        match self {
            Self::ClockAhead | Self::ClockBehind => needs.faketime = Some(Clock::library()?),
            Self::DiskFull => {
                SmallDisk::is_possible()?;
                needs.small_disk = true;
            }
            Self::StandbyGone
            | Self::Failover
            | Self::FailoverBehind
            | Self::FailoverAsync
            | Self::RestoreBackup => needs.standby = true,
            _ => {}
        }
        Ok(())
    }

    /// Nothing is away while it lasts, or it is over when it is injected.
    pub(crate) fn hold(self, planned: &Planned) -> Duration {
        match self {
            Self::RollingRestart
            | Self::WriterCallLost
            | Self::WriterCut
            | Self::WriterAnswerLost
            | Self::ResetConnections
            | Self::ListenerTerminated
            | Self::KillBackend
            | Self::Dump
            | Self::ReconnectAll => Duration::ZERO,
            Self::FailoverBehind => planned.hold.max(LONGER_THAN_A_CALL),
            _ => planned.hold,
        }
    }
}
