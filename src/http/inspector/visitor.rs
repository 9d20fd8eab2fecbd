//! The reader of a page, and what they may do.
//!
//! The extractor of every page. Invariant: no page is rendered for someone who may not read;
//! without a session they are sent to the sign-in, which leads back.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Uri, request::Parts},
};

use super::{
    super::{
        Context,
        access::{self, Caller},
        error::Problem,
    },
    refusal::Refusal,
};
use crate::config::Scope;

/// A reader of pages.
pub struct Visitor {
    caller: Caller,
    /// The token for the page's forms, see `form`.
    pub form_token: String,
    /// Whether they signed in with a key, and so can sign out.
    pub is_signed_in: bool,
}

impl Visitor {
    /// The name of the key they signed in with; empty where no keys are set.
    pub fn name(&self) -> &str {
        &self.caller.name
    }

    /// Whether to offer them the actions of this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.caller.may(scope)
    }

    /// Refuses an action that their key does not allow.
    ///
    /// # Errors
    /// The key lacks the scope.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Refusal> {
        Ok(self.caller.require(scope)?)
    }

    /// The visitor of a request's session; `None` if they must sign in first.
    pub(super) fn of(headers: &HeaderMap, context: &Context) -> Option<Self> {
        let is_signed_in = !context.config.api.is_open();
        let caller = match is_signed_in {
            true => access::of_session(headers, context)?,
            false => Caller::of_this_machine(),
        };
        let form_token = match caller.session() {
            Some(session) => context.sessions.form_token(session.id),
            None => context.sessions.form_token_of_nobody(),
        };
        Some(Self { caller, form_token, is_signed_in })
    }
}

impl FromRequestParts<Context> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        let visitor = Self::of(&parts.headers, context)
            .ok_or_else(|| Refusal::SignInFirst { next: local_path(&parts.uri) })?;
        access::use_session(&visitor.caller, parts, context);
        match visitor.require(Scope::Read) {
            Ok(()) => Ok(visitor),
            // Shown without them as visitor: they may read no page. The problem names the missing
            // scope.
            Err(_) => Err(Problem::ForbiddenScope(Scope::Read).into()),
        }
    }
}

/// The path and query to return to.
fn local_path(uri: &Uri) -> String {
    uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}
