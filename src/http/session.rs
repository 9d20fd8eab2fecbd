//! Sessions: the holder of an API key in a browser, kept in a signed cookie.
//!
//! Opened by the inspector's sign-in, accepted by `access` wherever a key is. The cookie holds the
//! key's name, when the session ends, when it was last used, and an id. It is renewed as pages are
//! used; between two renewals, and for browsers that keep the old one, this process remembers the
//! last use. Invariants: a session has no more rights and no longer life than its key; the key
//! cannot be derived from it; a session that was signed out ends at once and for good.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use tokio::sync::watch;

use super::cookie::{BROWSER, SESSION, Transport};
use crate::{
    clock::{self, Clock},
    config::{ApiConfig, ApiKeyConfig},
    store::SignedOut,
};

/// A working day and some more.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// A session that is unused for this long ends.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// A cookie whose recorded use is this old is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(5 * 60);

/// Longest sleep while waiting for a session's end, since the system's clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Sessions whose last use is remembered here; for others, only the cookie's last use counts.
const MAX_REMEMBERED: usize = 10_000;

/// Keep these signatures apart from those of callback addresses, which use the same key.
const SESSION_PREFIX: &[u8] = b"finishline-session-2:";
const SESSION_FORM_PREFIX: &[u8] = b"finishline-form-of-session:";
const BROWSER_FORM_PREFIX: &[u8] = b"finishline-form-of-browser:";

/// A session's id: random bytes.
pub(super) type SessionId = [u8; 16];

/// Cheap to clone; clones know the same sessions.
#[derive(Clone)]
pub struct Sessions {
    signing_key: [u8; 32],
    memory: Arc<Mutex<Memory>>,
    /// Notified of every sign-out.
    sign_outs: watch::Sender<u64>,
}

#[derive(Default)]
struct Memory {
    /// Kept until they would have ended anyway. Only genuine sessions get here, so forged cookies
    /// do not make it grow.
    signed_out: BTreeMap<SessionId, Timestamp>,
    used_at: HashMap<SessionId, Timestamp>,
}

/// A session that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session<'a> {
    pub(super) key: &'a ApiKeyConfig,
    pub(super) standing: Standing,
}

/// The values that determine when a session ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) id: SessionId,
    ends_at: Timestamp,
    /// As recorded in its cookie; this process may know of a later use.
    used_at: Timestamp,
}

impl Sessions {
    /// Sessions under the instance's key; `signed_out` are the recorded sign-outs.
    pub fn new(signing_key: [u8; 32], signed_out: Vec<SignedOut>) -> Self {
        let signed_out = signed_out.into_iter().map(|one| (one.session, one.ends_at)).collect();
        let memory = Memory { signed_out, used_at: HashMap::new() };
        let memory = Arc::new(Mutex::new(memory));
        Self { signing_key, memory, sign_outs: watch::Sender::new(0) }
    }

    /// The `Set-Cookie` of a new session.
    pub(super) fn open(
        &self,
        key: &ApiKeyConfig,
        now: Timestamp,
        transport: Transport,
    ) -> HeaderValue {
        let ends_at = clock::add(now, LIFETIME);
        self.cookie(key, Standing { id: rand::random(), ends_at, used_at: now }, transport)
    }

    /// The request's session, if it has not ended. This alone does not count as a use.
    pub(super) fn current<'a>(
        &self,
        headers: &HeaderMap,
        api: &'a ApiConfig,
        now: Timestamp,
    ) -> Option<Session<'a>> {
        let cookie = SESSION.find(headers, Transport::of(headers, api))?;
        let session = self.read(cookie, &api.keys)?;
        (self.lasts_until(session.standing)? > now).then_some(session)
    }

    /// Records a use.
    pub(super) fn touch(&self, standing: Standing, now: Timestamp) {
        let mut memory = self.memory();
        if memory.used_at.len() >= MAX_REMEMBERED && !memory.used_at.contains_key(&standing.id) {
            memory.used_at.retain(|_, used_at| clock::add(*used_at, IDLE) > now);
            if memory.used_at.len() >= MAX_REMEMBERED {
                return;
            }
        }
        memory.used_at.insert(standing.id, now);
    }

    /// The `Set-Cookie` with a session's last use, if the browser's cookie is too old.
    pub(super) fn renewed(
        &self,
        session: Session<'_>,
        now: Timestamp,
        transport: Transport,
    ) -> Option<HeaderValue> {
        let Session { key, standing } = session;
        let used_at = self.used_at(standing);
        let is_due = clock::add(standing.used_at, RENEW_AFTER) <= used_at;
        // A session that was signed out meanwhile gets no cookie.
        (is_due && self.lasts_until(standing)? > now)
            .then(|| self.cookie(key, Standing { used_at, ..standing }, transport))
    }

    /// Ends a request's session for this process, and returns the sign-out to record.
    pub(super) fn end(
        &self,
        headers: &HeaderMap,
        api: &ApiConfig,
        now: Timestamp,
    ) -> Option<SignedOut> {
        let Standing { id, ends_at, .. } = self.current(headers, api, now)?.standing;
        let mut memory = self.memory();
        memory.signed_out.retain(|_, ends_at| *ends_at > now);
        memory.signed_out.insert(id, ends_at);
        memory.used_at.remove(&id);
        drop(memory);
        self.sign_outs.send_modify(|number| *number += 1);
        Some(SignedOut { session: id, ends_at })
    }

    /// Completes when the session ends: signed out, at the end of its lifetime, or unused for too
    /// long.
    pub(super) async fn over(self, standing: Standing, clock: Clock) {
        let mut sign_outs = self.sign_outs.subscribe();
        loop {
            let now = clock.now();
            let Some(until) = self.lasts_until(standing).filter(|until| *until > now) else {
                return;
            };
            tokio::select! {
                // Never an error: these sessions hold the sender.
                _ = sign_outs.changed() => {}
                () = clock.sleep_until(until.min(clock::add(now, LOOK))) => {}
            }
        }
    }

    /// The token of our forms in this session.
    pub(super) fn form_token(&self, id: SessionId) -> String {
        self.token_of(SESSION_FORM_PREFIX, &id)
    }

    /// The token of our forms where nobody signs in.
    pub(super) fn form_token_of_nobody(&self) -> String {
        self.token_of(SESSION_FORM_PREFIX, &[])
    }

    /// The token of our forms in this browser, which has no session. `None` if the browser has not
    /// been given its cookie.
    pub(super) fn form_token_of_browser(
        &self,
        headers: &HeaderMap,
        api: &ApiConfig,
    ) -> Option<String> {
        let browser = BROWSER.find(headers, Transport::of(headers, api))?;
        Some(self.token_of(BROWSER_FORM_PREFIX, browser.as_bytes()))
    }

    /// A new cookie that identifies a browser, and the token of its forms.
    pub(super) fn new_browser(&self, transport: Transport) -> (HeaderValue, String) {
        let browser = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let token = self.token_of(BROWSER_FORM_PREFIX, browser.as_bytes());
        (BROWSER.set(transport, &browser, None), token)
    }

    fn token_of(&self, prefix: &[u8], holder: &[u8]) -> String {
        let mac = keyed(&self.signing_key).chain_update(prefix).chain_update(holder);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    fn cookie(&self, key: &ApiKeyConfig, standing: Standing, transport: Transport) -> HeaderValue {
        let Standing { id, ends_at, used_at } = standing;
        let claim = format!(
            "{}.{}.{}.{}",
            URL_SAFE_NO_PAD.encode(&key.name),
            ends_at.as_second(),
            used_at.as_second(),
            URL_SAFE_NO_PAD.encode(id)
        );
        let proof = URL_SAFE_NO_PAD.encode(self.mac(key, &claim).finalize().into_bytes());
        let lifetime = Duration::try_from(ends_at.duration_since(used_at)).unwrap_or_default();
        SESSION.set(transport, &format!("{claim}.{proof}"), Some(lifetime))
    }

    /// The genuine session in a cookie, even if it has ended.
    fn read<'a>(&self, token: &str, keys: &'a [ApiKeyConfig]) -> Option<Session<'a>> {
        let (claim, proof) = token.rsplit_once('.')?;
        let mut parts = claim.split('.');
        let name = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let mut time = || Timestamp::from_second(parts.next()?.parse().ok()?).ok();
        let (ends_at, used_at) = (time()?, time()?);
        let id = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?.try_into().ok()?;
        let key = keys.iter().find(|key| key.name.as_bytes() == name)?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
        self.mac(key, claim).verify_slice(&proof).ok()?;
        Some(Session { key, standing: Standing { id, ends_at, used_at } })
    }

    /// When the session ends; `None` if it was signed out.
    fn lasts_until(&self, standing: Standing) -> Option<Timestamp> {
        let is_signed_out = self.memory().signed_out.contains_key(&standing.id);
        let idle_until = clock::add(self.used_at(standing), IDLE);
        (!is_signed_out).then(|| standing.ends_at.min(idle_until))
    }

    fn used_at(&self, standing: Standing) -> Timestamp {
        let known = self.memory().used_at.get(&standing.id).copied();
        known.map_or(standing.used_at, |known| known.max(standing.used_at))
    }

    /// The key's digest is part of the signed data: another key under the same name ends the
    /// session.
    fn mac(&self, key: &ApiKeyConfig, claim: &str) -> Hmac<Sha256> {
        keyed(&self.signing_key)
            .chain_update(SESSION_PREFIX)
            .chain_update(key.digest)
            .chain_update(claim)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is one call, so a panic elsewhere leaves no half-done state.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use axum::http::header::{COOKIE, HOST};

    use super::*;
    use crate::config::{ApiListen, Scope};

    const NOW: i64 = 1_800_000_000;

    fn key(name: &str, digest: u8) -> ApiKeyConfig {
        ApiKeyConfig { name: name.into(), digest: [digest; 32], scopes: vec![Scope::Read] }
    }

    fn api(keys: &[ApiKeyConfig]) -> ApiConfig {
        let (listen, keys) = (ApiListen::Same, keys.to_vec());
        ApiConfig { listen, public_url: None, open_on_loopback: false, keys }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn after(minutes: i64) -> Timestamp {
        at(NOW + minutes * 60)
    }

    fn sent_back(cookie: &HeaderValue) -> HeaderMap {
        let text = cookie.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        headers_with(text.parse().expect("a value"))
    }

    fn headers_with(cookie: HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, cookie), (HOST, HeaderValue::from_static("localhost"))])
    }

    fn sessions() -> Sessions {
        Sessions::new([1; 32], Vec::new())
    }

    #[test]
    fn a_session_stands_for_its_very_key_until_it_ends() {
        let sessions = sessions();
        let keys = [key("a", 1), key("b", 2)];
        let headers = sent_back(&sessions.open(&keys[1], at(NOW), Transport::Http));
        let name = |sessions: &Sessions, keys: &[ApiKeyConfig], at| {
            sessions.current(&headers, &api(keys), at).map(|session| session.key.name.clone())
        };
        assert_eq!(name(&sessions, &keys, after(59)).as_deref(), Some("b"));
        assert_eq!(name(&sessions, &keys[..1], at(NOW)), None, "its key was taken away");
        assert_eq!(name(&sessions, &[key("b", 3)], at(NOW)), None, "its key was changed");
        let other = Sessions::new([2; 32], Vec::new());
        assert_eq!(name(&other, &keys, at(NOW)), None, "another instance's");
        let signed_out = sessions.end(&headers, &api(&keys), at(NOW)).expect("a session");
        assert_eq!(name(&sessions, &keys, at(NOW)), None, "signed out");
        let restarted = Sessions::new([1; 32], vec![signed_out]);
        assert_eq!(name(&restarted, &keys, at(NOW)), None, "and it stays so");
    }

    #[test]
    fn a_session_lasts_an_hour_after_its_last_use_and_twelve_in_all() {
        let (sessions, api) = (sessions(), api(&[key("a", 1)]));
        let headers = sent_back(&sessions.open(&api.keys[0], at(NOW), Transport::Http));
        let current = |minutes| sessions.current(&headers, &api, after(minutes));
        assert!(current(60).is_none(), "not used for an hour");
        for minutes in (50..720).step_by(50) {
            let session = current(minutes).expect("it was used");
            sessions.touch(session.standing, after(minutes));
        }
        assert!(current(719).is_some() && current(720).is_none(), "twelve hours in all");
    }

    #[test]
    fn a_renewed_cookie_is_the_same_session_and_tells_another_process_of_its_use() {
        let (sessions, api) = (sessions(), api(&[key("a", 1)]));
        let first = sent_back(&sessions.open(&api.keys[0], at(NOW), Transport::Http));
        let session = sessions.current(&first, &api, after(4)).expect("a session");
        sessions.touch(session.standing, after(4));
        assert!(sessions.renewed(session, after(4), Transport::Http).is_none(), "not yet");
        sessions.touch(session.standing, after(40));
        let renewed = sessions.renewed(session, after(40), Transport::Http).expect("a cookie");
        assert!(renewed.to_str().expect("text").contains("Max-Age=40800"), "{renewed:?}");
        let renewed = sent_back(&renewed);
        let restarted = Sessions::new([1; 32], Vec::new());
        assert!(restarted.current(&first, &api, after(90)).is_none());
        assert!(restarted.current(&renewed, &api, after(90)).is_some());
        sessions.end(&renewed, &api, after(41));
        assert!(sessions.current(&first, &api, after(42)).is_none(), "both are signed out");
        assert!(sessions.renewed(session, after(42), Transport::Http).is_none());
    }

    #[test]
    fn a_session_that_was_tampered_with_is_none() {
        let (sessions, api) = (sessions(), api(&[key("a", 1)]));
        let genuine = sessions.open(&api.keys[0], at(NOW), Transport::Https);
        let text = genuine.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        for at_byte in text.find('=').expect("a pair") + 1..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at_byte] = if changed[at_byte] == b'B' { b'C' } else { b'B' };
            if changed == text.as_bytes() {
                continue;
            }
            let value = HeaderValue::from_bytes(&changed).expect("a value");
            let headers = headers_with(value);
            // The last character of base64 may hold bits that are ignored.
            let is_last = at_byte == text.len() - 1;
            assert!(is_last || sessions.current(&headers, &api, at(NOW)).is_none(), "{at_byte}");
        }
        assert!(sessions.current(&sent_back(&genuine), &api, at(NOW)).is_some());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let sessions = sessions();
        for number in 0..(2 * MAX_REMEMBERED as u128) {
            let id = number.to_be_bytes();
            let standing = Standing { id, ends_at: after(720), used_at: at(NOW) };
            sessions.touch(standing, at(NOW));
        }
        assert_eq!(sessions.memory().used_at.len(), MAX_REMEMBERED);
        let standing = Standing { id: [255; 16], ends_at: after(720), used_at: after(61) };
        sessions.touch(standing, after(61));
        assert_eq!(sessions.memory().used_at.len(), 1, "those that are over make room");
    }
}
