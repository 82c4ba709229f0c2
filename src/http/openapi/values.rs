//! The values that several bodies and parameters have in common.

#![expect(dead_code, reason = "schemas of the document; the values themselves are made elsewhere")]

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

macro_rules! strings {
    ($($description:literal $name:ident = $pattern:literal, like $example:literal;)*) => {$(
        #[doc = $description]
        pub(in crate::http) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($description))
                    .pattern(Some($pattern))
                    .examples([$example])
                    .into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

strings! {
    "A ULID: taken in any case, printed in upper case."
    Id = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$", like "01KB5T6ZVX0000000QZ4V7G1XN";

    "The name of an app or a user: 1 to 128 characters, no control characters, not only white space, neither `.` nor `..`."
    Name = r"^(?!\.{1,2}$)(?=[\s\S]*\S)[^\u0000-\u001f\u007f-\u009f]{1,128}$", like "ada";

    "The name of a topic: like that of a user, and no comma."
    TopicName = r"^(?!\.{1,2}$)(?=[\s\S]*\S)[^\u0000-\u001f\u007f-\u009f,]{1,128}$", like "news";

    "Takes the place of the last one with this key in the same audience: 1 to 128 characters, no control characters, not only white space."
    ReplaceKey = r"^(?=[\s\S]*\S)[^\u0000-\u001f\u007f-\u009f]{1,128}$", like "order-17";

    "The SSE event name. Those that begin with `tidings.`, and `open`, `error` and `message`, are taken."
    EventName = r"^(?!tidings\.)(?!(open|error|message)$)[A-Za-z0-9_.:\-]{1,64}$", like "order.shipped";
}

/// Whom a notification is for.
#[derive(ToSchema)]
#[schema(as = Audience)]
#[serde(untagged)]
pub(in crate::http) enum AudienceSchema {
    Everyone(#[schema(inline)] Everyone),
    User(#[schema(inline)] OneUser),
    Topic(#[schema(inline)] OneTopic),
}

/// Whom to send to.
#[derive(ToSchema)]
#[schema(as = To)]
#[serde(untagged)]
pub(in crate::http) enum Addressees {
    Everyone(#[schema(inline)] Everyone),
    User(#[schema(inline)] OneUser),
    Topic(#[schema(inline)] OneTopic),
    Users(#[schema(inline)] ManyUsers),
}

/// All users of the app.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(in crate::http) enum Everyone {
    Everyone,
}

/// One user.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OneUser {
    user: Name,
}

/// Whoever subscribes to the topic.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OneTopic {
    topic: TopicName,
}

/// These users, each with a notification of its own; repeated ones once.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ManyUsers {
    #[schema(min_items = 1, max_items = 1000)]
    users: Vec<Name>,
}
