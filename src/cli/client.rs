//! The HTTP client under `send`, `tail` and `history`: addresses, and what answers and broken
//! connections mean for the exit code.

use std::error::Error;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::Ending;

/// What RFC 3986 leaves unreserved; everything else in a name is encoded.
const NOT_IN_NAMES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Above the server's own deadlines, so that it is the server who says what became of a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A proxy's error page can be long; its beginning says enough.
const EXCERPT: usize = 200;

pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
}

/// RFC 9457, as far as it is printed.
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

impl Client {
    pub(super) fn new(server: Url) -> Result<Self, Ending> {
        // Fails only if this process already has a provider, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // A followed redirect turns a POST into a GET: "sent" without a word of it.
            .redirect(redirect::Policy::none());
        if is_loopback(&server) {
            builder = builder.no_proxy(); // no proxy can reach this machine's own loopback
        }
        let http = builder.build().map_err(|error| Ending::Failed(root_cause(&error)))?;
        Ok(Self { http, server })
    }

    /// `…/api/notifications/{route}/{app}/{user}`, under the server address's own path if it has one.
    pub(super) fn address(&self, route: &str, app: &str, user: &str) -> Result<Url, Ending> {
        for (what, name) in [("app", app), ("user", user)] {
            // URL parsers resolve these, encoded or not: they would reach another route.
            if matches!(name, "" | "." | "..") {
                return Err(Ending::Usage(format!("{name:?} cannot be the name of the {what}")));
            }
        }
        let encode = |name| utf8_percent_encode(name, NOT_IN_NAMES);
        let base = self.server.as_str().trim_end_matches('/');
        let address = format!("{base}/api/notifications/{route}/{}/{}", encode(app), encode(user));
        Url::parse(&address).map_err(|error| Ending::Usage(format!("{address}: {error}")))
    }

    pub(super) fn get(&self, address: Url) -> RequestBuilder {
        self.http.get(address)
    }

    pub(super) fn post_json(&self, address: Url, body: String) -> RequestBuilder {
        self.http.post(address).header("content-type", "application/json").body(body)
    }

    /// Sends a request that has one answer, and returns the body of a good one. `broken` is what a
    /// connection that broke before the answer means.
    pub(super) async fn answer(
        &self,
        request: RequestBuilder,
        broken: &str,
    ) -> Result<String, Ending> {
        let lost = |error: reqwest::Error| self.lost(&error, broken);
        let response = request.timeout(ANSWER_TIMEOUT).send().await.map_err(lost)?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        response.text().await.map_err(lost)
    }

    fn lost(&self, error: &reqwest::Error, broken: &str) -> Ending {
        let cause = root_cause(error);
        if error.is_connect() {
            return Ending::Unreachable(format!("cannot reach {}: {cause}", self.server));
        }
        Ending::Failed(format!("{broken} ({cause})"))
    }

    pub(super) fn server(&self) -> &Url {
        &self.server
    }
}

fn is_loopback(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// An answer other than a good one: refused if the request is at fault, else failed.
pub(super) async fn refusal(response: Response) -> Ending {
    let status = response.status();
    let location = response.headers().get("location").and_then(|to| to.to_str().ok());
    if let (true, Some(location)) = (status.is_redirection(), location) {
        return Ending::Failed(format!("the server is elsewhere: use {location} (HTTP {status})"));
    }
    let body = response.text().await.unwrap_or_default();
    let said = explain(status, &body);
    if status.is_client_error() { Ending::Refused(said) } else { Ending::Failed(said) }
}

fn explain(status: StatusCode, body: &str) -> String {
    if let Ok(Problem { kind, title, detail }) = serde_json::from_str::<Problem>(body)
        && let Some(said) = detail.or(title)
    {
        let kind = kind.unwrap_or_default();
        let slug = kind.rsplit(':').next().unwrap_or_default();
        return format!("{said} (HTTP {} {slug})", status.as_u16()).replace(" )", ")");
    }
    let shown = |c: char| if c.is_control() { ' ' } else { c }; // a terminal obeys some of them
    let excerpt: String = body.trim().chars().take(EXCERPT).map(shown).collect();
    if excerpt.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {excerpt}") }
}

/// The innermost cause, the one that says "connection refused".
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(server: &str) -> Client {
        Client::new(Url::parse(server).unwrap()).unwrap()
    }

    #[test]
    fn names_are_encoded_and_the_servers_path_is_kept() {
        let address = |server, app, user| client(server).address("send", app, user);
        assert_eq!(
            address("http://127.0.0.1:8080", "my shop", "a/b?c#d%é..").unwrap().as_str(),
            "http://127.0.0.1:8080/api/notifications/send/my%20shop/a%2Fb%3Fc%23d%25%C3%A9.."
        );
        assert_eq!(
            address("https://example.org/push/", "shop", " ").unwrap().as_str(),
            "https://example.org/push/api/notifications/send/shop/%20"
        );
    }

    #[test]
    fn names_that_url_parsers_resolve_never_leave_this_machine() {
        for user in ["", ".", ".."] {
            let refused = client("http://127.0.0.1:8080").address("send", "shop", user);
            assert_eq!(refused.unwrap_err().code(), 2);
        }
    }

    #[test]
    fn a_problem_is_printed_with_its_detail_and_slug() {
        let body = r#"{"type":"urn:tidings:problem:invalid-user","title":"x","detail":"no user"}"#;
        assert_eq!(explain(StatusCode::BAD_REQUEST, body), "no user (HTTP 400 invalid-user)");
        assert_eq!(explain(StatusCode::NOT_FOUND, r#"{"title":"gone"}"#), "gone (HTTP 404)");
        assert_eq!(explain(StatusCode::BAD_GATEWAY, "<p>\n"), "HTTP 502 Bad Gateway: <p>");
        assert_eq!(explain(StatusCode::BAD_GATEWAY, ""), "HTTP 502 Bad Gateway");
    }

    #[test]
    fn only_loopback_goes_past_a_proxy() {
        for (server, expected) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:8080", true),
            ("https://example.org", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(server).unwrap()), expected, "{server}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = client(&format!("http://127.0.0.1:{port}"));
        let request = client.get(client.address("history", "shop", "ada").unwrap());
        let ending = client.answer(request, "broke").await.unwrap_err();
        assert_eq!(ending.code(), 4, "{ending}");
        assert!(ending.to_string().contains("refused"), "{ending}");
    }
}
