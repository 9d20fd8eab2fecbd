//! The path that a proxy puts in front of the API's addresses, such as `/finishline`.
//!
//! A layer of the API's door. The proxy strips the path from a request; this layer adds it to the
//! addresses in an answer: `Location`, and the links, forms and scripts of pages. Invariants:
//! handlers and pages do not deal with it, so none can forget it; and only our own addresses get
//! it, which begin with one slash.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
    },
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::Context;
use crate::config::ApiConfig;

/// Attributes of pages that contain an address. Text in a page never looks like one: its quotes are
/// escaped.
const ATTRIBUTES: [&str; 7] =
    ["href", "src", "action", "formaction", "data-events", "data-mesh", "data-already"];

/// The path in front of our own addresses: empty, or a path without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(Arc<str>);

impl Prefix {
    /// The path of `api.public_url`.
    pub(super) fn of(config: &ApiConfig) -> Self {
        let path = config.public_url.as_ref().map_or("", |url| url.path());
        Self(path.trim_end_matches('/').into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The address with the prefix; `None` if the address is not ours.
    fn before(&self, address: &str) -> Option<String> {
        let is_ours = address.starts_with('/') && !address.starts_with("//");
        is_ours.then(|| format!("{}{address}", self.0))
    }

    /// The page with the prefix in its addresses.
    fn page(&self, page: &Bytes) -> Bytes {
        let Ok(text) = std::str::from_utf8(page) else { return page.clone() };
        let mut moved = text.to_owned();
        for attribute in ATTRIBUTES {
            // Our pages contain no addresses that begin with two slashes.
            let (from, to) = (format!(" {attribute}=\"/"), format!(" {attribute}=\"{}/", self.0));
            moved = moved.replace(&from, &to);
        }
        moved.into()
    }
}

/// Adds the prefix to the addresses in an answer.
pub(super) async fn put_before(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let prefix = Prefix::of(&context.config.api);
    if prefix.as_str().is_empty() {
        return response;
    }
    let headers = response.headers_mut();
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    if let Some(moved) = location.and_then(|location| prefix.before(location)) {
        let moved =
            HeaderValue::try_from(moved).expect("a path of the settings and a header value");
        headers.insert(LOCATION, moved);
    }
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if !kind.starts_with(b"text/html") {
        return response;
    }
    headers.remove(CONTENT_LENGTH);
    // A page is one piece, so no attribute is split.
    response.map(|body| {
        Body::new(body.map_frame(move |frame| frame.map_data(|page| prefix.page(&page))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_addresses_are_moved() {
        let prefix = Prefix("/a/b".into());
        for (address, moved) in [
            ("/jobs", Some("/a/b/jobs")),
            ("/", Some("/a/b/")),
            ("//other.example/", None),
            ("https://store.example/x", None),
            ("jobs", None),
        ] {
            assert_eq!(prefix.before(address).as_deref(), moved, "{address}");
        }
        let page = r##"<a href="/jobs">x</a><a href="#top"><a href="https://e.example/"><p title="/x">
            &quot; href=&quot;/no"##;
        let moved = prefix.page(&Bytes::from_static(page.as_bytes()));
        let expected = page.replace("href=\"/jobs\"", "href=\"/a/b/jobs\"");
        assert_eq!(moved, expected.as_bytes());
    }
}
