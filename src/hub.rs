//! Who is connected to this instance, and the newest events for them. The hub knows no SQL and no
//! HTTP: the feed puts rows in, in id order; subscriptions take events out behind their own cursor.
//!
//! One ring holds the events of all audiences that somebody here listens to, bounded in bytes
//! (invariant 5). Each audience has an index into it. Whoever falls off the ring goes back to replay.

mod members;
#[cfg(feature = "mutants")]
mod mutant;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::members::Members;
use crate::address::{App, Audience};
use crate::coverage::{Coverage, Format};
use crate::event_id::EventId;
use crate::frame;
use crate::metrics::{Held, Metrics, Phase};
use crate::notification::Notification;

/// What an event costs in the ring beside its bytes.
const EVENT_OVERHEAD: usize = 200;
/// What one wake of one subscription takes out at once.
const TAKE_BYTES: usize = 64 << 10;

/// The hub of one instance.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    ring_bytes: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// Everything up to here has been dispatched.
    position: EventId,
    /// What the position belongs to.
    epoch: i32,
    /// All events kept, oldest first, with the audience they are indexed under.
    ring: VecDeque<(AudienceKey, Arc<Event>)>,
    bytes: usize,
    audiences: HashMap<AudienceKey, AudienceEntry>,
    /// Those joined for each of the two formats.
    data: ByName,
    envelope: ByName,
    next_key: AudienceKey,
}

/// An audience in one format, by the names that rows carry.
type ByName = HashMap<App, HashMap<Box<str>, AudienceKey>>;

/// Never used twice, so what is left in the ring of an audience that everyone left is nobody's.
type AudienceKey = u64;

#[derive(Debug)]
struct AudienceEntry {
    app: App,
    audience: Audience,
    format: Format,
    /// Events up to here may be missing below.
    floor: EventId,
    events: VecDeque<Arc<Event>>,
    members: Members,
}

#[derive(Debug)]
struct Event {
    id: EventId,
    frame: Bytes,
    dispatched: Instant,
}

impl Event {
    fn cost(&self) -> usize {
        self.frame.len() + EVENT_OVERHEAD
    }
}

/// What a subscription finds behind its cursor.
#[derive(Debug)]
pub enum Taken {
    /// The next frames, in id order. Nothing up to `complete_to` is missing; maybe there are none.
    Frames {
        /// Whole frames, joined.
        bytes: Bytes,
        /// The subscription's cursor once they are sent.
        complete_to: EventId,
    },
    /// Events behind the cursor have fallen off the ring, or an epoch was opened: back to replay.
    Behind,
    /// The cursor is of an epoch that the hub has not come to. What it has may be lost, so wait for it.
    NotYet,
}

impl Hub {
    /// A hub that stands at zero and keeps up to `ring_bytes` of events.
    pub fn new(ring_bytes: usize, metrics: Arc<Metrics>) -> Hub {
        let state = State {
            position: EventId::ZERO,
            epoch: 0,
            ring: VecDeque::new(),
            bytes: 0,
            audiences: HashMap::new(),
            data: ByName::new(),
            envelope: ByName::new(),
            next_key: 0,
        };
        Hub { state: Mutex::new(state), ring_bytes, metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Up to where everything has been dispatched.
    pub fn position(&self) -> EventId {
        self.state().position
    }

    /// What the position belongs to.
    pub fn epoch(&self) -> i32 {
        self.state().epoch
    }

    /// Hands on rows that follow the position, in id order and without a hole. What is not above the
    /// position is left out: both sources may bring a row.
    pub fn dispatch(&self, rows: &[Notification]) {
        let now = Instant::now();
        let mut state = self.state();
        for row in rows {
            if row.id <= state.position {
                continue;
            }
            state.position = row.id;
            for key in state.joined(row).into_iter().flatten() {
                state.push(key, row, now);
            }
        }
        state.shrink(self.ring_bytes);
        self.metrics.ring_bytes.set(state.bytes as i64);
    }

    /// Goes on from `position` although rows before it may be missing; every subscription that is
    /// not yet there goes back to replay, where it learns what it lost.
    pub fn skip_to(&self, position: EventId) {
        self.state().jump(position);
    }

    /// Goes on from `position` in `epoch`. It can be lower: a restore or failover has lost what came after
    /// it. Every subscription of an earlier epoch goes back to replay, also one whose cursor is above.
    pub fn start_at(&self, position: EventId, epoch: i32) {
        let mut state = self.state();
        state.epoch = epoch;
        state.jump(position);
    }

    /// Registers a subscription, before its first page is read: its audiences are kept in the ring
    /// from here on, so a page that comes back short meets the ring without a hole.
    pub fn join(self: &Arc<Hub>, coverage: &Coverage) -> Membership {
        let wake = Arc::new(Notify::new());
        let mut state = self.state();
        let join = |audience| state.join(coverage, audience, wake.clone());
        let places = coverage.audiences.iter().map(join).collect();
        let _counted = Held::new(&self.metrics.subscriptions, 1);
        Membership { hub: self.clone(), places, wake, _counted }
    }
}

impl State {
    fn jump(&mut self, position: EventId) {
        self.position = position;
        self.ring.clear();
        self.bytes = 0;
        for audience in self.audiences.values_mut() {
            audience.floor = position;
            audience.events.clear();
            audience.members.wake();
        }
    }

    fn names(&mut self, format: Format) -> &mut ByName {
        match format {
            Format::Data => &mut self.data,
            Format::Envelope => &mut self.envelope,
        }
    }

    /// The audience of a row, in each format that somebody here has joined it with.
    fn joined(&self, row: &Notification) -> [Option<AudienceKey>; 2] {
        let find = |names: &ByName| {
            let of_app = match mutant!(CrossAppLeak) {
                true => names.values().next(),
                false => names.get(row.app.as_str()),
            };
            of_app?.get(row.audience.as_str()).copied()
        };
        [find(&self.data), find(&self.envelope)]
    }

    fn push(&mut self, key: AudienceKey, row: &Notification, now: Instant) {
        let Some(audience) = self.audiences.get_mut(&key) else { return };
        let mut frame = String::new();
        let Notification { id, ref event, ref data, created_at, .. } = *row;
        let event = event.as_deref();
        let framed = frame::Row { id, event, audience: &audience.audience, created_at, data };
        frame::row(&mut frame, audience.format, &framed);
        let event = Arc::new(Event { id, frame: frame.into(), dispatched: now });
        self.bytes += event.cost();
        audience.events.push_back(event.clone());
        audience.members.wake();
        self.ring.push_back((key, event));
    }

    /// Drops the oldest events beyond the bound.
    fn shrink(&mut self, ring_bytes: usize) {
        while self.bytes > ring_bytes {
            let Some((key, event)) = self.ring.pop_front() else { break };
            self.bytes -= event.cost();
            if let Some(audience) = self.audiences.get_mut(&key) {
                audience.events.pop_front();
                if !(mutant!(RingOffByOne) && audience.events.is_empty()) {
                    audience.floor = event.id;
                }
            }
        }
    }

    fn join(
        &mut self,
        coverage: &Coverage,
        audience: &Audience,
        wake: Arc<Notify>,
    ) -> (AudienceKey, u32) {
        let (next_key, floor) = (self.next_key + 1, self.position);
        let names = self.names(coverage.format).entry(coverage.app.clone()).or_default();
        let key = *names.entry(audience.to_sql().into()).or_insert(next_key);
        self.next_key = self.next_key.max(key);
        let entry = self.audiences.entry(key).or_insert_with(|| AudienceEntry {
            app: coverage.app.clone(),
            audience: audience.clone(),
            format: coverage.format,
            floor,
            events: VecDeque::new(),
            members: Members::default(),
        });
        (key, entry.members.add(wake))
    }

    fn leave(&mut self, key: AudienceKey, place: u32) {
        let Some(entry) = self.audiences.get_mut(&key) else { return };
        entry.members.remove(place);
        if !entry.members.is_empty() {
            return;
        }
        let Some(AudienceEntry { app, audience, format, .. }) = self.audiences.remove(&key) else {
            return;
        };
        let by_name = self.names(format);
        if let Some(names) = by_name.get_mut(&app) {
            names.remove(audience.to_sql().as_str());
            if names.is_empty() {
                by_name.remove(&app);
            }
        }
    }
}

type Queue<'a> = std::iter::Peekable<std::collections::vec_deque::Iter<'a, Arc<Event>>>;

/// A subscription's place in the hub; dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    /// Of each audience, and which member of it this is.
    places: Box<[(AudienceKey, u32)]>,
    wake: Arc<Notify>,
    _counted: Held,
}

impl Membership {
    /// Waits until something was dispatched for this subscription since the last [`Self::take`].
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the events behind `cursor`, which is of `epoch`. The position and the rings are read under
    /// one lock: an event cannot be published on one audience between the looks at two others.
    pub fn take(&self, cursor: EventId, epoch: i32) -> Taken {
        let state = self.hub.state();
        match epoch.cmp(&state.epoch) {
            Ordering::Less => return Taken::Behind,
            Ordering::Equal => {}
            Ordering::Greater => return Taken::NotYet,
        }
        let mut complete_to = cursor.max(state.position);
        let mut queues = Vec::new();
        for (key, _) in &self.places {
            let Some(audience) = state.audiences.get(key) else { continue };
            if audience.floor > cursor && !mutant!(SkipOnOverflow) {
                return Taken::Behind;
            }
            let from = audience.events.partition_point(|event| event.id <= cursor);
            if from < audience.events.len() {
                queues.push(audience.events.range(from..).peekable());
            }
        }
        // Merged only as far as it is taken: of a hundred long queues, most is left for later.
        let next = |queue: &mut Queue<'_>| queue.peek().map(|event| event.id);
        let mut order: BinaryHeap<_> = (0..)
            .zip(&mut queues)
            .filter_map(|(place, queue)| Some(Reverse((next(queue)?, place))))
            .collect();
        let (mut events, mut bytes) = (Vec::<Arc<Event>>::new(), 0);
        while let Some(Reverse((_, place))) = order.pop() {
            let Some(event) = queues[place].next() else { continue };
            bytes += event.frame.len();
            if let Some(last) = events.last().filter(|_| bytes > TAKE_BYTES) {
                complete_to = last.id;
                break;
            }
            events.push(event.clone());
            order.extend(next(&mut queues[place]).map(|id| Reverse((id, place))));
        }
        drop(state);
        self.observe(&events);
        Taken::Frames { bytes: join(&events), complete_to }
    }

    fn observe(&self, events: &[Arc<Event>]) {
        let Some(oldest) = events.first() else { return };
        let metrics = &self.hub.metrics;
        metrics.delivery_seconds.observe(oldest.dispatched.elapsed().as_secs_f64());
        metrics.deliveries.get_or_create(&Phase { phase: "live" }).inc_by(events.len() as u64);
    }
}

/// One event's bytes are shared; several are copied together, for one write instead of many.
fn join(events: &[Arc<Event>]) -> Bytes {
    match events {
        [] => Bytes::new(),
        [event] => event.frame.clone(),
        events => {
            let mut joined = Vec::with_capacity(events.iter().map(|event| event.frame.len()).sum());
            events.iter().for_each(|event| joined.extend_from_slice(&event.frame));
            joined.into()
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        for (key, place) in &self.places {
            state.leave(*key, *place);
        }
    }
}

#[cfg(test)]
mod tests;
