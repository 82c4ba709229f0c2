//! A request with a body, as it arrived: of a type that its route takes, whole, and with the key that
//! makes repeating it safe.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::json::{shortened, shown};
use crate::error::{Kind, Problem};
use crate::notification::IdempotencyKey;

const LONGEST_KEY: usize = 255;

/// A request that has arrived whole.
pub(super) struct Received {
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
    pub(super) key: Option<IdempotencyKey>,
    /// What the body takes of the memory for all of them, until the request is answered.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Json,
    Text,
}

/// What a route takes.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// A text too, which is data.
    TextOrJson,
    /// JSON alone, that looks like this.
    Json(&'static str),
}

impl Takes {
    fn remedy(self) -> String {
        match self {
            Takes::TextOrJson => "add -H 'content-type: text/plain' for a text, \
                or -H 'content-type: application/json' for {\"data\": …}"
                .to_owned(),
            Takes::Json(form) => {
                format!(
                    "this route takes JSON alone, add -H 'content-type: application/json' for {form}"
                )
            }
        }
    }
}

impl Received {
    pub(super) async fn read(
        server: &Server,
        request: Request,
        takes: Takes,
    ) -> Result<Received, Problem> {
        let (parts, body) = request.into_parts();
        let media_type = media_type(&parts.headers, takes)?;
        let key = idempotency_key(&parts.headers)?;
        let (body, room) = server.inner.intake.read(body, server.inner.config.max_body).await?;
        let key = key.map(|key| {
            let mut hash = Sha256::new();
            // Lengths before texts, so that nothing can move from one to the next.
            for part in [parts.method.as_str().as_bytes(), parts.uri.path().as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.update([media_type as u8]);
            hash.update(&body);
            IdempotencyKey { key, fingerprint: hash.finalize().into() }
        });
        Ok(Received { media_type, body, key, _room: room })
    }
}

/// Refuses a body where none is read: whoever sends one believes that it says something.
pub(super) async fn no_body(server: &Server, body: Body) -> Result<(), Problem> {
    let (body, _room) = server.inner.intake.read(body, server.inner.config.max_body).await?;
    match body.is_empty() {
        true => Ok(()),
        false => Err(Kind::InvalidField
            .because("This route takes no body, the path says everything: leave the body out.")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let visible = |key: &[u8]| !key.is_empty() && key.iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if visible(key.as_bytes()) && key.len() <= LONGEST_KEY && given.next().is_none() => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Kind::InvalidIdempotencyKey.because(
            "The header Idempotency-Key is not 1 to 255 visible ASCII characters, given once: make a new one for each request, like a UUID.",
        )),
    }
}

fn media_type(headers: &HeaderMap, takes: Takes) -> Result<MediaType, Problem> {
    if let Some(coding) =
        headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity")
    {
        let coding = shown(&String::from_utf8_lossy(coding.as_bytes()));
        return Err(Kind::UnsupportedMediaType.because(format!(
            "The body is encoded as {coding}: send it as it is, without Content-Encoding."
        )));
    }
    let text =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    if charset.is_some_and(|charset| !["utf-8", "utf8", "us-ascii"].contains(&charset.as_str())) {
        return Err(Kind::UnsupportedMediaType
            .because(format!("The body is {}: send it as UTF-8.", shortened(text))));
    }
    match (essence.as_str(), takes) {
        ("application/json", _) => Ok(MediaType::Json),
        ("text/plain", Takes::TextOrJson) => Ok(MediaType::Text),
        (other, _) => {
            let other = shortened(if other.is_empty() { "of no type" } else { other });
            Err(Kind::UnsupportedMediaType
                .because(format!("The body is {other}: {}.", takes.remedy())))
        }
    }
}
