//! The problems that operations may answer with, for the OpenAPI document: content type, headers
//! and the meaning of each code are defined here, once for all operations.
//!
//! An operation names its refusals as a set: `Refusals<{ KEY | JOB | Code::NoEngineId.bit() }>`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Header, Object, Ref, RefOr, Response, ResponseBuilder, Type},
};

use crate::api::ProblemCode as Code;

/// Possible for every request.
const ANY: u64 = Code::RequestTimeout.bit()
    | Code::HeadersTooLarge.bit()
    | Code::Internal.bit()
    | Code::Overloaded.bit();

/// For a route of the API that needs no key: an open API refuses requests of other sites.
pub(super) const OPEN: u64 = Code::ForbiddenOrigin.bit();

/// For a route that needs a key with a scope.
pub(super) const KEY: u64 =
    OPEN | Code::Unauthorized.bit() | Code::ForbiddenScope.bit() | Code::TooManyFailures.bit();

/// For a route that reads or writes the database.
pub(super) const STORE: u64 = Code::StorageUnavailable.bit();

/// For a route with a job's id in its path.
pub(super) const JOB: u64 = STORE | Code::NotFound.bit() | Code::Gone.bit();

/// For a route that takes a query, or validates a body beyond its being JSON.
pub(super) const CHECKED: u64 = Code::ValidationFailed.bit();

/// For a route that takes JSON.
pub(super) const JSON: u64 = CHECKED
    | Code::MalformedJson.bit()
    | Code::PayloadTooLarge.bit()
    | Code::UnsupportedMediaType.bit();

/// For a route that calls the Engine for a job.
pub(super) const ENGINE: u64 = Code::EngineRejected.bit()
    | Code::EngineAuth.bit()
    | Code::EngineUnavailable.bit()
    | Code::EngineBusy.bit()
    | Code::EngineTimeout.bit();

/// For a route that takes a callback.
pub(super) const CALLBACK: u64 = STORE
    | Code::NotFound.bit()
    | Code::Gone.bit()
    | Code::MalformedJson.bit()
    | Code::PayloadTooLarge.bit();

/// The problems with the codes of this set, and those of [`ANY`].
pub(super) struct Refusals<const CODES: u64>;

impl<const CODES: u64> IntoResponses for Refusals<CODES> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
        let is_meant = |code: &&Code| (CODES | ANY) & code.bit() != 0;
        for code in Code::ALL.iter().filter(is_meant) {
            by_status.entry(code.status()).or_default().push(*code);
        }
        let response = |(status, codes): (u16, Vec<Code>)| {
            (status.to_string(), response(status, &codes).into())
        };
        by_status.into_iter().map(response).collect()
    }
}

fn response(status: u16, codes: &[Code]) -> Response {
    let meanings = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title()));
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new()
        .description(meanings.collect::<Vec<_>>().join(" "))
        .content("application/problem+json", content);
    let response = match StatusCode::from_u16(status) {
        Ok(StatusCode::UNAUTHORIZED) => response.header("WWW-Authenticate", text("`Bearer`")),
        Ok(StatusCode::RANGE_NOT_SATISFIABLE) => {
            response.header("Content-Range", text("`bytes */` and the file's length"))
        }
        Ok(
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT,
        ) => response.header("Retry-After", retry_after()),
        _ => response,
    };
    response.build()
}

fn text(description: &str) -> Header {
    let mut header = Header::new(Object::with_type(Type::String));
    header.description = Some(description.into());
    header
}

fn retry_after() -> Header {
    let mut header = Header::new(Object::with_type(Type::Integer));
    header.description = Some("Seconds after which asking again makes sense".into());
    header
}
