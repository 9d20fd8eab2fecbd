//! Links that came from outside: which of them may be shown.
//!
//! Decided here for JSON and pages alike. Whether a link is followed is decided by the guard of
//! `outbound`, which looks at addresses too.

use url::Url;

use super::bounds::MAX_LINK_BYTES;

/// Whether a link may be shown: http or https, and no user name or password, for any reader of
/// URLs. Some take a backslash for a slash, others for a part of the user name.
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
    // Parsed too, since `https:///user@host` has an empty authority for one reader and not for the
    // other.
    Url::parse(link)
        .is_ok_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
}

#[cfg(test)]
mod tests {
    use super::is_shown;

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
        let long = format!("https://s.example/{}", "a".repeat(super::MAX_LINK_BYTES));
        assert!(!is_shown(&long));
    }
}
