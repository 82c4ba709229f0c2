//! What the bodies of requests may have. No member but `data` may be null: what is not meant is left out.
//! Members that several share are written out in each: of schemas put together, each would refuse the
//! members of the other.

#![expect(dead_code, reason = "schemas of the document; bodies are read member by member")]

use utoipa::ToSchema;

use super::values::{Addressees, EventName, Id, ReplaceKey, TopicName};

/// What to send.
#[derive(ToSchema)]
#[schema(as = Send)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SendSchema {
    /// Any JSON; its bytes stay as sent, but for white space between tokens.
    #[schema(value_type = Value)]
    data: serde_json::Value,
    #[schema(value_type = EventName, required = false)]
    event: Option<EventName>,
    /// Seconds after its delivery, from which on it is not delivered any more.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    expires_in: Option<u32>,
    #[schema(value_type = ReplaceKey, required = false)]
    replaces: Option<ReplaceKey>,
    /// Send it then: up to 30 days ahead.
    #[schema(value_type = String, required = false, format = DateTime)]
    deliver_at: Option<String>,
}

/// What to send, and to whom.
#[derive(ToSchema)]
#[schema(as = SendTo)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SendToSchema {
    to: Addressees,
    /// Any JSON; its bytes stay as sent, but for white space between tokens.
    #[schema(value_type = Value)]
    data: serde_json::Value,
    #[schema(value_type = EventName, required = false)]
    event: Option<EventName>,
    /// Seconds after its delivery, from which on it is not delivered any more.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    expires_in: Option<u32>,
    #[schema(value_type = ReplaceKey, required = false)]
    replaces: Option<ReplaceKey>,
    /// Send it then: up to 30 days ahead.
    #[schema(value_type = String, required = false, format = DateTime)]
    deliver_at: Option<String>,
}

/// One notification of a batch.
#[derive(ToSchema)]
#[schema(as = BatchEntry)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct EntrySchema {
    to: Addressees,
    /// Any JSON; its bytes stay as sent, but for white space between tokens.
    #[schema(value_type = Value)]
    data: serde_json::Value,
    #[schema(value_type = EventName, required = false)]
    event: Option<EventName>,
    /// Seconds after its delivery, from which on it is not delivered any more.
    #[schema(value_type = u32, required = false, minimum = 1, maximum = 31_536_000)]
    expires_in: Option<u32>,
    #[schema(value_type = ReplaceKey, required = false)]
    replaces: Option<ReplaceKey>,
}

/// Many notifications: all of them are stored, or none.
#[derive(ToSchema)]
#[schema(as = Batch)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BatchSchema {
    /// With lists of users, one for each user counts.
    #[schema(min_items = 1, max_items = 1000)]
    notifications: Vec<EntrySchema>,
}

/// Which notifications change, and to what.
#[derive(ToSchema)]
#[schema(as = StateChange)]
#[serde(untagged)]
pub(in crate::http) enum ChangeSchema {
    Ids(ChangeOfIds),
    UpTo(ChangeUpTo),
}

/// Single notifications.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ChangeOfIds {
    /// These notifications.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Vec<Id>,
    /// Topics that are counted in the answer too.
    #[schema(value_type = Vec<TopicName>, required = false, max_items = 100)]
    topics: Option<Vec<TopicName>>,
    state: StateSchema,
}

/// Everything up to an id.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ChangeUpTo {
    /// Everything for the user, for everyone and in `topics` up to this id, and up to the head at most.
    up_to: Id,
    /// Topics that are covered too, and counted in the answer.
    #[schema(value_type = Vec<TopicName>, required = false, max_items = 100)]
    topics: Option<Vec<TopicName>>,
    state: StateSchema,
}

/// What the notifications are from now on. Read implies seen.
#[derive(ToSchema)]
#[schema(as = State, rename_all = "lowercase")]
pub(in crate::http) enum StateSchema {
    Seen,
    Read,
    Unread,
    Archived,
    Unarchived,
}
