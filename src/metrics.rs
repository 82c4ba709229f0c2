//! What an instance counts, for Prometheus (OpenMetrics text). Nothing is labelled by app or user:
//! their number is not bounded.

use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// One instance's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open TCP connections.
    pub connections: Gauge,
    /// Open event streams.
    pub subscriptions: Gauge,
    /// Sends by outcome.
    pub sends: Family<Outcome, Counter>,
    /// Rows that one append committed.
    pub group_size: Histogram,
    /// From the call to the commit's answer.
    pub append_seconds: Histogram,
    /// Sends that wait for an append.
    pub send_queue: Gauge,
    /// What they hold.
    pub send_queue_bytes: Gauge,
    /// Lane holders that were terminated because they had stopped.
    pub lane_holders_ended: Counter,
    /// Rows of the outbox that this instance gave their ids.
    pub outbox_rows: Counter,
    /// How long the oldest row of the last slice had waited; 0 when none did.
    pub outbox_age_seconds: Gauge<f64, AtomicU64>,
    /// Sends whose outcome had to be looked up.
    pub outcomes_settled: Family<Outcome, Counter>,
    /// Changes of inbox state and withdrawals by outcome.
    pub changes: Family<Outcome, Counter>,
    /// From the call to the commit's answer.
    pub change_seconds: Histogram,
    /// From a client's wish for a page to the page.
    pub replay_seconds: Histogram,
    /// Clients waiting for a page.
    pub replay_queue: Gauge,
    /// Pages that clients have not taken yet.
    pub replay_bytes: Gauge,
    /// From the hub's knowing of an event to handing it to a stream.
    pub delivery_seconds: Histogram,
    /// Events handed to streams, live or replayed.
    pub deliveries: Family<Phase, Counter>,
    /// Subscriptions that fell off the ring and went back to replay.
    pub returns_to_replay: Counter,
    /// Gaps by reason.
    pub gaps: Family<Reason, Counter>,
    /// Events in the ring.
    pub ring_bytes: Gauge,
    /// From the commit, by the database's clock, to the hub.
    pub feed_lag_seconds: Histogram,
    /// Reads of the feed.
    pub feed_reads: Counter,
    /// Times the listener had to be connected again.
    pub listener_reconnects: Counter,
    /// Streams that were refused with `tidings.goodbye` or 503.
    pub streams_refused: Counter,
    /// Partitions removed by this instance.
    pub partitions_removed: Counter,
    /// Partitions older than the retention that are still there.
    pub partitions_overdue: Gauge,
    /// Rows of apps with a shorter retention that this instance deleted.
    pub app_rows_deleted: Counter,
    /// When the oldest notification was sent, in Unix time; 0 without any.
    pub oldest_notification: Gauge,
    /// 1 while the database answers.
    pub database_up: Gauge,
}

/// Label: how something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `stored`, `refused`, `overloaded`, `unreachable`, `unknown`, …
    pub outcome: &'static str,
}

/// Label: which way an event reached its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Phase {
    /// `live` or `replay`.
    pub phase: &'static str,
}

/// Label: why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A reason of `tidings.gap`.
    pub reason: &'static str,
}

/// Every way a send ends.
const SENDS: [&str; 9] = [
    "stored",
    "replayed",
    "scheduled",
    "refused",
    "mismatch",
    "overloaded",
    "unreachable",
    "draining",
    "unknown",
];
const SETTLED: [&str; 3] = ["stored", "absent", "unknown"];
const CHANGES: [&str; 4] = ["done", "overloaded", "refused", "unknown"];
const PHASES: [&str; 2] = ["live", "replay"];
const GAPS: [&str; 4] = ["expired", "ahead", "restored", "bad-cursor"];

/// A counter for each label, from the start: of one that begins with its first event, an alarm sees no
/// increase.
fn counters<const N: usize, L>(
    words: [&'static str; N],
    label: fn(&'static str) -> L,
) -> Family<L, Counter>
where
    L: Clone + Eq + Hash,
{
    let family = Family::default();
    for word in words {
        drop(family.get_or_create(&label(word)));
    }
    family
}

/// 0.1 ms to 13 s, each bucket three times the one before: wide enough for a stalled database.
fn seconds() -> Histogram {
    Histogram::new([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
}

impl Metrics {
    /// Registers them all.
    pub fn new() -> Metrics {
        let mut r = Registry::with_prefix("tidings");
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                r.register($name, $help, metric.clone());
                metric
            }};
            ($name:literal, $unit:expr, $help:literal, $metric:expr) => {{
                let metric = $metric;
                r.register_with_unit($name, $help, $unit, metric.clone());
                metric
            }};
        }
        use Unit::{Bytes, Seconds};
        let outcome = |outcome| Outcome { outcome };
        let groups =
            Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]);
        Metrics {
            connections: register!("connections", "Open TCP connections", Gauge::default()),
            subscriptions: register!("subscriptions", "Open event streams", Gauge::default()),
            sends: register!("sends", "Sends by outcome", counters(SENDS, outcome)),
            group_size: register!("append_group_rows", "Rows that one append committed", groups),
            append_seconds: register!(
                "append",
                Seconds,
                "From the call to the answer of its commit",
                seconds()
            ),
            send_queue: register!(
                "send_queue_length",
                "Sends waiting for an append",
                Gauge::default()
            ),
            send_queue_bytes: register!(
                "send_queue",
                Bytes,
                "Bytes of the sends waiting",
                Gauge::default()
            ),
            lane_holders_ended: register!(
                "lane_holders_ended",
                "Stopped lane holders terminated",
                Counter::default()
            ),
            outbox_rows: register!(
                "outbox_rows",
                "Rows of the outbox moved into the feed",
                Counter::default()
            ),
            outbox_age_seconds: register!(
                "outbox_age",
                Seconds,
                "Age of the oldest row that waited in the outbox",
                Gauge::default()
            ),
            outcomes_settled: register!(
                "outcomes_settled",
                "Broken appends looked up",
                counters(SETTLED, outcome)
            ),
            changes: register!(
                "changes",
                "Changes of inbox state and withdrawals by outcome",
                counters(CHANGES, outcome)
            ),
            change_seconds: register!(
                "change",
                Seconds,
                "From the call to the answer of its commit",
                seconds()
            ),
            replay_seconds: register!(
                "replay",
                Seconds,
                "From wanting a replay page to having it",
                seconds()
            ),
            replay_queue: register!(
                "replay_queue_length",
                "Clients waiting for a replay page",
                Gauge::default()
            ),
            replay_bytes: register!(
                "replay_pages",
                Bytes,
                "Bytes of replay pages not taken yet",
                Gauge::default()
            ),
            delivery_seconds: register!(
                "delivery",
                Seconds,
                "From the hub to the stream, live",
                seconds()
            ),
            deliveries: register!(
                "deliveries",
                "Events handed to streams",
                counters(PHASES, |phase| Phase { phase })
            ),
            returns_to_replay: register!(
                "returns_to_replay",
                "Subscriptions that fell off the ring",
                Counter::default()
            ),
            gaps: register!(
                "gaps",
                "Gaps told to clients",
                counters(GAPS, |reason| Reason { reason })
            ),
            ring_bytes: register!(
                "ring",
                Bytes,
                "Bytes of the events in the ring",
                Gauge::default()
            ),
            feed_lag_seconds: register!(
                "feed_lag",
                Seconds,
                "From the commit to the hub",
                seconds()
            ),
            feed_reads: register!("feed_reads", "Reads of the feed", Counter::default()),
            listener_reconnects: register!(
                "listener_reconnects",
                "Connections made for LISTEN",
                Counter::default()
            ),
            streams_refused: register!(
                "streams_refused",
                "Streams refused for overload or drain",
                Counter::default()
            ),
            partitions_removed: register!(
                "partitions_removed",
                "Partitions removed by this instance",
                Counter::default()
            ),
            partitions_overdue: register!(
                "partitions_overdue",
                "Partitions older than the retention that are still there",
                Gauge::<i64>::default()
            ),
            app_rows_deleted: register!(
                "app_retention_rows_deleted",
                "Rows deleted because their app keeps them for a shorter time",
                Counter::default()
            ),
            oldest_notification: register!(
                "oldest_notification_timestamp",
                Seconds,
                "Time of the oldest notification kept",
                Gauge::<i64>::default()
            ),
            database_up: register!(
                "database_up",
                "1 while the database answers",
                Gauge::<i64>::default()
            ),
            registry: r,
        }
    }

    /// The OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing into a String does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// A gauge that counts a thing for as long as this lives.
#[derive(Debug)]
pub struct Held {
    gauge: Gauge<i64>,
    amount: i64,
}

impl Held {
    /// Adds `amount` to `gauge` until dropped.
    pub fn new(gauge: &Gauge<i64>, amount: usize) -> Held {
        let amount = amount as i64;
        gauge.inc_by(amount);
        Held { gauge: gauge.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}
