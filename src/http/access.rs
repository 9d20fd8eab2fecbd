//! Who may call what: API keys and their scopes, sessions that stand for a key, and, where the API is
//! open on loopback, requests from this machine only.
//!
//! The extractors stand first in a handler's arguments, so nothing is read before they agree. The
//! invariants: a handler that takes one of them is never entered without that scope, and what a
//! browser adds by itself (the session's cookie) changes nothing for a page of another origin.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(super) use super::origin::{Site, origin};
use super::{
    Context,
    error::Problem,
    origin::{is_from_no_other_page, is_from_this_machine, is_reading},
};
use crate::config::{ApiKeyConfig, Scope};

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
                let caller = caller(&parts.method, &parts.headers, context)?;
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

/// Whoever sent a request to the API.
#[derive(Debug)]
pub struct Caller {
    /// The API key's name; empty where the API is open.
    pub name: String,
    scopes: Vec<Scope>,
}

impl Caller {
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::ForbiddenScope(scope)) }
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whoever calls where the API is open.
    pub(super) fn of_this_machine() -> Self {
        Self { name: String::new(), scopes: Scope::ALL.to_vec() }
    }

    fn of_key(key: &ApiKeyConfig) -> Self {
        Self { name: key.name.clone(), scopes: key.scopes.clone() }
    }
}

/// Whoever holds one of the keys, or a session that one of them opened; on an open API, everyone who
/// gets past [`only_this_machine`].
pub(super) fn caller(
    method: &Method,
    headers: &HeaderMap,
    context: &Context,
) -> Result<Caller, Problem> {
    let keys = &context.config.api.keys;
    if context.config.api.is_open() {
        return Ok(Caller::of_this_machine());
    }
    if headers.contains_key(AUTHORIZATION) {
        return of_bearer(headers, keys);
    }
    let caller = of_session(headers, context).ok_or(Problem::Unauthorized)?;
    if !is_reading(method) && origin(headers) != Site::Same {
        return Err(Problem::ForbiddenOrigin("with a session, only its own pages change anything"));
    }
    Ok(caller)
}

/// Whose session a browser is in. What it sends changes nothing yet: see [`caller`].
pub(super) fn of_session(headers: &HeaderMap, context: &Context) -> Option<Caller> {
    let now = context.clock.now();
    let key = context.sessions.key_of(headers, &context.config.api.keys, now)?;
    Some(Caller::of_key(key))
}

fn of_bearer(headers: &HeaderMap, keys: &[ApiKeyConfig]) -> Result<Caller, Problem> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, key) =
        given.and_then(|value| value.split_once(' ')).ok_or(Problem::Unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::Unauthorized);
    }
    find_key(key.trim(), keys).map(Caller::of_key).ok_or(Problem::Unauthorized)
}

/// The key with this text.
pub(super) fn find_key<'a>(text: &str, keys: &'a [ApiKeyConfig]) -> Option<&'a ApiKeyConfig> {
    let digest: [u8; 32] = Sha256::digest(text).into();
    // All are compared, whichever fits, so the time tells nothing.
    let mut found = None;
    for known in keys {
        if bool::from(known.digest.ct_eq(&digest)) {
            found = Some(known);
        }
    }
    found
}

/// Middleware of an API that is open on loopback: a proxy, or a web page in a browser on this
/// machine, can send requests here that are nobody's of this machine (see `origin`).
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

/// The same for pages, whose forms prove themselves: see `inspector::form`.
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
        assert_eq!(with("bearer a-key-of-some-length").expect("known").name, "backend");
        for wrong in ["Bearer a-key-of-some-lengtH", "Basic a-key-of-some-length", "Bearer ", "x"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(of_bearer(&HeaderMap::new(), &keys).is_err());
        let caller = with("Bearer a-key-of-some-length").expect("known");
        assert!(caller.require(Scope::Read).is_ok() && caller.require(Scope::Erase).is_err());
    }
}
