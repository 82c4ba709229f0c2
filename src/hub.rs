//! Who is connected to this instance, and the newest events for them. The hub knows no SQL and no
//! HTTP: the feed puts rows in, in id order; subscriptions take events out behind their own cursor.
//!
//! One ring holds the events of all audiences that somebody here listens to, bounded in bytes
//! (invariant 5). Each audience has an index into it. Whoever falls off the ring goes back to replay.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::address::{App, Audience};
use crate::event_id::EventId;
use crate::frame;
use crate::metrics::{Held, Metrics, Phase};
use crate::notification::Notification;

/// What an event costs in the ring beside its bytes.
const EVENT_OVERHEAD: usize = 200;
/// What one wake of one subscription takes out at once.
const TAKE_BYTES: usize = 64 << 10;
/// And of one audience, so that a long ring is not walked again for every few events of it.
const TAKE_EVENTS: usize = 256;

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
    /// All events kept, oldest first, with the audience they are indexed under.
    ring: VecDeque<(AudienceKey, Arc<Event>)>,
    bytes: usize,
    audiences: HashMap<AudienceKey, AudienceEntry>,
    by_name: HashMap<App, HashMap<Arc<str>, AudienceKey>>,
    next_key: AudienceKey,
}

/// Never used twice, so what is left in the ring of an audience that everyone left is nobody's.
type AudienceKey = u64;

#[derive(Debug)]
struct AudienceEntry {
    app: App,
    name: Arc<str>,
    /// Events up to here may be missing below.
    floor: EventId,
    events: VecDeque<Arc<Event>>,
    members: Vec<Arc<Notify>>,
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
    /// Events behind the cursor have fallen off the ring: back to replay.
    Behind,
}

impl Hub {
    /// A hub that stands at zero and keeps up to `ring_bytes` of events.
    pub fn new(ring_bytes: usize, metrics: Arc<Metrics>) -> Hub {
        let state = State {
            position: EventId::ZERO,
            ring: VecDeque::new(),
            bytes: 0,
            audiences: HashMap::new(),
            by_name: HashMap::new(),
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
            let Some(&key) =
                state.by_name.get(row.app.as_str()).and_then(|app| app.get(row.audience.as_str()))
            else {
                continue;
            };
            let mut frame = String::new();
            frame::notification(&mut frame, row.id, row.event.as_deref(), &row.data);
            state.push(key, Arc::new(Event { id: row.id, frame: frame.into(), dispatched: now }));
        }
        state.shrink(self.ring_bytes);
        self.metrics.ring_bytes.set(state.bytes as i64);
    }

    /// Goes on from `position` although rows before it may be missing; every subscription that is
    /// not yet there goes back to replay, where it learns what it lost.
    pub fn skip_to(&self, position: EventId) {
        let mut state = self.state();
        state.position = position;
        state.ring.clear();
        state.bytes = 0;
        for audience in state.audiences.values_mut() {
            audience.floor = position;
            audience.events.clear();
            audience.members.iter().for_each(|member| member.notify_one());
        }
    }

    /// Registers a subscription, before its first page is read: its audiences are kept in the ring
    /// from here on, so a page that comes back short meets the ring without a hole.
    pub fn join(self: &Arc<Hub>, app: &App, audiences: &[Audience]) -> Membership {
        let wake = Arc::new(Notify::new());
        let mut state = self.state();
        let keys = audiences.iter().map(|a| state.join(app, a.to_sql(), wake.clone())).collect();
        let counted = Held::new(&self.metrics.subscriptions, 1);
        Membership { hub: self.clone(), keys, wake, _counted: counted }
    }
}

impl State {
    fn push(&mut self, key: AudienceKey, event: Arc<Event>) {
        let Some(audience) = self.audiences.get_mut(&key) else { return };
        self.bytes += event.cost();
        audience.events.push_back(event.clone());
        audience.members.iter().for_each(|member| member.notify_one());
        self.ring.push_back((key, event));
    }

    /// Drops the oldest events beyond the bound.
    fn shrink(&mut self, ring_bytes: usize) {
        while self.bytes > ring_bytes {
            let Some((key, event)) = self.ring.pop_front() else { break };
            self.bytes -= event.cost();
            if let Some(audience) = self.audiences.get_mut(&key) {
                audience.events.pop_front();
                audience.floor = event.id;
            }
        }
    }

    fn join(&mut self, app: &App, name: String, wake: Arc<Notify>) -> AudienceKey {
        let names = self.by_name.entry(app.clone()).or_default();
        if let Some(key) = names.get(name.as_str()) {
            let audience = self.audiences.get_mut(key).expect("a name leaves with its audience");
            audience.members.push(wake);
            return *key;
        }
        self.next_key += 1;
        let name: Arc<str> = name.into();
        names.insert(name.clone(), self.next_key);
        let audience = AudienceEntry {
            app: app.clone(),
            name,
            floor: self.position,
            events: VecDeque::new(),
            members: vec![wake],
        };
        self.audiences.insert(self.next_key, audience);
        self.next_key
    }

    fn leave(&mut self, key: AudienceKey, wake: &Arc<Notify>) {
        let Some(audience) = self.audiences.get_mut(&key) else { return };
        if let Some(at) = audience.members.iter().position(|member| Arc::ptr_eq(member, wake)) {
            audience.members.swap_remove(at);
        }
        if !audience.members.is_empty() {
            return;
        }
        let Some(AudienceEntry { app, name, .. }) = self.audiences.remove(&key) else { return };
        if let Some(names) = self.by_name.get_mut(&app) {
            names.remove(&name);
            if names.is_empty() {
                self.by_name.remove(&app);
            }
        }
    }
}

/// A subscription's place in the hub; dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    keys: Box<[AudienceKey]>,
    wake: Arc<Notify>,
    _counted: Held,
}

impl Membership {
    /// Waits until something was dispatched for this subscription since the last [`Self::take`].
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the events behind `cursor`. The position and the rings are read under one lock: an
    /// event cannot be published on one audience between the looks at two others.
    pub fn take(&self, cursor: EventId) -> Taken {
        let state = self.hub.state();
        let mut events: Vec<&Arc<Event>> = Vec::new();
        let mut complete_to = cursor.max(state.position);
        for key in &self.keys {
            let Some(audience) = state.audiences.get(key) else { continue };
            if audience.floor > cursor {
                return Taken::Behind;
            }
            let from = audience.events.partition_point(|event| event.id <= cursor);
            let to = audience.events.len().min(from + TAKE_EVENTS);
            events.extend(audience.events.range(from..to));
            if to < audience.events.len() {
                complete_to = complete_to.min(audience.events[to - 1].id);
            }
        }
        if self.keys.len() > 1 {
            events.sort_unstable_by_key(|event| event.id);
        }
        events.truncate(events.partition_point(|event| event.id <= complete_to));

        let mut bytes = 0;
        let fits = events.iter().take_while(|event| {
            bytes += event.frame.len();
            bytes <= TAKE_BYTES
        });
        let count = fits.count().max(1).min(events.len());
        if count < events.len() {
            complete_to = events[count - 1].id;
        }
        let events: Vec<Arc<Event>> =
            events[..count].iter().map(|event| Arc::clone(event)).collect();
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
        for key in &self.keys {
            state.leave(*key, &self.wake);
        }
    }
}

#[cfg(test)]
mod tests;
