//! What is recorded of every request: its span, its metrics, its panic.
//!
//! Layers of both doors. Invariants: the log shows a route's pattern, never its path or query,
//! since those hold signatures, secrets and ids; a metric's labels come from closed lists, since
//! each new value is a time series that stays in memory.

use std::any::Any;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::ACCESS_CONTROL_REQUEST_METHOD,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Span;
use uuid::Uuid;

use super::{error::Problem, progress::MAX_HEAD_BYTES, routes::RouteLabels};
use crate::{
    clock::Stopwatch,
    telemetry::{self, Label},
};

pub(super) const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is adopted from a caller; it must also be visible ASCII.
const MAX_REQUEST_ID: usize = 128;

/// Bytes of a method's name; the longest registered one has 17, and none of ours more than 7.
const MAX_METHOD_BYTES: usize = 16;

/// Most headers in a request.
const MAX_HEADERS: usize = 100;

/// Bytes of a header besides its name and value: colon, space and line break.
const HEADER_SIGNS: usize = 4;

const SEE_ALLOW: &str = "see the Allow header for the methods of this address";

const NO_CORS: &str = "there is no CORS: pages of other origins cannot call this API, whatever its \
    settings; call it from your server";

/// The request's id, in the log and in the answer.
#[derive(Clone)]
struct RequestId(HeaderValue);

impl RequestId {
    fn of(request: &Request) -> Self {
        let is_plain = |value: &&HeaderValue| {
            let bytes = value.as_bytes();
            (1..=MAX_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        };
        let given = request.headers().get(REQUEST_ID).filter(is_plain);
        Self(given.cloned().unwrap_or_else(|| {
            let new = Uuid::now_v7().to_string();
            HeaderValue::from_str(&new).expect("letters, digits and hyphens")
        }))
    }
}

/// Gives the request an id. Its headers stay as they were sent, since deliveries show them.
pub(super) async fn name_request(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id.0);
    response
}

/// Refuses a head that is larger than any honest sender needs, before anything of it is kept or
/// passed on.
pub(super) async fn refuse_large_head(request: Request, next: Next) -> Response {
    let line = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let headers = request.headers();
    let of_header = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_SIGNS
    };
    let bytes = line + headers.iter().map(of_header).sum::<usize>();
    let method = request.method().as_str().len();
    if bytes > MAX_HEAD_BYTES || headers.len() > MAX_HEADERS || method > MAX_METHOD_BYTES {
        return Problem::HeadersTooLarge.into_response();
    }
    next.run(request).await
}

/// The answer to a method that the address does not support. To a browser's preflight, sent before
/// a request of a page of another origin, it says that there is no CORS.
pub(super) async fn wrong_method(method: Method, headers: HeaderMap) -> Problem {
    let is_preflight =
        method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    Problem::MethodNotAllowed(if is_preflight { NO_CORS } else { SEE_ALLOW })
}

pub(super) fn span(request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.0.to_str().ok());
    tracing::info_span!(
        "request",
        method = method(request.method()).as_str(),
        route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str),
        request.id = id.unwrap_or_default(),
    )
}

pub(super) async fn measure(
    State(routes): State<RouteLabels>,
    request: Request,
    next: Next,
) -> Response {
    let stopwatch = Stopwatch::start();
    let (method, route) = (method(request.method()), routes.of(&request));
    let response = next.run(request).await;
    let seconds = stopwatch.elapsed().as_secs_f64();
    telemetry::HTTP_SECONDS.of([method, route]).record(seconds);
    let status = status(response.status());
    telemetry::HTTP_REQUESTS.of([method, route, status]).increment(1);
    response
}

/// One of the methods that have routes here, otherwise `other`.
fn method(method: &Method) -> Label {
    let known = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    known.into()
}

/// One of the codes that we answer with, otherwise its class.
fn status(status: StatusCode) -> Label {
    let known = match status.as_u16() {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        206 => "206",
        302 => "302",
        303 => "303",
        304 => "304",
        307 => "307",
        308 => "308",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        416 => "416",
        422 => "422",
        429 => "429",
        431 => "431",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        code => match code / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
    };
    known.into()
}

pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    Problem::Internal.into_response()
}
