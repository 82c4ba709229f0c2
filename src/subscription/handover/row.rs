//! The rows of the model, and whom they are for.

use std::hash::{Hash, Hasher};

use crate::address::{App, Audience, User};
use crate::event_id::EventId;
use crate::notification::Notification;

/// Whom a row is for, seen from the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum To {
    /// The subscriber.
    Ada,
    /// Everyone in the subscriber's app.
    Everyone,
    /// Somebody else there.
    Bob,
    /// Somebody of the same name in another app.
    OtherApp,
}

impl To {
    pub(super) fn is_for_us(self) -> bool {
        matches!(self, To::Ada | To::Everyone)
    }

    pub(super) fn app(self) -> &'static str {
        if self == To::OtherApp { "other" } else { "shop" }
    }

    pub(super) fn audience(self) -> Audience {
        let user = |name| Audience::User(User::try_from(name).unwrap());
        match self {
            To::Ada | To::OtherApp => user("ada"),
            To::Everyone => Audience::Everyone,
            To::Bob => user("bob"),
        }
    }
}

/// What our subscriber covers.
pub(super) fn app() -> App {
    App::try_from(To::Ada.app()).unwrap()
}

/// See [`app`].
pub(super) fn audiences() -> [Audience; 2] {
    [To::Ada.audience(), To::Everyone.audience()]
}

/// A row that was committed once.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: EventId,
    pub(super) to: To,
    pub(super) data: String,
    /// Expired, withdrawn or replaced.
    pub(super) gone: bool,
    /// By retention, so it is at or below an edge.
    pub(super) removed: bool,
    /// By a restore: as if it had never been.
    pub(super) lost: bool,
}

/// Its data goes with its id, and can be long.
impl Hash for Row {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (self.id, self.to, self.gone, self.removed, self.lost).hash(into);
    }
}

impl Row {
    pub(super) fn is_there(&self) -> bool {
        !self.removed && !self.lost
    }

    pub(super) fn notification(&self) -> Notification {
        Notification {
            id: self.id,
            app: self.to.app().to_owned(),
            audience: self.to.audience().to_sql(),
            event: None,
            data: self.data.clone(),
            created_at: chrono::DateTime::UNIX_EPOCH,
            expires_at: None,
        }
    }
}
