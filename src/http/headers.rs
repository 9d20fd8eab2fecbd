//! The headers that every answer of every door carries.
//!
//! The outermost layer of the doors, also called for answers that are written without a router.
//! Invariant: no answer leaves without them. A value that a handler sets is kept only if it is on
//! the lists below.

use axum::{
    http::{
        HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::Response,
};

/// `Cache-Control` of files and results: the client may cache them, and revalidates each time.
pub(super) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// `Cache-Control` of content whose address changes with its bytes.
pub(super) const IMMUTABLE: HeaderValue =
    HeaderValue::from_static("public, max-age=31536000, immutable");

/// The values that a handler may set. Libraries set others, such as `no-cache`.
const CACHING: [HeaderValue; 2] = [PRIVATE, IMMUTABLE];

/// For everything that is not a page: it runs nothing, and no page shows it in a frame.
const NOT_A_PAGE: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");

const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Streams must arrive line by line, so proxies must neither buffer nor transform them.
const STREAMS: [&str; 2] = ["text/event-stream", "application/x-ndjson"];
const NOT_STORED: HeaderValue = HeaderValue::from_static("no-store");
const STREAMED: HeaderValue = HeaderValue::from_static("no-store, no-transform");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// [`complete`] as a layer.
pub(super) async fn completed(mut response: Response) -> Response {
    complete(&mut response);
    response
}

/// Adds missing headers and replaces values that no handler may set.
pub(super) fn complete(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    // Only our own pages have set a policy by now.
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(NOT_A_PAGE);
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if STREAMS.iter().any(|stream| kind.starts_with(stream.as_bytes())) {
        headers.insert(CACHE_CONTROL, STREAMED);
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    } else if !headers.get(CACHE_CONTROL).is_some_and(|said| CACHING.contains(said)) {
        headers.insert(CACHE_CONTROL, NOT_STORED);
    }
}
