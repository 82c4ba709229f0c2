//! What may happen, and how often.

use super::row::To;
use crate::event_id::EventId;
use crate::subscription::Start;

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// The next row is committed: by our own writer, or by another instance.
    Append,
    /// Our writer's group comes to the feed.
    Group,
    /// It does not: the channel is full.
    DropGroup,
    /// A wake-up is received.
    Hear,
    /// The listener's connection breaks, which it notices.
    Lose,
    /// It hears nothing any more, and does not notice.
    Deafen,
    /// A lost listener listens again.
    Listen,
    /// The feed's timer.
    Timer,
    /// The feed gets the answer to its read.
    Feed,
    /// Or none.
    FeedFails,
    /// The client's page comes. Its snapshot is of when it was asked for: later is as if the client had
    /// been polled later.
    Page,
    /// It does not, and is read again.
    PageFails,
    /// The client takes what there is.
    Take,
    /// A ping is due.
    Ping,
    /// The client's connection ends, behind the last frame handed on.
    Cut,
    /// Or behind the first frame of the last chunk.
    CutInside,
    /// The client comes back with its cursor.
    Connect,
    /// Retention removes the oldest row.
    Edge,
    /// Or all that there are.
    EdgeOfAll,
    /// Retention of another app removes its rows.
    OtherEdge,
    /// The newest row is deliverable no more.
    Withdraw,
    /// An append fails: its position is issued and never used.
    Burn,
    /// A backup without the two newest rows takes the place of the database.
    Restore,
    /// A connection that reads and appends nothing meets it, and opens an epoch.
    Notice,
}

impl Act {
    pub(super) const COUNT: usize = Act::ALL.len();

    pub(super) const ALL: [Act; 24] = {
        use Act::*;
        [
            Append, Group, DropGroup, Hear, Lose, Deafen, Listen, Timer, Feed, FeedFails, Page,
            PageFails, Take, Ping, Cut, CutInside, Connect, Edge, EdgeOfAll, OtherEdge, Withdraw,
            Burn, Restore, Notice,
        ]
    };

    /// Those that only carry on what has begun, and are never counted.
    pub(super) const STEPS: [Act; 8] = [
        Act::Notice,
        Act::Group,
        Act::Hear,
        Act::Listen,
        Act::Feed,
        Act::Page,
        Act::Take,
        Act::Connect,
    ];
}

/// A row to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) to: To,
    /// By the writer of the instance that the client is connected to.
    pub(super) own: bool,
}

pub(super) fn own(to: To) -> Append {
    Append { to, own: true }
}

pub(super) fn foreign(to: To) -> Append {
    Append { to, own: false }
}

/// Bounds within which everything is tried.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// Committed before anything else.
    pub(super) before: Vec<To>,
    pub(super) appends: Vec<Append>,
    /// How often each may happen at most; what is not here and no step never does.
    pub(super) limits: Vec<(Act, u8)>,
    pub(super) start: Start,
    /// The feed has found the head and is listened to.
    pub(super) started: bool,
    /// Somebody else has joined the same audiences, so the ring has them without our client.
    pub(super) bystander: bool,
    pub(super) ring_bytes: usize,
    /// A page looks at so many rows of each audience, and has so many bytes.
    pub(super) page_rows: usize,
    pub(super) page_bytes: usize,
    /// What goes on for longer is left there.
    pub(super) most_steps: usize,
    /// White space in the data of each row.
    pub(super) padding: usize,
}

/// An event of a few bytes in the ring.
const SMALL_EVENT: usize = 250;

impl Scenario {
    /// A ring of two events, pages of two rows for each audience, a client that wants everything.
    pub(super) fn small() -> Scenario {
        Scenario {
            before: Vec::new(),
            appends: Vec::new(),
            limits: Vec::new(),
            start: Start::After(EventId::ZERO),
            started: true,
            bystander: false,
            ring_bytes: 2 * SMALL_EVENT,
            page_rows: 2,
            page_bytes: 1 << 20,
            most_steps: 64,
            padding: 0,
        }
    }

    /// Once more of everything.
    pub(super) fn longer(mut self) -> Scenario {
        self.appends.push(foreign(To::Everyone));
        self.limits.iter_mut().for_each(|(_, times)| *times += 1);
        self
    }

    pub(super) fn left(&self) -> [u8; Act::COUNT] {
        let mut left = [0; Act::COUNT];
        Act::STEPS.iter().for_each(|act| left[*act as usize] = u8::MAX);
        left[Act::Append as usize] = self.appends.len() as u8;
        self.limits.iter().for_each(|(act, times)| left[*act as usize] = *times);
        left
    }
}
