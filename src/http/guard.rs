//! Keeps web pages out that have no business here, while nothing else can: there is no
//! authentication yet.

use std::fmt::Display;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Server;
use super::json::shortened;
use crate::config::CorsOrigins;
use crate::error::{Kind, Problem};

/// On loopback, a Host that is not this machine's means that a web page reached us through a name of
/// its own (DNS rebinding), which would make any page "ours". A POST of a page of another origin needs
/// no preflight when it is text/plain, so CORS does not stop it.
pub(super) async fn guard(State(server): State<Server>, request: Request, next: Next) -> Response {
    let config = &server.inner.config;
    let on_loopback = config.on_loopback();
    let host = match host(&request) {
        Ok(Some(host)) if on_loopback && !names_this_machine(&host) => return refuse_host(&host),
        Ok(host) => host,
        Err(unreadable) if on_loopback => return refuse_host(&unreadable),
        Err(_) => None,
    };
    if request.method() == Method::POST
        && let Err(problem) = check_origin(request.headers(), host.as_ref(), &config.cors_origins)
    {
        return problem.into_response();
    }
    next.run(request).await
}

fn refuse_host(host: &dyn Display) -> Response {
    let host = shortened(&host.to_string());
    Kind::ForeignHost
        .because(format!(
            "The host {host} is not localhost, 127.0.0.0/8 or [::1], and this server listens on loopback only: \
             use one of these, or have your proxy set the Host header."
        ))
        .into_response()
}

/// HTTP/2 has it in the URI. Absent (HTTP/1.0) or empty it cannot come from a browser; one that
/// cannot be read is not taken for absent.
fn host(request: &Request) -> Result<Option<Authority>, String> {
    if let Some(host) = request.uri().authority() {
        return Ok(Some(host.clone()));
    }
    match request.headers().get(header::HOST) {
        Some(host) if !host.is_empty() => match host.to_str().map(str::parse) {
            Ok(Ok(host)) => Ok(Some(host)),
            _ => Err(format!("{host:?}")),
        },
        _ => Ok(None),
    }
}

fn names_this_machine(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn check_origin(
    headers: &HeaderMap,
    host: Option<&Authority>,
    allowed: &CorsOrigins,
) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("unreadable");
    let ours = host.is_some_and(|host| {
        origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host.as_str()))
    });
    let configured = match allowed {
        CorsOrigins::Any => true,
        CorsOrigins::Exactly(origins) => origins.iter().any(|known| known == origin),
    };
    if ours || configured {
        return Ok(());
    }
    Err(Kind::ForeignOrigin.because(format!(
        "A web page of {} may not send: add its origin to TIDINGS_CORS_ORIGINS if it is yours.",
        shortened(origin)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(names_this_machine(&host.parse().unwrap()), "{host}");
        }
        for host in [
            "example.com",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "[::ffff:10.0.0.1]",
            "127.0.0.1.nip.example:80",
        ] {
            assert!(!names_this_machine(&host.parse().unwrap()), "{host}");
        }
    }
}
