//! The errors that several routes have in common.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder};

type Responses = BTreeMap<String, RefOr<Response>>;

/// What any route may answer.
pub(in crate::http) struct OnEveryRoute;

impl IntoResponses for OnEveryRoute {
    fn responses() -> Responses {
        problems(&[
            (
                "403",
                "Another host, while on loopback; or a page of another origin that may not send",
            ),
            ("500", "A defect of ours: the log tells more under the `request_id`"),
        ])
    }
}

/// What any route of the API may answer.
pub(in crate::http) struct OfApi;

impl IntoResponses for OfApi {
    fn responses() -> Responses {
        let mut responses = OnEveryRoute::responses();
        responses.extend(problems(&[
            ("400", "A mistake in the request, and what to do about it; nothing is stored or changed"),
            (
                "503",
                "Too much at once, the database is away, or this server is: certainly nothing is stored or changed, unless the type is outcome-unknown",
            ),
        ]));
        responses
    }
}

/// What routes that take a body may answer.
pub(in crate::http) struct OfBodies;

impl IntoResponses for OfBodies {
    fn responses() -> Responses {
        let mut responses = OfApi::responses();
        responses.extend(problems(&[
            ("413", "Over a limit, which is named"),
            ("415", "A content type that this route does not take"),
        ]));
        responses
    }
}

/// What routes that take an `Idempotency-Key` may answer.
pub(in crate::http) struct OfSends;

impl IntoResponses for OfSends {
    fn responses() -> Responses {
        let mut responses = OfBodies::responses();
        responses
            .extend(problems(&[("422", "The `Idempotency-Key` was used with another request")]));
        responses
    }
}

fn problems(of: &[(&str, &str)]) -> Responses {
    of.iter().map(|(status, why)| ((*status).to_owned(), problem(status, why))).collect()
}

fn problem(status: &str, why: &str) -> RefOr<Response> {
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let response =
        ResponseBuilder::new().description(why).content("application/problem+json", content);
    let response = match status {
        "503" => response.header("Retry-After", retry_after()),
        _ => response,
    };
    response.build().into()
}

fn retry_after() -> utoipa::openapi::Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build();
    HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds")).build()
}
