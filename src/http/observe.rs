//! What is told of every request: its span, its figures, its panic.
//!
//! Layers of both doors. The invariant: a route's pattern is logged, never its path or query, since
//! those hold signatures, secrets and ids.

use std::any::Any;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Span;

use super::{error::Problem, progress::MAX_HEAD_BYTES};
use crate::{clock::Stopwatch, telemetry};

pub(super) const REQUEST_ID: &str = "x-request-id";

/// A caller's own request id is taken over if it is short and plain.
const MAX_REQUEST_ID: usize = 128;

/// Headers of a request.
const MAX_HEADERS: usize = 100;

/// What a header has beside its name and value: colon, space and line break.
const HEADER_SIGNS: usize = 4;

pub(super) async fn drop_odd_request_id(mut request: Request, next: Next) -> Response {
    let is_plain = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    if !request.headers().get(REQUEST_ID).is_some_and(is_plain) {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

/// Nothing is kept or passed on of a head beyond what any honest sender needs.
pub(super) async fn refuse_large_head(request: Request, next: Next) -> Response {
    let line = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let headers = request.headers();
    let of_header = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_SIGNS
    };
    let bytes = line + headers.iter().map(of_header).sum::<usize>();
    if bytes > MAX_HEAD_BYTES || headers.len() > MAX_HEADERS {
        return Problem::HeadersTooLarge.into_response();
    }
    next.run(request).await
}

pub(super) fn span(request: &Request) -> Span {
    let id = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    tracing::info_span!(
        "request",
        method = %request.method(),
        route = route(request),
        request.id = id.unwrap_or_default(),
    )
}

pub(super) async fn measure(request: Request, next: Next) -> Response {
    let stopwatch = Stopwatch::start();
    let method = request.method().as_str().to_owned();
    let route = route(&request).to_owned();
    let response = next.run(request).await;
    let labels = [("method", method), ("route", route)];
    metrics::histogram!(telemetry::HTTP_SECONDS, &labels).record(stopwatch.elapsed().as_secs_f64());
    let status = response.status().as_str().to_owned();
    let [method, route] = labels;
    metrics::counter!(telemetry::HTTP_REQUESTS, &[method, route, ("status", status)]).increment(1);
    response
}

pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::Internal.into_response()
}

fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str)
}
