//! The HTTP side: which route goes where, and what every request passes on its way.

mod answers;
mod content;
mod guard;
mod health;
mod history;
mod intake;
mod json;
mod openapi;
mod params;
mod received;
mod request_id;
mod scheduled;
mod send;
mod state;
mod stream;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::Redirect;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{Config, CorsOrigins};
use crate::error::{Kind, Problem};
use crate::sender::Sender;
use crate::store::StoreError;
use crate::subscription::Streams;

/// Under this path lies the API.
const API: &str = "/api/notifications";

/// What handlers work with.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    sender: Sender,
    streams: Arc<Streams>,
    refusals: subscribe::Refusals,
    open_streams: stream::OpenStreams,
    intake: intake::Intake,
    answers: answers::Answers,
    /// Being asked to stop: not ready any more.
    leaving: CancellationToken,
}

impl Server {
    /// The handlers' side of an instance.
    pub fn new(
        config: Config,
        sender: Sender,
        streams: Arc<Streams>,
        leaving: CancellationToken,
    ) -> Server {
        Server {
            inner: Arc::new(Inner {
                config,
                sender,
                streams,
                refusals: subscribe::Refusals::default(),
                open_streams: stream::OpenStreams::default(),
                intake: intake::Intake::default(),
                answers: answers::Answers::default(),
                leaving,
            }),
        }
    }
}

impl Server {
    /// Looks something up, or says why it could not be.
    async fn looked_up<T>(
        &self,
        found: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        found.await.map_err(|error| Problem::of_read(&error, self.inner.streams.database.is_up()))
    }

    /// Ends streams whose clients take nothing, for as long as the program runs.
    pub async fn end_stalled_streams_forever(self) {
        let stalled_after = self.inner.config.limits.stalled_after;
        self.inner.open_streams.watch_forever(stalled_after).await;
    }
}

/// All routes and layers.
pub fn router(server: Server) -> Router {
    let config = server.inner.config.clone();
    let (api, openapi) = OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(send::send))
        .routes(routes!(send::send_to))
        .routes(routes!(send::batch))
        .routes(routes!(scheduled::cancel))
        .routes(routes!(subscribe::subscribe))
        .routes(routes!(history::history))
        .routes(routes!(history::notification))
        .routes(routes!(state::change))
        .routes(routes!(state::counts))
        .routes(routes!(state::withdraw))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts();
    api.merge(openapi::docs(openapi))
        .route("/", get(async || Redirect::temporary("/docs")))
        .fallback(no_route)
        .method_not_allowed_fallback(async || {
            Kind::MethodNotAllowed
                .because("This route has other methods; the Allow header names them.")
        })
        .layer(axum::middleware::from_fn_with_state(server.clone(), guard::guard))
        .layer(CatchPanicLayer::custom(|_| {
            axum::response::IntoResponse::into_response(
                Kind::Internal.because("Something went wrong on our side."),
            )
        }))
        // Outside of all that can fail, so that errors too are readable for pages of other origins.
        .layer(cors(&config))
        .layer(axum::middleware::from_fn(request_id::request_id))
        .with_state(server)
}

/// An empty segment matches no route; say which name is missing where one is.
async fn no_route(method: Method, uri: axum::http::Uri) -> Problem {
    let segments: Vec<&str> = uri
        .path()
        .strip_prefix(API)
        .unwrap_or_default()
        .trim_start_matches('/')
        .split('/')
        .collect();
    match segments[..] {
        ["send" | "batch", ""] | ["send" | "subscribe" | "history" | "state" | "counts", "", _] => {
            Kind::InvalidApp.because("The app is empty: give a name of 1 to 128 characters.")
        }
        ["send" | "subscribe" | "history" | "state" | "counts", _, ""] => {
            Kind::InvalidUser.because("The user is empty: give a name of 1 to 128 characters.")
        }
        _ => Kind::NotFound.because(format!(
            "There is no {} {}; /docs lists the routes.",
            json::shortened(method.as_str()),
            json::shortened(uri.path())
        )),
    }
}

fn cors(config: &Config) -> CorsLayer {
    let origins = match &config.cors_origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Exactly(origins) => AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let named = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers([
            named("last-event-id"),
            named("idempotency-key"),
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
        ])
        .expose_headers([header::RETRY_AFTER, named("idempotency-replayed"), named("x-request-id")])
        .max_age(Duration::from_secs(3600))
}
