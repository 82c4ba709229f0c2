//! The OpenAPI document, generated from the handlers, and the page that shows it offline. What several
//! routes have in common is in the modules below it.

pub(super) mod addresses;
pub(super) mod bodies;
pub(super) mod problems;
pub(super) mod values;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::Server;
use crate::error::{Kind, ProblemBody};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tidings", description = "Send once; each client gets it once, in order, however often it drops."),
    components(schemas(ProblemBody<'static>, values::Id, values::Name)),
    tags(
        (name = "send", description = "Storing notifications"),
        (name = "subscribe", description = "Receiving them"),
        (name = "history", description = "Looking them up"),
        (name = "state", description = "What users did with them, and withdrawing them"),
        (name = "operations", description = "Running the server"),
    )
)]
struct Document;

pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// `/openapi.json` and `/docs`.
pub(super) fn docs(document: utoipa::openapi::OpenApi) -> Router<Server> {
    // Without this the page sends the document to a service on the net for a badge.
    let config = Config::default().validator_url("none");
    let docs: Router<Server> =
        SwaggerUi::new("/docs").url("/openapi.json", document).config(config).into();
    docs.layer(map_response(async |answer: Response| match answer.status() {
        StatusCode::NOT_FOUND => {
            Kind::NotFound.because("There is no such file under /docs: open /docs.").into_response()
        }
        _ => answer,
    }))
}
