//! Links from outside: which of them may be shown, when a pre-signed one expires, and which headers
//! a request to it must carry.
//!
//! Expiry and headers are read from the query only, where the signatures of S3, Google and Azure
//! put them: the host is no help, because the same storages answer under any name. Whether a link
//! is followed is decided by the guard of `outbound`, which also checks addresses.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{bounds::MAX_LINK_BYTES, time};

/// Headers that the transfer sets itself; a caller's values are ignored.
const OWN_HEADERS: [&str; 2] = ["host", "content-length"];

/// Headers that are never passed on, even if a link signs them: they concern only the caller and
/// us.
const NEVER_PASSED_ON: [&str; 10] = [
    "authorization",
    "connection",
    "cookie",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of object stores; they change what is stored, and the caller may choose them.
const STORAGE_PREFIXES: [&str; 3] = ["x-amz-", "x-goog-", "x-ms-"];

/// Query parameters that list the headers a signature covers.
const SIGNED_HEADERS: [&str; 2] = ["x-amz-signedheaders", "x-goog-signedheaders"];

/// Whether a link may be shown: http or https, and without user name or password for any URL
/// parser. Some parsers take a backslash for a slash, others for a part of the user name.
pub fn is_shown(link: &str) -> bool {
    if link.len() > MAX_LINK_BYTES || link.chars().any(char::is_control) {
        return false;
    }
    let Some((scheme, rest)) = link.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        || authority.contains(['@', '\\'])
    {
        return false;
    }
    // Parsed as well, because `https:///user@host` has an empty authority only for some parsers.
    Url::parse(link)
        .is_ok_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
}

/// What a link requires of requests to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkTerms {
    /// Names of the headers that the signature covers and the caller must provide, in lower case.
    pub signed_headers: BTreeSet<String>,
    /// Whether it is a shared access signature of Azure's storage.
    pub is_sas: bool,
}

impl LinkTerms {
    /// Reads the query of a link.
    pub fn of(url: &Url) -> Self {
        let mut signed_headers = BTreeSet::new();
        let (mut has_signature, mut has_version) = (false, false);
        for (name, value) in url.query_pairs() {
            let name = name.to_ascii_lowercase();
            if SIGNED_HEADERS.contains(&name.as_str()) {
                let names = value.split(';').map(|name| name.trim().to_ascii_lowercase());
                let given =
                    names.filter(|name| !name.is_empty() && !OWN_HEADERS.contains(&name.as_str()));
                signed_headers.extend(given);
            }
            has_signature |= name == "sig" && !value.is_empty();
            has_version |= matches!(name.as_str(), "sv" | "se" | "sp");
        }
        Self { signed_headers, is_sas: has_signature && has_version }
    }

    /// Whether a caller's header is passed on to the storage.
    pub fn passes_on(&self, name: &str) -> bool {
        let is_asked_for = self.signed_headers.contains(name)
            || name == "content-md5"
            || STORAGE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        is_asked_for && can_be_passed_on(name)
    }
}

/// Whether a header of this name may be sent to a storage at all.
pub fn can_be_passed_on(name: &str) -> bool {
    !NEVER_PASSED_ON.contains(&name)
        && !OWN_HEADERS.contains(&name)
        && !name.starts_with("finishline-")
}

/// Removes the credentials of a link from a text that may repeat them.
pub fn hide(url: &Url, text: &str) -> String {
    const NAMES: [&str; 6] = ["sig", "token", "credential", "key", "policy", "secret"];
    let mut text = text.to_owned();
    for (name, value) in url.query_pairs() {
        let name = name.to_ascii_lowercase();
        if !value.is_empty() && NAMES.iter().any(|known| name.contains(known)) {
            text = text.replace(&*value, "[redacted]");
        }
    }
    text
}

/// When a pre-signed link expires: S3's `X-Amz-Date` with `X-Amz-Expires` (Google and others with
/// their own prefix), Azure's `se`, Tencent's `q-sign-time`, or the time itself in `Expires`,
/// `temp_url_expires` and similar: seconds or milliseconds since 1970, or a written date.
pub fn expiry(link: &str) -> Option<Timestamp> {
    let url = Url::parse(link).ok()?;
    let value = |wanted: &str| {
        let mut pairs = url.query_pairs();
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    if let Some(end) = value("se").and_then(|end| sas_time(&end)) {
        return Some(end);
    }
    for prefix in ["x-amz", "x-goog", "x-oss", "x-obs", "x-tos"] {
        if let (Some(date), Some(seconds)) =
            (value(&format!("{prefix}-date")), value(&format!("{prefix}-expires")))
        {
            // The basic form of ISO 8601, as in 20260301T120000Z.
            let signed: Timestamp = date.parse().ok()?;
            return signed.checked_add(SignedDuration::from_secs(seconds.parse().ok()?)).ok();
        }
    }
    if let Some(window) = value("q-sign-time") {
        return instant(window.split(';').nth(1)?);
    }
    ["expires", "temp_url_expires", "x-expires"].iter().find_map(|name| instant(&value(name)?))
}

/// Seconds or milliseconds since 1970, RFC 3339 or an HTTP date.
fn instant(text: &str) -> Option<Timestamp> {
    /// From this number on the unit is milliseconds (as seconds it would be the year 5138).
    const FIRST_MILLIS: i64 = 100_000_000_000;
    let text = text.trim();
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    match whole.parse::<i64>() {
        Ok(millis) if millis >= FIRST_MILLIS => Timestamp::from_millisecond(millis).ok(),
        Ok(seconds) => Timestamp::from_second(seconds).ok(),
        Err(_) => {
            sas_time(text).or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))
        }
    }
}

/// `2026-03-01T12:10:00Z`, and Azure's shorter forms: without seconds, or the date alone.
fn sas_time(text: &str) -> Option<Timestamp> {
    let local = text.trim_end_matches('Z');
    let forms = [text.to_owned(), format!("{local}:00Z"), format!("{local}T00:00:00Z")];
    forms.iter().find_map(|form| time::parse(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(link: &str) -> LinkTerms {
        LinkTerms::of(&Url::parse(link).expect("a link"))
    }

    #[test]
    fn the_end_of_a_link_is_read_from_every_kind_of_signature() {
        let end: Timestamp = "2026-03-01T12:10:00Z".parse().expect("a time");
        for link in [
            "https://b.s3.amazonaws.com/x?X-Amz-Date=20260301T120000Z&X-Amz-Expires=600&X-Amz-Signature=a",
            "https://storage.googleapis.com/x?X-Goog-Date=20260301T120000Z&X-Goog-Expires=600",
            "https://a.blob.core.windows.net/x?sp=r&se=2026-03-01T12%3A10%3A00Z&sig=a",
            "https://a.blob.core.windows.net/x?sp=r&se=2026-03-01T12:10Z&sig=a",
            "https://swift.example/x?temp_url_sig=a&temp_url_expires=1772367000",
            "https://b.s3.amazonaws.com/x?AWSAccessKeyId=a&Expires=1772367000&Signature=a",
        ] {
            assert_eq!(expiry(link), Some(end), "{link}");
        }
        for link in ["https://x/y", "https://x/y?Expires=soon", "https://x/y?se=", "x"] {
            assert_eq!(expiry(link), None, "{link}");
        }
    }

    #[test]
    fn a_shared_access_signature_is_known_by_its_query_whatever_its_host() {
        for (link, is_sas) in [
            ("https://a.blob.core.windows.net/x?sv=2024-11-04&se=2026-03-01&sig=a", true),
            ("https://files.clinic.example/x?sv=2024-11-04&si=policy&sig=a", true),
            ("http://127.0.0.1:10000/devstoreaccount1/x?SE=2026-03-01&SIG=a", true),
            ("https://a.blob.core.windows.net/x", false),
            ("https://s3.example/sig/x?X-Amz-Signature=a&se=1", false),
            ("https://s3.example/x?sig=&sv=1", false),
            ("https://s3.example/x?signature=a&expires=1", false),
        ] {
            assert_eq!(terms(link).is_sas, is_sas, "{link}");
        }
    }

    #[test]
    fn what_a_link_signs_and_what_is_a_storage_s_own_is_passed_on() {
        let link =
            "https://b.example/x?X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-acl%3Bcookie";
        let signed = terms(link);
        let names: Vec<_> = signed.signed_headers.iter().map(String::as_str).collect();
        assert_eq!(names, ["content-type", "cookie", "x-amz-acl"]);
        for (name, passes) in [
            ("content-type", true),
            ("x-amz-acl", true),
            ("x-amz-meta-case", true),
            ("x-goog-content-length-range", true),
            ("x-ms-meta-a", true),
            ("content-md5", true),
            ("cache-control", false),
            ("cookie", false),
            ("authorization", false),
            ("host", false),
            ("content-length", false),
        ] {
            assert_eq!(signed.passes_on(name), passes, "{name}");
        }
    }

    #[test]
    fn an_end_is_read_in_every_storage_s_spelling() {
        for query in [
            "X-Obs-Date=20200101T000000Z&X-Obs-Expires=60",
            "X-Tos-Date=20200101T000000Z&X-Tos-Expires=60",
            "se=never&X-Amz-Date=20200101T000000Z&X-Amz-Expires=60",
            "q-sign-time=1577836800%3B1577836860",
            "Expires=1577836860",
            "Expires=1577836860.75",
            "expires=1577836860000",
            "expires=2020-01-01T00:01:00Z",
            "Expires=Wed,%2001%20Jan%202020%2000:01:00%20GMT",
        ] {
            let end = expiry(&format!("https://s.example/x?{query}")).map(time::render);
            assert_eq!(end.as_deref(), Some("2020-01-01T00:01:00.000Z"), "{query}");
        }
        for query in ["", "expires=soon", "X-Amz-Date=20200101T000000Z&X-Amz-Expires=9e99"] {
            assert_eq!(expiry(&format!("https://s.example/x?{query}")), None, "{query}");
        }
    }

    #[test]
    fn only_web_links_without_a_user_name_are_shown() {
        for link in [
            "https://s.example/a.stl?X-Amz-Signature=a@b",
            "HTTP://s.example",
            "http://127.0.0.1:9/x#y@z",
            "https://s.example/a b",
        ] {
            assert!(is_shown(link), "{link}");
        }
        for link in [
            "",
            "s.example/a",
            "//s.example/a",
            "ftp://s.example/a",
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "https://user@s.example/a",
            "https://user:word@s.example/a",
            "https://:word@s.example/a",
            "https://@s.example/a",
            "https:user@s.example",
            "https:///user@s.example/a",
            "https:\\\\user@s.example",
            "https://s.example\\@evil.example/",
            "ht\ntps://s.example/a",
            "https://s.example/\r\nx: y",
            "https://",
            " https://s.example/a",
        ] {
            assert!(!is_shown(link), "{link:?}");
        }
        let long = format!("https://s.example/{}", "a".repeat(MAX_LINK_BYTES));
        assert!(!is_shown(&long));
    }
}
