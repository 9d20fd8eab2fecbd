//! Sessions: an API key's holder in a browser, kept in a cookie that proves itself.
//!
//! Opened by the inspector's sign-in, honoured by `access` wherever a key is. The invariants: a
//! session is worth no more and lives no longer than its key; the key cannot be told from it; and
//! one that was signed out is over at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, header::COOKIE};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use crate::{clock, config::ApiKeyConfig};

/// A working day and some more.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Behind https, the prefix makes browsers take it from this very host only.
const SECURE_COOKIE: &str = "__Host-finishline_session";
const PLAIN_COOKIE: &str = "finishline_session";

/// Keep what is signed here apart from callback addresses, which are signed under the same key.
const SESSION_PREFIX: &[u8] = b"finishline-session:";
const FORM_PREFIX: &[u8] = b"finishline-form:";

/// Random bytes that tell two sessions of the same second apart.
const NONCE_BYTES: usize = 12;

/// How a session's cookie may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Https,
    /// A laptop, or a private network.
    Http,
}

/// Cheap to clone; clones know the same signed-out sessions.
#[derive(Clone)]
pub struct Sessions {
    signing_key: [u8; 32],
    /// Proofs of sessions that were signed out, until they would have ended anyway. Only genuine
    /// ones get here, so it does not grow by itself.
    signed_out: Arc<Mutex<BTreeMap<Vec<u8>, Timestamp>>>,
}

impl Sessions {
    /// Sessions under the instance's key.
    pub fn new(signing_key: [u8; 32]) -> Self {
        Self { signing_key, signed_out: Arc::default() }
    }

    /// The `Set-Cookie` of a new session.
    pub(super) fn open(
        &self,
        key: &ApiKeyConfig,
        now: Timestamp,
        transport: Transport,
    ) -> HeaderValue {
        let ends_at = clock::add(now, LIFETIME).as_second();
        let nonce = URL_SAFE_NO_PAD.encode(rand::random::<[u8; NONCE_BYTES]>());
        let claim = format!("{}.{ends_at}.{nonce}", URL_SAFE_NO_PAD.encode(&key.name));
        let proof = URL_SAFE_NO_PAD.encode(self.mac(key, &claim).finalize().into_bytes());
        cookie(transport, &format!("{claim}.{proof}"), LIFETIME)
    }

    /// The key that opened the session a request belongs to, while it lasts.
    pub(super) fn key_of<'a>(
        &self,
        headers: &HeaderMap,
        keys: &'a [ApiKeyConfig],
        now: Timestamp,
    ) -> Option<&'a ApiKeyConfig> {
        let (key, proof, _) = self.read(token(headers)?, keys, now)?;
        (!self.signed_out().contains_key(&proof)).then_some(key)
    }

    /// Ends a request's session for good.
    pub(super) fn end(&self, headers: &HeaderMap, keys: &[ApiKeyConfig], now: Timestamp) {
        let session = token(headers).and_then(|token| self.read(token, keys, now));
        let Some((_, proof, ends_at)) = session else { return };
        let mut signed_out = self.signed_out();
        signed_out.retain(|_, ends_at| *ends_at > now);
        signed_out.insert(proof, ends_at);
    }

    /// What a form must hold to be one of ours in this session (or in none).
    pub(super) fn form_token(&self, headers: &HeaderMap) -> String {
        let mac = keyed(&self.signing_key).chain_update(FORM_PREFIX);
        let mac = mac.chain_update(token(headers).unwrap_or_default());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Whether a form holds [`Self::form_token`].
    pub(super) fn is_form_token(&self, headers: &HeaderMap, given: &str) -> bool {
        let mac = keyed(&self.signing_key).chain_update(FORM_PREFIX);
        let mac = mac.chain_update(token(headers).unwrap_or_default());
        URL_SAFE_NO_PAD.decode(given).is_ok_and(|given| mac.verify_slice(&given).is_ok())
    }

    /// Key, proof and end of a session that is genuine and not over.
    fn read<'a>(
        &self,
        token: &str,
        keys: &'a [ApiKeyConfig],
        now: Timestamp,
    ) -> Option<(&'a ApiKeyConfig, Vec<u8>, Timestamp)> {
        let (claim, proof) = token.rsplit_once('.')?;
        let mut parts = claim.split('.');
        let name = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let ends_at = Timestamp::from_second(parts.next()?.parse().ok()?).ok()?;
        let key = keys.iter().find(|key| key.name.as_bytes() == name)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
        self.mac(key, claim).verify_slice(&proof).ok()?;
        (ends_at > now).then_some((key, proof, ends_at))
    }

    /// The key's digest is part of what signs: another key under the same name ends the session.
    fn mac(&self, key: &ApiKeyConfig, claim: &str) -> Hmac<Sha256> {
        keyed(&self.signing_key)
            .chain_update(SESSION_PREFIX)
            .chain_update(key.digest)
            .chain_update(claim)
    }

    fn signed_out(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Timestamp>> {
        // Each change is one call, so a panic elsewhere leaves nothing half done.
        self.signed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `Set-Cookie`s that make a browser forget its session.
pub(super) fn forget() -> [HeaderValue; 2] {
    [Transport::Https, Transport::Http].map(|transport| cookie(transport, "", Duration::ZERO))
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn cookie(transport: Transport, value: &str, lifetime: Duration) -> HeaderValue {
    let (name, secure) = match transport {
        Transport::Https => (SECURE_COOKIE, "; Secure"),
        Transport::Http => (PLAIN_COOKIE, ""),
    };
    let seconds = lifetime.as_secs();
    let text =
        format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::try_from(text).expect("base64url, dots and our own words are a header value")
}

/// A request's session, genuine or not; the one that only this host can have set goes first.
fn token(headers: &HeaderMap) -> Option<&str> {
    let find = |name: &str| {
        let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = values.flat_map(|value| value.split(';'));
        pairs.find_map(|pair| {
            let (given, value) = pair.split_once('=')?;
            (given.trim() == name && !value.is_empty()).then(|| value.trim())
        })
    };
    find(SECURE_COOKIE).or_else(|| find(PLAIN_COOKIE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scope;

    const NOW: i64 = 1_800_000_000;

    fn key(name: &str, digest: u8) -> ApiKeyConfig {
        ApiKeyConfig { name: name.into(), digest: [digest; 32], scopes: vec![Scope::Read] }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn sent_back(cookie: &HeaderValue) -> HeaderMap {
        let text = cookie.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        HeaderMap::from_iter([(COOKIE, text.parse().expect("a value"))])
    }

    #[test]
    fn a_session_stands_for_its_very_key_until_it_ends() {
        let sessions = Sessions::new([1; 32]);
        let keys = [key("a", 1), key("b", 2)];
        let headers = sent_back(&sessions.open(&keys[1], at(NOW), Transport::Http));
        let name = |sessions: &Sessions, keys: &[ApiKeyConfig], second| {
            sessions.key_of(&headers, keys, at(second)).map(|key| key.name.clone())
        };
        let hours = |hours: i64| NOW + hours * 3600;
        assert_eq!(name(&sessions, &keys, hours(11)).as_deref(), Some("b"));
        assert_eq!(name(&sessions, &keys, hours(12)), None, "it ends");
        assert_eq!(name(&sessions, &keys[..1], NOW), None, "its key was taken away");
        assert_eq!(name(&sessions, &[key("b", 3)], NOW), None, "its key was changed");
        assert_eq!(name(&Sessions::new([2; 32]), &keys, NOW), None, "another instance's");
        sessions.end(&headers, &keys, at(NOW));
        assert_eq!(name(&sessions, &keys, NOW), None, "signed out");
    }

    #[test]
    fn a_session_that_was_tampered_with_is_none() {
        let sessions = Sessions::new([1; 32]);
        let keys = [key("a", 1)];
        let genuine = sessions.open(&keys[0], at(NOW), Transport::Https);
        let text = genuine.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        for at_byte in text.find('=').expect("a pair") + 1..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at_byte] = if changed[at_byte] == b'B' { b'C' } else { b'B' };
            if changed == text.as_bytes() {
                continue;
            }
            let value = HeaderValue::from_bytes(&changed).expect("a value");
            let headers = HeaderMap::from_iter([(COOKIE, value)]);
            // The last character of base64 may hold bits that are not read.
            let is_last = at_byte == text.len() - 1;
            assert!(is_last || sessions.key_of(&headers, &keys, at(NOW)).is_none(), "{at_byte}");
        }
        assert!(sessions.key_of(&sent_back(&genuine), &keys, at(NOW)).is_some());
    }

    #[test]
    fn a_form_is_good_in_its_own_session_only() {
        let sessions = Sessions::new([1; 32]);
        let [one, other] =
            [1, 2].map(|digest| sessions.open(&key("a", digest), at(NOW), Transport::Http));
        let token = sessions.form_token(&sent_back(&one));
        assert!(sessions.is_form_token(&sent_back(&one), &token));
        assert!(!sessions.is_form_token(&sent_back(&other), &token));
        assert!(!sessions.is_form_token(&HeaderMap::new(), &token));
        assert!(!sessions.is_form_token(&sent_back(&one), ""));
    }

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        let sessions = Sessions::new([1; 32]);
        let plain = sessions.open(&key("a", 1), at(NOW), Transport::Http);
        let plain = plain.to_str().expect("text").to_owned();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
            assert!(plain.contains(part), "{plain}");
        }
        assert!(!plain.contains("Secure"));
        let secure = sessions.open(&key("a", 1), at(NOW), Transport::Https);
        let secure = secure.to_str().expect("text");
        assert!(secure.starts_with("__Host-") && secure.ends_with("; Secure"), "{secure}");
    }
}
