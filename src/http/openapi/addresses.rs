//! The parameters that several routes have: the names in their paths, and the key.

#![expect(dead_code, reason = "the parameters of the document; handlers read them in params.rs")]

use utoipa::IntoParams;

use super::values::{Id, Name};

/// `{app}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfApp {
    /// The app, percent-encoded.
    app: Name,
}

/// `{app}/{user}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfUser {
    /// The app, percent-encoded.
    app: Name,
    /// The user, percent-encoded.
    user: Name,
}

/// `{id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfNotification {
    /// The notification's id.
    id: Id,
}

/// `Idempotency-Key`
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct WithKey {
    /// Makes repeating safe for 24 hours: 1 to 255 visible ASCII characters.
    #[param(rename = "Idempotency-Key", value_type = String, required = false, pattern = "^[!-~]{1,255}$")]
    key: Option<String>,
}

/// `?topics=`
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Topics {
    /// Also these topics, with commas between them: up to 100.
    #[param(value_type = String, required = false, example = "news,sports")]
    topics: Option<String>,
}
