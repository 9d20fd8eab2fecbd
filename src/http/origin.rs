//! Determines where a request was sent and which page sent it: `Host`, `Origin`, `Sec-Fetch-Site`,
//! and the headers of proxies.
//!
//! Called by `access` and the inspector's forms. Invariant: these headers are parsed strictly; a
//! form that browsers do not send is never interpreted.

use axum::http::{
    HeaderMap, HeaderName, Method, Version,
    header::{FORWARDED, HOST, ORIGIN, VIA},
    request::Parts,
};

use super::{
    authority::{Authority, Origin, Scheme, is_loopback},
    cookie::Transport,
};
use crate::config::ApiConfig;

/// The browser's statement about the page that made a request; no page can set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers added by proxies, besides those that begin with [`FORWARDED_PREFIX`].
const PROXY_HEADERS: [HeaderName; 9] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("x-original-forwarded-for"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];
const FORWARDED_PREFIX: &str = "x-forwarded";

/// Which page made a request, according to its browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A page of exactly this origin.
    Same,
    Other,
    /// The browser does not say, or the client is not a browser.
    Unknown,
}

/// Decides by `Sec-Fetch-Site`, which browsers send to trustworthy addresses, otherwise by
/// `Origin`.
pub(super) fn origin(headers: &HeaderMap, api: &ApiConfig) -> Site {
    match one(headers, &SEC_FETCH_SITE) {
        One::Text("same-origin") => Site::Same,
        // The user made the request, not a page: a bookmark, the address bar.
        One::Absent | One::Text("none") => by_origin(headers, expected_scheme(headers, api)),
        One::Text(_) | One::Unreadable => Site::Other,
    }
}

/// The scheme by which browsers load our pages. `None` for a loopback address: either is possible.
fn expected_scheme(headers: &HeaderMap, api: &ApiConfig) -> Option<Scheme> {
    match (&api.public_url, Transport::of(headers, api)) {
        (_, Transport::Https) => Some(Scheme::Https),
        (Some(_), Transport::Http) => Some(Scheme::Http),
        (None, Transport::Http) => None,
    }
}

fn by_origin(headers: &HeaderMap, expected: Option<Scheme>) -> Site {
    let origin = match one(headers, &ORIGIN) {
        // A page that hides its referrer hides its origin too.
        One::Absent | One::Text("null") => return Site::Unknown,
        One::Unreadable => return Site::Other,
        One::Text(origin) => origin,
    };
    let One::Text(host) = one(headers, &HOST) else { return Site::Other };
    match (Origin::parse(origin), Authority::parse(host)) {
        (Some(origin), Some(host)) => {
            let is_expected = expected.is_none_or(|scheme| scheme == origin.scheme);
            if is_expected && origin.is_of(&host) { Site::Same } else { Site::Other }
        }
        _ => Site::Other,
    }
}

/// Checks that a request without a key comes from a program or a browser of this machine: it did
/// not pass through a proxy, and it names this machine as its host. A page from another host cannot
/// fake that name (DNS rebinding).
///
/// # Errors
/// The reason for the refusal, in the words for the caller.
pub(super) fn is_from_this_machine(parts: &Parts) -> Result<(), &'static str> {
    if parts.version < Version::HTTP_11 {
        return Err("without an API key, requests come by HTTP/1.1: proxies use HTTP/1.0");
    }
    if parts.headers.keys().any(is_of_proxy) {
        return Err("without an API key, no request that a proxy passes on is answered");
    }
    // The authority in the request line takes precedence over the header.
    let target = parts.uri.authority().is_none_or(|target| is_loopback(target.as_str()));
    match one(&parts.headers, &HOST) {
        One::Text(host) if target && is_loopback(host) => Ok(()),
        _ => Err("without an API key, only requests to localhost are answered"),
    }
}

/// Checks that a request without a key that changes something was not made by a page of another
/// origin.
///
/// # Errors
/// The reason for the refusal, in the words for the caller.
pub(super) fn is_from_no_other_page(parts: &Parts) -> Result<(), &'static str> {
    let headers = &parts.headers;
    let fetched = one(headers, &SEC_FETCH_SITE);
    let is_own_fetch =
        matches!(fetched, One::Absent | One::Text("same-origin") | One::Text("none"));
    // There is no proxy in front, so the request came over http.
    let is_own_origin = match (one(headers, &ORIGIN), one(headers, &HOST)) {
        (One::Absent, _) => true,
        // One of our pages that hides its referrer.
        (One::Text("null"), _) => matches!(fetched, One::Text("same-origin")),
        (One::Text(origin), One::Text(host)) => {
            let (origin, host) = (Origin::parse(origin), Authority::parse(host));
            let origin = origin.filter(|origin| origin.scheme == Scheme::Http);
            origin.zip(host).is_some_and(|(origin, host)| origin.is_of(&host))
        }
        _ => false,
    };
    if is_reading(&parts.method) || (is_own_fetch && is_own_origin) {
        return Ok(());
    }
    Err("without an API key, pages of other origins may not change anything")
}

/// Returns whether the browser says that a page of another site made this request, which changes
/// something.
pub(super) fn is_change_from_another_site(parts: &Parts) -> bool {
    let is_cross_site = match one(&parts.headers, &SEC_FETCH_SITE) {
        One::Absent => false,
        One::Text(site) => site.eq_ignore_ascii_case("cross-site"),
        One::Unreadable => true,
    };
    is_cross_site && !is_reading(&parts.method)
}

pub(super) fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_of_proxy(name: &HeaderName) -> bool {
    name.as_str().starts_with(FORWARDED_PREFIX) || PROXY_HEADERS.contains(name)
}

/// A header that must appear exactly once.
enum One<'a> {
    Absent,
    Text(&'a str),
    /// Present more than once, or not text.
    Unreadable,
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> One<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => One::Absent,
        (Some(value), None) => value.to_str().map_or(One::Unreadable, One::Text),
        (Some(_), Some(_)) => One::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::config::ApiListen;

    type Pairs<'a> = &'a [(&'static str, &'a str)];

    fn parts(method: Method, pairs: Pairs<'_>) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/jobs");
        for (name, value) in pairs {
            request = request.header(*name, value.as_bytes());
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn api(public_url: &str) -> ApiConfig {
        let (listen, public_url) = (ApiListen::Same, public_url.parse().ok());
        ApiConfig { listen, public_url, open_on_loopback: false, keys: Vec::new() }
    }

    fn may_change(pairs: Pairs<'_>) -> bool {
        is_from_no_other_page(&parts(Method::POST, pairs)).is_ok()
    }

    fn is_here(pairs: Pairs<'_>) -> bool {
        is_from_this_machine(&parts(Method::GET, pairs)).is_ok()
    }

    #[test]
    fn a_host_is_this_machine_only_where_it_says_so_exactly() {
        for host in [
            "localhost",
            "localhost:8086",
            "LOCALHOST",
            "LocalHost:1",
            "localhost:65535",
            "127.0.0.1",
            "127.0.0.1:8086",
            "127.8.8.8",
            "127.255.255.254:80",
            "[::1]",
            "[::1]:8086",
            "[0:0:0:0:0:0:0:1]:9",
            "[0000::0001]",
        ] {
            assert!(is_here(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            " ",
            ":",
            ":8086",
            "localhost:",
            "localhost:evil",
            "localhost:80evil",
            "localhost:80:80",
            "localhost: 80",
            "localhost :80",
            "localhost:+80",
            "localhost:-1",
            "localhost:0",
            "localhost:080",
            "localhost:65536",
            "localhost:99999",
            "localhost:184467440737095516",
            "localhost:８０",
            "localhost.",
            "localhost.:8086",
            "localhost..",
            ".localhost",
            "a.localhost",
            "localhost.evil.example",
            "evil.example",
            "localhost,evil.example",
            "localhost evil.example",
            "localhost/evil",
            "localhost\\evil",
            "localhost?x",
            "localhost#x",
            "localhost%00",
            "localhost%2eevil.example",
            "localhost;",
            "user@localhost",
            "localhost@evil.example",
            "localhost:80@evil.example",
            "http://localhost",
            "http://localhost:8086",
            "//localhost",
            "ｌｏｃａｌｈｏｓｔ",
            "locaⅼhost",
            "löcalhost",
            "xn--lcalhost-n4a",
            "0",
            "0.0.0.0",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "127.0.0.01",
            "0127.0.0.1",
            "0177.0.0.1",
            "0x7f.0.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.0.0.1.nip.io",
            "127.0.0.1:8086.evil.example",
            "127.0.0.256",
            "128.0.0.1",
            "10.0.0.1:8086",
            "１２７.0.0.1",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[::1]evil",
            "[::1]:",
            "[::1]:evil",
            "[::1]80",
            "[::1].",
            "[::1%25lo]",
            "[::1%lo]",
            "[::]",
            "[::2]",
            "[127.0.0.1]",
            "[localhost]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[[::1]]",
            "evil[::1]",
        ] {
            assert!(!is_here(&[("host", host)]), "{host:?}");
        }
        assert!(!is_here(&[]), "a request that names no host");
        assert!(!is_here(&[("host", "localhost"), ("host", "localhost")]), "one that names two");
        assert!(!is_here(&[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn the_address_in_the_request_line_counts_too() {
        let mut parts = parts(Method::GET, &[("host", "localhost")]);
        for (uri, is_here) in [
            ("http://localhost:8086/v1/jobs", true),
            ("http://127.0.0.1/v1/jobs", true),
            ("http://evil.example/v1/jobs", false),
            ("http://user@localhost/v1/jobs", false),
        ] {
            parts.uri = uri.parse().expect("a target");
            assert_eq!(is_from_this_machine(&parts).is_ok(), is_here, "{uri}");
        }
    }

    #[test]
    fn what_a_proxy_passes_on_is_not_from_this_machine() {
        for header in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-ssl",
            "x-forwarded-anything",
            "x-forwarded",
            "x-real-ip",
            "via",
            "x-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "x-original-forwarded-for",
        ] {
            for value in ["", "127.0.0.1", "1.1 proxy"] {
                assert!(!is_here(&[("host", "localhost"), (header, value)]), "{header}: {value}");
            }
        }
        let mut parts = parts(Method::GET, &[("host", "localhost")]);
        for (version, is_here) in
            [(Version::HTTP_09, false), (Version::HTTP_10, false), (Version::HTTP_11, true)]
        {
            parts.version = version;
            assert_eq!(is_from_this_machine(&parts).is_ok(), is_here, "{version:?}");
        }
    }

    #[test]
    fn an_origin_is_ours_only_where_it_says_so_exactly() {
        let host = ("host", "localhost:8086");
        assert!(may_change(&[host, ("origin", "http://localhost:8086")]));
        assert!(may_change(&[("host", "localhost"), ("origin", "http://localhost")]));
        assert!(may_change(&[("host", "localhost:80"), ("origin", "http://localhost")]));
        assert!(may_change(&[("host", "[::1]:8086"), ("origin", "http://[::1]:8086")]));
        assert!(may_change(&[host]), "no browser");
        for origin in [
            "",
            "null",
            "http://",
            "localhost:8086",
            "//localhost:8086",
            "http:localhost:8086",
            "http:/localhost:8086",
            "http:///localhost:8086",
            "https://localhost:8086",
            "ftp://localhost:8086",
            "file://localhost:8086",
            "chrome-extension://localhost:8086",
            "HTTP://localhost:8086",
            "http://localhost",
            "http://localhost:80",
            "http://localhost:3000",
            "http://localhost:8086/",
            "http://localhost:8086/path",
            "http://localhost:8086?x",
            "http://localhost:8086#x",
            "http://localhost:8086 http://evil.example",
            "http://evil.example http://localhost:8086",
            "http://localhost:8086,http://evil.example",
            "http://user@localhost:8086",
            "http://user:password@localhost:8086",
            "http://localhost:8086@evil.example",
            "http://localhost:evil",
            "http://localhost:",
            "http://localhost.:8086",
            "http://localhost:08086",
            "http://localhost:8086.evil.example",
            "http://127.0.0.1:8086",
            "http://[::1]:8086",
            "http://127.1:8086",
            "http://ｌocalhost:8086",
            "http://evil.example",
            "http://evil.example:8086",
        ] {
            assert!(!may_change(&[host, ("origin", origin)]), "{origin:?}");
            assert!(
                is_from_no_other_page(&parts(Method::GET, &[host, ("origin", origin)])).is_ok()
            );
        }
        let ours = ("origin", "http://localhost:8086");
        assert!(!may_change(&[host, ours, ours]), "two origins");
        assert!(!may_change(&[host, host, ours]), "two hosts");
        assert!(!may_change(&[ours]), "no host");
    }

    #[test]
    fn a_foreign_page_that_its_browser_names_changes_nothing_whatever_else_it_says() {
        let (host, ours) = (("host", "localhost:8086"), ("origin", "http://localhost:8086"));
        let site = |value| ("sec-fetch-site", value);
        for value in ["cross-site", "same-site", "Cross-Site", "Same-Origin", "", "other"] {
            assert!(!may_change(&[host, site(value)]), "{value}");
            assert!(!may_change(&[host, ours, site(value)]), "{value}");
            assert!(!may_change(&[host, ours, site("same-origin"), site(value)]), "{value}");
            assert_eq!(
                origin(&parts(Method::POST, &[host, ours, site(value)]).headers, &api("")),
                Site::Other
            );
        }
        assert!(may_change(&[host, ours, site("same-origin")]));
        assert!(may_change(&[host, site("none")]));
        assert!(may_change(&[host, ("origin", "null"), site("same-origin")]));
        assert!(!may_change(&[host, ("origin", "null"), site("none")]));
        assert!(!may_change(&[host, ("origin", "null"), site("cross-site")]));
        assert!(!may_change(&[host, ("origin", "http://evil.example"), site("same-origin")]));
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
            let request = parts(method, &[host, site("cross-site")]);
            assert!(is_from_no_other_page(&request).is_err(), "{request:?}");
        }
    }

    #[test]
    fn a_browser_s_own_word_on_the_site_outweighs_the_origin() {
        let of = |pairs: Pairs<'_>| origin(&parts(Method::POST, pairs).headers, &api(""));
        let ours = ("origin", "https://finishline.example");
        let (host, site) = (("host", "finishline.example"), "sec-fetch-site");
        assert_eq!(of(&[host, ours]), Site::Same);
        assert_eq!(of(&[("host", "finishline.example:443"), ours]), Site::Same);
        assert_eq!(of(&[("host", "finishline.example:80"), ours]), Site::Other);
        assert_eq!(of(&[("host", "inner:8086"), ours]), Site::Other);
        assert_eq!(of(&[("host", "inner:8086"), ours, (site, "same-origin")]), Site::Same);
        assert_eq!(of(&[host, ours, (site, "cross-site")]), Site::Other);
        assert_eq!(of(&[host, ours, (site, "none")]), Site::Same);
        assert_eq!(of(&[host, ("origin", "null")]), Site::Unknown);
        assert_eq!(of(&[host]), Site::Unknown);
        assert_eq!(of(&[host, ours, ours]), Site::Other);
        assert_eq!(of(&[ours]), Site::Other);
    }

    #[test]
    fn a_page_of_another_scheme_is_another_site() {
        let (http, https) = ("http://portal.example", "https://portal.example");
        for (public_url, host, expected) in [
            (https, "portal.example", Some(https)),
            (http, "portal.example", Some(http)),
            // No public URL: plain http is for loopback only.
            ("", "portal.example", Some(https)),
            (https, "localhost:8086", Some("https://localhost:8086")),
            (http, "localhost:8086", Some("http://localhost:8086")),
            ("", "localhost:8086", None),
        ] {
            let authority = host;
            for scheme in ["http", "https"] {
                let page = format!("{scheme}://{authority}");
                let parts = parts(Method::POST, &[("host", host), ("origin", &page)]);
                let is_ours = expected.is_none_or(|expected| expected == page);
                let site = if is_ours { Site::Same } else { Site::Other };
                assert_eq!(origin(&parts.headers, &api(public_url)), site, "{public_url} {page}");
            }
        }
    }
}
