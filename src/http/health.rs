//! What operators and their tools look at.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::openapi::problems::OnEveryRoute;

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "operations", responses(OnEveryRoute, (status = 200, description = "Alive", body = String, content_type = "text/plain")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether this instance can serve.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// Why not: `draining`, `database-unreachable`, `starting`.
    reasons: Vec<&'static str>,
}

/// A balancer should send clients here.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(OnEveryRoute, (status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready", body = Readiness))
)]
pub(super) async fn readyz(State(server): State<Server>) -> Response {
    let streams = &server.inner.streams;
    let mut reasons = Vec::new();
    if server.inner.leaving.is_cancelled() {
        reasons.push("draining");
    }
    if !streams.database.is_prepared() {
        reasons.push("starting");
    } else if !streams.database.is_up() {
        reasons.push("database-unreachable");
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons })).into_response()
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(OnEveryRoute, (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(server): State<Server>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], server.inner.streams.metrics.render()).into_response()
}
