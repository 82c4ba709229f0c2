//! What one subscription covers, and the form in which it wants it.

use crate::address::{App, Audience};

/// What one subscription covers: shared by the stream and the pages that it waits for.
#[derive(Debug)]
pub struct Coverage {
    /// The tenant.
    pub app: App,
    /// Whose notifications, each audience once.
    pub audiences: Box<[Audience]>,
    /// The form of their events.
    pub format: Format,
}

/// What the data of an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The notification's own data.
    #[default]
    Data,
    /// An object with id, event, audience, time and data.
    Envelope,
}
