//! Who may call what: API keys and their scopes, sessions that represent a key, and, where the API
//! is open on loopback, requests from this machine only.
//!
//! The extractors come first in a handler's arguments, so nothing is read before they agree.
//! Invariants: a handler that takes one of them is never entered without that scope, and what a
//! browser sends unasked (the session's cookie) changes nothing for a page of another origin.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(super) use super::origin::{Site, origin};
use super::{
    Context,
    error::Problem,
    failures::{Attempt, Failure},
    origin::{
        is_change_from_another_site, is_from_no_other_page, is_from_this_machine, is_reading,
    },
    peers::Peer,
    session::Standing,
};
use crate::config::{ApiKeyConfig, Scope};

/// The event stream: a page keeps it open even when nobody is looking at it.
const EVENTS: &str = "/v1/events";

/// Header by which our pages mark their automatic refreshes.
const BY_ITSELF: &str = "finishline-by-itself";

macro_rules! scope_extractor {
    ($(#[$doc:meta])* $name:ident, $scope:expr) => {
        $(#[$doc])*
        pub struct $name(pub Caller);

        impl FromRequestParts<Context> for $name {
            type Rejection = Problem;

            async fn from_request_parts(
                parts: &mut Parts,
                context: &Context,
            ) -> Result<Self, Problem> {
                let caller = caller(parts, context).await?;
                caller.require($scope)?;
                Ok(Self(caller))
            }
        }
    };
}

scope_extractor! {
    /// A caller who may submit jobs.
    MaySubmit, Scope::Submit
}
scope_extractor! {
    /// A caller who may read jobs and results.
    MayRead, Scope::Read
}
scope_extractor! {
    /// A caller who may order look-ups and deliveries.
    MayOperate, Scope::Operate
}
scope_extractor! {
    /// A caller who may erase jobs.
    MayErase, Scope::Erase
}

/// The caller if the request has a valid key or session; neither is required.
pub struct KnownCaller(pub Option<Caller>);

impl FromRequestParts<Context> for KnownCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Problem> {
        Ok(Self(caller(parts, context).await.ok()))
    }
}

/// The sender of a request to the API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The API key's name; empty where the API is open.
    pub name: String,
    scopes: Vec<Scope>,
    /// The session that the request used; `None` if it carried the key itself.
    session: Option<Standing>,
}

impl Caller {
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::ForbiddenScope(scope)) }
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// The caller where the API is open: every scope, no key.
    pub fn of_this_machine() -> Self {
        Self { name: String::new(), scopes: Scope::ALL.to_vec(), session: None }
    }

    /// The session that the request used.
    pub(super) fn session(&self) -> Option<Standing> {
        self.session
    }

    /// Completes when the caller's session ends, and never for a caller with a key: keys last as
    /// long as the process, which reads its settings once.
    pub(super) fn over(&self, context: &Context) -> impl Future<Output = ()> + Send + 'static {
        let (session, sessions, clock) =
            (self.session, context.sessions.clone(), context.clock.clone());
        async move {
            match session {
                Some(session) => sessions.over(session, clock).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn of_key(key: &ApiKeyConfig) -> Self {
        Self { name: key.name.clone(), scopes: key.scopes.clone(), session: None }
    }
}

/// The holder of a key, or of a session that a key opened; on an open API, everyone who gets past
/// [`only_this_machine`].
async fn caller(parts: &Parts, context: &Context) -> Result<Caller, Problem> {
    let (headers, keys) = (&parts.headers, &context.config.api.keys);
    if context.config.api.is_open() {
        return Ok(Caller::of_this_machine());
    }
    if headers.contains_key(AUTHORIZATION) {
        return match of_bearer(headers, keys) {
            Bearer::Known(_) if is_change_from_another_site(parts) => {
                Err(Problem::ForbiddenOrigin("pages of other sites may not change anything"))
            }
            Bearer::Known(caller) => Ok(caller),
            Bearer::Missing => Err(Problem::Unauthorized),
            Bearer::Wrong => Err(wrong_key(Failure::WrongKey, parts, context).await),
        };
    }
    let caller = of_session(headers, context).ok_or(Problem::Unauthorized)?;
    if !is_reading(&parts.method) && origin(headers, &context.config.api) != Site::Same {
        return Err(Problem::ForbiddenOrigin("with a session, only its own pages change anything"));
    }
    use_session(&caller, parts, context);
    Ok(caller)
}

/// The caller of the browser's session. Reading it does not authorize a change and does not count
/// as use of the session: see [`caller`].
pub(super) fn of_session(headers: &HeaderMap, context: &Context) -> Option<Caller> {
    let now = context.clock.now();
    let session = context.sessions.current(headers, &context.config.api, now)?;
    Some(Caller { session: Some(session.standing), ..Caller::of_key(session.key) })
}

/// Marks the session as used, except for a page's automatic requests: nobody may be there.
pub(super) fn use_session(caller: &Caller, parts: &Parts, context: &Context) {
    let is_stream = parts.uri.path() == EVENTS;
    if let Some(session) = caller.session
        && !is_stream
        && !parts.headers.contains_key(BY_ITSELF)
    {
        context.sessions.touch(session, context.clock.now());
    }
}

/// The answer to a wrong key, after the failure has been recorded.
pub(super) async fn wrong_key(failure: Failure, parts: &Parts, context: &Context) -> Problem {
    let route = parts.extensions.get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let attempt = Attempt { failure, peer: Peer::of(&parts.extensions), route };
    match context.failures.of_key(attempt, context.clock.now()).await {
        Some(retry_after) => Problem::TooManyFailures { retry_after },
        None => Problem::Unauthorized,
    }
}

/// Result of reading `Authorization`.
enum Bearer {
    Known(Caller),
    Wrong,
    /// The header holds no key.
    Missing,
}

fn of_bearer(headers: &HeaderMap, keys: &[ApiKeyConfig]) -> Bearer {
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
    let given = given.unwrap_or_default();
    let (scheme, key) = given.split_at(given.iter().position(|byte| *byte == b' ').unwrap_or(0));
    let key = key.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"bearer") || key.is_empty() {
        return Bearer::Missing;
    }
    find_key(key, keys).map_or(Bearer::Wrong, |key| Bearer::Known(Caller::of_key(key)))
}

/// The key with this text.
pub(super) fn find_key(text: impl AsRef<[u8]>, keys: &[ApiKeyConfig]) -> Option<&ApiKeyConfig> {
    let digest: [u8; 32] = Sha256::digest(text).into();
    // Compare with every key, even after a match, so that timing reveals nothing.
    let mut found = None;
    for known in keys {
        if bool::from(known.digest.ct_eq(&digest)) {
            found = Some(known);
        }
    }
    found
}

/// Middleware of an API that is open on loopback: through a proxy, or a web page in a browser on
/// this machine, requests of outsiders can arrive here (see `origin`).
pub(super) async fn only_this_machine(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    if context.config.api.is_open()
        && let Err(reason) =
            is_from_this_machine(&parts).and_then(|()| is_from_no_other_page(&parts))
    {
        return Problem::ForbiddenOrigin(reason).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

/// The same for pages, whose forms carry their own proof of origin: see `inspector::form`.
pub(super) async fn only_this_host(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    if context.config.api.is_open()
        && let Err(reason) = is_from_this_machine(&parts)
    {
        return Problem::ForbiddenOrigin(reason).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    #[test]
    fn a_key_is_found_by_its_digest() {
        let known = ApiKeyConfig {
            name: "backend".into(),
            digest: Sha256::digest("a-key-of-some-length").into(),
            scopes: vec![Scope::Read],
        };
        let keys = [known];
        let with = |value: &str| of_bearer(&headers(&[("authorization", value)]), &keys);
        for wrong in ["Bearer a-key-of-some-lengtH", "bearer x", "Bearer \u{fc}"] {
            assert!(matches!(with(wrong), Bearer::Wrong), "{wrong}");
        }
        for missing in ["Basic a-key-of-some-length", "Bearer ", "Bearer", "x", ""] {
            assert!(matches!(with(missing), Bearer::Missing), "{missing}");
        }
        assert!(matches!(of_bearer(&HeaderMap::new(), &keys), Bearer::Missing));
        for right in ["Bearer a-key-of-some-length", "bearer  a-key-of-some-length "] {
            let Bearer::Known(caller) = with(right) else { panic!("{right} is known") };
            assert_eq!(caller.name, "backend");
            assert!(caller.require(Scope::Read).is_ok() && caller.require(Scope::Erase).is_err());
        }
    }
}
