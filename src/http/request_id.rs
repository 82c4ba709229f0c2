//! Gives every request an id, answers it, logs the request, and renders problems, which carry it.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::debug;

use crate::error::Problem;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Takes the client's id if it is 1 to 64 visible ASCII characters, else makes one.
pub(super) async fn request_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).and_then(|value| value.to_str().ok());
    let usable =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let id = match given.filter(usable) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", fastrand::u64(..)),
    };
    let method = request.method().clone();
    // The route, not the path: names of apps and users do not belong into a log.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let started = Instant::now();

    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let rendered = problem.render(&id);
        let (mut parts, body) = rendered.into_parts();
        // What layers added on the way out (CORS, Allow) stays.
        for (name, value) in response.headers() {
            if !matches!(name.as_str(), "content-type" | "content-length") {
                parts.headers.append(name, value.clone());
            }
        }
        response = Response::from_parts(parts, body);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    debug!(request_id = id, %method, route, status = response.status().as_u16(), milliseconds, "answered");
    response
}
