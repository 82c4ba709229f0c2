//! Decides what the hub gets next. The position and the epoch are moved here alone, for both sources:
//! the pages of the feed, and the groups of this instance's own writer. It waits for nothing and reads
//! nothing, so that the tests of the handover can let everything happen in every order.

use std::sync::Arc;

use tracing::warn;

use crate::clock::Clock;
use crate::event_id::EventId;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::notification::Notification;
use crate::store::{FeedPage, Head};
use crate::writer::OwnGroup;

/// Follows the feed on behalf of the hub.
#[derive(Debug)]
pub(crate) struct Follower {
    hub: Arc<Hub>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What to do after something came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read the feed after the position.
    Read,
    /// Wait: as far as is known, the hub has everything.
    Wait,
}

impl Follower {
    pub(crate) fn new(hub: Arc<Hub>, clock: Clock, metrics: Arc<Metrics>) -> Follower {
        Follower { hub, clock, metrics }
    }

    /// Up to where the hub has everything.
    pub(crate) fn position(&self) -> EventId {
        self.hub.position()
    }

    /// What that belongs to.
    pub(crate) fn epoch(&self) -> i32 {
        self.hub.epoch()
    }

    /// Nothing before the head is dispatched.
    pub(crate) fn start_at(&mut self, head: Head) {
        self.hub.start_at(head.id, head.epoch);
    }

    /// A group of our own, from memory: only if nothing can be between it and the position.
    pub(crate) fn take_group(&mut self, group: &OwnGroup) -> Next {
        let position = self.position();
        if group.epoch != self.epoch() {
            return Next::Read;
        }
        if group.prev == position.position() || mutant!(StalePrev) {
            self.dispatch(&group.rows);
            return Next::Wait;
        }
        let has_all = group.rows.last().is_none_or(|last| last.id <= position);
        if has_all { Next::Wait } else { Next::Read }
    }

    /// The highest position that was heard of.
    pub(crate) fn hear(&self, announced: i64) -> Next {
        // Usually our own group, dispatched from memory before its wake-up came.
        if announced <= self.position().position() {
            return Next::Wait;
        }
        #[cfg(feature = "mutants")]
        self.hub.believe(announced);
        Next::Read
    }

    /// A page that was read after the position.
    pub(crate) fn take_page(&mut self, page: &FeedPage) -> Next {
        let position = self.position();
        if let Some(epoch) = page.new_epoch {
            warn!(
                epoch = epoch.number,
                "the database was restored or failed over; streams start anew from what it kept"
            );
            // The smallest id there: the row that was kept there is read again, and the hub stands where
            // pages end. Above it they would never meet the ring.
            self.hub.start_at(EventId::at(epoch.cut_off_at, 0, 0), epoch.number);
            return Next::Read;
        }
        if page.edge > position {
            // We were away for longer than the retention, of all or of one app. The streams learn
            // from their pages what they lost; those of other apps find that it is nothing.
            self.hub.skip_to(page.edge);
            return Next::Read;
        }
        self.dispatch(&page.rows);
        if page.more { Next::Read } else { Next::Wait }
    }

    fn dispatch(&self, rows: &[Notification]) {
        if let Some(oldest) = rows.first() {
            let lag = self.clock.now() - oldest.created_at;
            self.metrics.feed_lag_seconds.observe(lag.as_seconds_f64().max(0.0));
        }
        self.hub.dispatch(rows);
    }
}
