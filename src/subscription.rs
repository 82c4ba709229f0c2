//! One client's stream. It replays pages first and goes live only when one comes back short and the
//! hub's ring still has everything after it; falling off the ring takes it back to replay. Nothing
//! ever moves it past an event that it was not sent (invariant 3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::database::Database;
use crate::event_id::EventId;
use crate::frame::{self, GapReason, Goodbye};
use crate::hub::{Hub, Membership, Taken};
use crate::metrics::{Metrics, Phase as PhaseLabel, Reason};
use crate::replayer::{Page, PageHold, Replayer};
use crate::shutdown::Drain;

/// What the client's cursor says about where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this id.
    After(EventId),
    /// From the oldest row kept; that older ones are gone is no surprise, so no gap is told.
    Earliest,
    /// With this time (Unix ms) and everything later.
    Since(u64),
    /// Only what comes.
    Head,
    /// A `Last-Event-ID` that is no id: told as a gap, since the page cannot change that header.
    BadCursor,
}

/// What every subscription of an instance works with.
#[derive(Debug)]
pub struct Streams {
    /// The live side.
    pub hub: Arc<Hub>,
    /// The past.
    pub replayer: Replayer,
    /// To say in pings whether it is up.
    pub database: Arc<Database>,
    /// To say in pings what time it is.
    pub clock: Clock,
    /// How often to ping.
    pub heartbeat: Duration,
    /// When to end.
    pub drain: Drain,
    /// What to count.
    pub metrics: Arc<Metrics>,
}

/// The server's side of one stream.
#[derive(Debug)]
pub struct Subscription {
    streams: Arc<Streams>,
    coverage: Arc<Coverage>,
    membership: Membership,
    phase: Phase,
    /// Nothing up to here is missing from what the client was sent; `None` until the start is known.
    position: Option<EventId>,
    /// The newest there was when the last page was read.
    epoch: i32,
    /// On their way to the client; the stream is complete to `then` once they are gone.
    outbox: VecDeque<Bytes>,
    then: Option<(EventId, Option<PageHold>)>,
    page: Option<oneshot::Receiver<Page>>,
    /// How deep the next page looks into each audience; `None` before the first.
    depth: Option<usize>,
    /// Notifications sent before the stream first went live; `None` from then on.
    replayed: Option<u64>,
    next_ping: Instant,
    end_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The start is not known before the database has said where its head is.
    Opening(Start),
    /// Reading pages. `Earliest` lasts until the first one.
    Replaying { earliest: bool },
    /// A page came back short: if the ring goes on from there, the stream is live.
    HandingOver,
    /// Fed by the hub.
    Live,
    /// Said goodbye.
    Ended,
}

/// What a wait ended with.
enum Woken {
    Page(Page),
    Hub,
    /// A ping is due, or the drain has begun, or is over for this stream.
    Clock,
    End,
}

impl Subscription {
    /// Opens a stream.
    pub fn open(streams: Arc<Streams>, coverage: Coverage, start: Start) -> Subscription {
        // Before any page is read, so that the ring has what is appended after the page's snapshot.
        let membership = streams.hub.join(&coverage);
        let mut subscription = Subscription {
            next_ping: Instant::now() + streams.heartbeat,
            streams,
            coverage: Arc::new(coverage),
            membership,
            phase: Phase::Opening(start),
            position: None,
            epoch: 0,
            outbox: VecDeque::new(),
            then: None,
            page: None,
            depth: None,
            replayed: Some(0),
            end_at: None,
        };
        match start {
            Start::After(cursor) => subscription.begin(cursor, false),
            Start::Earliest => subscription.begin(EventId::ZERO, true),
            Start::Since(_) | Start::Head | Start::BadCursor => {}
        }
        subscription
    }

    /// The next bytes for the client, whole frames; `None` ends the stream. Asking again means that
    /// the bytes before were taken.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.outbox.pop_front() {
                return Some(bytes);
            }
            if let Some((position, _hold)) = self.then.take() {
                self.position = Some(position);
            }
            if self.phase == Phase::Ended {
                return None;
            }
            // Under constant load there is never a wait in which these would be noticed.
            let now = Instant::now();
            if self.end_at.is_none() && self.streams.drain.has_begun() {
                self.end_at = Some(self.streams.drain.moment_to_end());
            }
            if self.end_at.is_some_and(|end| end <= now) {
                self.say_goodbye();
            } else if self.next_ping <= now {
                self.ping(now);
            } else {
                self.advance().await;
            }
        }
    }

    async fn advance(&mut self) {
        let live = match self.phase {
            Phase::Opening(_) | Phase::Replaying { .. } => false,
            Phase::HandingOver | Phase::Live => {
                if !self.take_from_hub() {
                    return;
                }
                true
            }
            Phase::Ended => return,
        };
        match self.wait(live).await {
            Woken::Page(page) => self.receive(page),
            Woken::Hub | Woken::Clock | Woken::End => {}
        }
    }

    /// Takes what the hub has. True: nothing, so wait.
    fn take_from_hub(&mut self) -> bool {
        let cursor = self.position.expect("a stream that is past its opening has a position");
        match self.membership.take(cursor, self.epoch) {
            Taken::Behind => {
                if self.phase == Phase::Live {
                    self.streams.metrics.returns_to_replay.inc();
                }
                self.phase = Phase::Replaying { earliest: false };
                false
            }
            Taken::NotYet => true,
            Taken::Frames { bytes, complete_to } => {
                if self.phase == Phase::HandingOver {
                    self.phase = Phase::Live;
                    if let Some(replayed) = self.replayed.take() {
                        self.outbox.push_back(frame::live(replayed));
                    }
                }
                if !bytes.is_empty() {
                    self.outbox.push_back(bytes);
                }
                self.then = Some((complete_to, None));
                if self.outbox.is_empty() {
                    self.position = self.then.take().map(|(position, _)| position);
                    return true;
                }
                false
            }
        }
    }

    async fn wait(&mut self, live: bool) -> Woken {
        let Subscription {
            streams,
            coverage,
            membership,
            position,
            page,
            depth,
            next_ping,
            end_at,
            ..
        } = self;
        let deadline = end_at.map_or(*next_ping, |end| end.min(*next_ping));
        let news = async {
            if live {
                membership.woken().await;
                return Woken::Hub;
            }
            let page =
                page.get_or_insert_with(|| streams.replayer.ask(coverage, *position, *depth));
            // The replayer ends only with the program.
            page.await.map_or(Woken::End, Woken::Page)
        };
        let woken = tokio::select! {
            woken = news => woken,
            () = tokio::time::sleep_until(deadline) => Woken::Clock,
            () = streams.drain.begun(), if end_at.is_none() => Woken::Clock,
        };
        match woken {
            Woken::Page(_) => self.page = None,
            Woken::End => self.phase = Phase::Ended,
            _ => {}
        }
        woken
    }

    fn receive(&mut self, page: Page) {
        self.depth = Some(page.next_depth);
        self.epoch = page.facts.epoch;
        match self.phase {
            Phase::Opening(start) => self.receive_start(start, &page),
            Phase::Replaying { earliest } => self.receive_page(page, earliest),
            // Asked for in one of the two phases above, and no other is entered before the answer.
            Phase::HandingOver | Phase::Live | Phase::Ended => {}
        }
    }

    fn receive_start(&mut self, start: Start, page: &Page) {
        let head = page.facts.head;
        match start {
            Start::After(cursor) => self.begin(cursor, false),
            Start::Earliest => self.begin(EventId::ZERO, true),
            Start::Head => {
                self.begin(head, false);
                // Nothing in the snapshot is above its own head.
                self.phase = Phase::HandingOver;
            }
            Start::BadCursor => {
                self.begin(head, false);
                self.gap(None, head, GapReason::BadCursor);
            }
            Start::Since(ms) => {
                // Never above what was issued: as a cursor that would be ahead of everything.
                let cursor = EventId::just_before_ms(ms);
                let ahead = cursor.position() > page.facts.last_position;
                self.begin(if ahead { head } else { cursor }, false);
            }
        }
    }

    fn begin(&mut self, cursor: EventId, earliest: bool) {
        self.outbox.push_back(frame::ready(cursor, self.streams.heartbeat));
        self.position = Some(cursor);
        self.phase = Phase::Replaying { earliest };
    }

    fn receive_page(&mut self, page: Page, earliest: bool) {
        let position = self.position.expect("pages are asked for behind a position");
        self.phase = Phase::Replaying { earliest: false };
        // First, since it is more exact: nothing that is here is passed over.
        if let Some(end) = page.facts.cut_off_at {
            return self.gap(Some(position), position.moved_to(end), GapReason::Restored);
        }
        // Against the sequence on the primary: the hub may lag behind a cursor that is good. An edge can
        // be above all that was issued, where nothing was sent for long; it was told as a cursor.
        if position.position() > page.facts.last_position && position > page.facts.edge {
            return self.gap(Some(position), page.facts.head, GapReason::Ahead);
        }
        // Every page looks: the edge can move in the middle of a replay.
        if page.facts.edge > position {
            if earliest {
                self.then = Some((page.facts.edge, None));
                return;
            }
            return self.gap(Some(position), page.facts.edge, GapReason::Expired);
        }
        if let Some(replayed) = &mut self.replayed {
            *replayed += page.notifications;
        }
        let label = PhaseLabel { phase: "replay" };
        self.streams.metrics.deliveries.get_or_create(&label).inc_by(page.events);
        self.outbox.extend(page.chunks);
        let unfiltered = mutant!(HandoverWithoutIdFilter) && page.caught_up;
        let complete_to = if unfiltered { position } else { page.complete_to };
        self.then = Some((complete_to, Some(page.hold)));
        if page.caught_up {
            self.phase = Phase::HandingOver;
        }
    }

    fn gap(&mut self, after: Option<EventId>, resumes_after: EventId, reason: GapReason) {
        self.streams.metrics.gaps.get_or_create(&Reason { reason: reason.as_str() }).inc();
        if !mutant!(GapNotSent) {
            self.outbox.push_back(frame::gap(after, resumes_after, reason));
        }
        self.then = Some((resumes_after, None));
    }

    fn ping(&mut self, now: Instant) {
        self.next_ping = now + self.streams.heartbeat;
        let time = self.streams.clock.now_rfc3339();
        let of_hub = mutant!(PingWithHubPosition);
        let position =
            self.position.map(|own| if of_hub { self.streams.hub.position() } else { own });
        self.outbox.push_back(frame::ping(position, &time, self.streams.database.is_up()));
    }

    fn say_goodbye(&mut self) {
        self.outbox.push_back(frame::goodbye(Goodbye::Shutdown, frame::short_retry()));
        self.phase = Phase::Ended;
    }
}

#[cfg(test)]
mod handover;
