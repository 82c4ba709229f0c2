//! Which worlds are equal.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

impl World<'_> {
    /// Equal for two worlds only if the same can happen in both from here on, but for the chance that two
    /// of a million numbers of 64 bits meet.
    pub(in super::super) fn fingerprint(&self) -> u64 {
        let mut into = DefaultHasher::new();
        (self.left, &self.table, self.appended).hash(&mut into);
        (self.follower.position(), self.follower.epoch()).hash(&mut into);
        self.hub.fingerprint(&mut into);
        match &self.reading {
            None => 0.hash(&mut into),
            Some(Read::Head(head)) => (1, head.id, head.epoch).hash(&mut into),
            Some(Read::Page(page)) => {
                let epoch = page.new_epoch.map(|epoch| (epoch.number, epoch.cut_off_at));
                (2, page.edge, page.more, epoch, page.rows.len()).hash(&mut into);
                page.rows.iter().for_each(|row| row.id.hash(&mut into));
            }
        }
        for group in self.group.iter().chain(&self.groups) {
            (group.prev, group.epoch, group.rows[0].id).hash(&mut into);
        }
        (self.groups.len(), self.heard, self.listener, &self.notices).hash(&mut into);
        self.failed.hash(&mut into);
        if let Some((asked, rows)) = &self.page {
            (asked.request().after, asked.request().depth).hash(&mut into);
            for row in rows {
                (row.head, row.edge, row.last_position, row.epoch, row.cut_off_at).hash(&mut into);
                (row.id, row.number, row.looked_at, row.data.is_some()).hash(&mut into);
            }
        }
        if let Some(subscription) = &self.subscription {
            let Subscription {
                phase, position, epoch, outbox, then, page, depth, replayed, ..
            } = subscription;
            let ping_is_due = subscription.next_ping <= tokio::time::Instant::now();
            (format!("{phase:?}"), position, epoch, then.as_ref().map(|(to, _)| to))
                .hash(&mut into);
            (page.is_some(), depth, replayed, ping_is_due, outbox.len()).hash(&mut into);
            // Read, because the first frame says when to come back, which is chance.
            outbox.iter().for_each(|bytes| Frame::read_all(bytes).hash(&mut into));
        }
        (self.pollable, &self.in_transit, &self.client).hash(&mut into);
        into.finish()
    }
}
