//! The cookies of the pages: how they are sent, set, found and removed.
//!
//! Invariant: whether a cookie is for https only is decided by the settings or by the requested
//! host, never by a header that anyone can set.

use std::time::Duration;

use axum::http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, HOST},
};

use super::authority::is_loopback;
use crate::config::ApiConfig;

/// Over which transport a cookie may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    /// A laptop, or a private network.
    Http,
}

impl Transport {
    /// Decided by `api.public_url`; if that is unset, plain http is for loopback only.
    pub(super) fn of(headers: &HeaderMap, config: &ApiConfig) -> Self {
        let is_plain = match &config.public_url {
            Some(url) => url.scheme() == "http",
            None => {
                let host = headers.get(HOST).and_then(|host| host.to_str().ok());
                host.is_some_and(is_loopback)
            }
        };
        if is_plain { Self::Http } else { Self::Https }
    }
}

/// A cookie and its name on each transport.
pub(super) struct Cookie {
    /// For https: the prefix makes browsers accept it from this exact host only.
    secure: &'static str,
    plain: &'static str,
    /// Controls whether the browser sends it when following a link from another site.
    same_site: &'static str,
}

/// The session. Pages of other sites never send it.
pub(super) const SESSION: Cookie = Cookie {
    secure: "__Host-finishline_session",
    plain: "finishline_session",
    same_site: "Strict",
};

/// Identifies the browser that was shown a sign-in form. It is `Lax`, because a link on another
/// site may lead to the form and must not make the browser look like a different one; a form on
/// another site does not send it.
pub(super) const BROWSER: Cookie =
    Cookie { secure: "__Host-finishline_browser", plain: "finishline_browser", same_site: "Lax" };

impl Cookie {
    /// The `Set-Cookie` header for it; without a `lifetime` the browser drops it when it is closed.
    pub(super) fn set(
        &self,
        transport: Transport,
        value: &str,
        lifetime: Option<Duration>,
    ) -> HeaderValue {
        let (name, secure) = match transport {
            Transport::Https => (self.secure, "; Secure"),
            Transport::Http => (self.plain, ""),
        };
        let same_site = self.same_site;
        let mut text = format!("{name}={value}; HttpOnly; SameSite={same_site}; Path=/{secure}");
        if let Some(lifetime) = lifetime {
            text += &format!("; Max-Age={}", lifetime.as_secs());
        }
        HeaderValue::try_from(text).expect("base64url, dots and our own words are a header value")
    }

    /// The `Set-Cookie` headers that make a browser drop it, one for each transport.
    pub(super) fn forget(&self) -> [HeaderValue; 2] {
        [Transport::Https, Transport::Http]
            .map(|transport| self.set(transport, "", Some(Duration::ZERO)))
    }

    /// Its value in a request. Behind https only the prefixed name counts: browsers accept the
    /// plain one from other hosts of the domain and over plain http too.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap, transport: Transport) -> Option<&'a str> {
        let find = |name: &str| {
            let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = values.flat_map(|value| value.split(';'));
            pairs.find_map(|pair| {
                let (given, value) = pair.split_once('=')?;
                (given.trim() == name && !value.is_empty()).then(|| value.trim())
            })
        };
        match transport {
            Transport::Https => find(self.secure),
            Transport::Http => find(self.secure).or_else(|| find(self.plain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        let lifetime = Some(Duration::from_secs(43_200));
        let plain = SESSION.set(Transport::Http, "x", lifetime);
        let plain = plain.to_str().expect("text");
        for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
            assert!(plain.contains(part), "{plain}");
        }
        assert!(!plain.contains("Secure"));
        let secure = SESSION.set(Transport::Https, "x", lifetime);
        let secure = secure.to_str().expect("text");
        assert!(secure.starts_with("__Host-") && secure.contains("; Secure"), "{secure}");
    }

    #[test]
    fn behind_https_the_plain_name_does_not_count() {
        let found = |cookies: &str, transport| {
            let headers = HeaderMap::from_iter([(COOKIE, cookies.parse().expect("a value"))]);
            SESSION.find(&headers, transport).map(str::to_owned)
        };
        let both = "finishline_session=planted; __Host-finishline_session=ours";
        assert_eq!(found("finishline_session=planted", Transport::Https), None);
        assert_eq!(found("finishline_session=ours", Transport::Http).as_deref(), Some("ours"));
        for transport in [Transport::Https, Transport::Http] {
            assert_eq!(found(both, transport).as_deref(), Some("ours"));
        }
    }
}
