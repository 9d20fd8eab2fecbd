//! The reasons why there is no token, worded so that they blame only the cause.
//!
//! Made by `token`; shown by the log, by problems and by `check`. Invariant: each is a complete
//! clause without a secret, and suspects the settings only if the issuer's answer does.

use std::time::Duration;

use super::answer::IssuerError;
use crate::outbound::Trouble;

/// The reason why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// A required setting is missing.
    #[error("{0} is not set")]
    Unset(&'static str),
    /// There was no answer.
    #[error("the token endpoint cannot be reached: {0}")]
    Unreachable(Trouble),
    /// Status 429, or 503 with a time.
    #[error("the token endpoint asks to come back later ({0})")]
    Busy(Answered),
    /// It refuses this client a token.
    #[error("the token endpoint refuses the client id or secret, or the audience ({0})")]
    Refused(Answered),
    /// It refuses, but not as a token issuer does: for example a firewall's page.
    #[error("the token endpoint refuses the request ({0})")]
    Forbidden(Answered),
    /// A redirect is never followed: the secret would be sent along.
    #[error("the token endpoint answers with a redirect ({0}), which is never followed")]
    Redirected(Answered),
    /// Any other unsuccessful status.
    #[error("the token endpoint answers with an error ({0})")]
    Failed(Answered),
    /// A success without a token, and what it has instead.
    #[error("the token endpoint answers with {0}, and not with a token")]
    Unusable(&'static str),
}

/// An answer of the token endpoint without a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// The time from `Retry-After`; bounded.
    pub retry_after: Option<Duration>,
    /// `invalid_client: …`, fit to be shown.
    pub said: Option<String>,
}

impl std::fmt::Display for Answered {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.said {
            Some(said) => write!(formatter, "{} {said}", self.status),
            None => write!(formatter, "{}", self.status),
        }
    }
}

/// Codes of RFC 6749 and RFC 8707 with which an issuer rejects a client or its request.
const REFUSALS: [&str; 9] = [
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "unauthorized",
];

impl TokenFault {
    /// Classifies an answer without a token.
    pub(super) fn of_answer(
        status: u16,
        retry_after: Option<Duration>,
        error: Option<IssuerError>,
    ) -> Self {
        let code = error.as_ref().and_then(|error| Some(error.code.as_ref()?.to_ascii_lowercase()));
        let said = error.and_then(IssuerError::line);
        let answered = Answered { status, retry_after, said };
        match (status, code.as_deref()) {
            (429, _) | (_, Some("slow_down")) => Self::Busy(answered),
            (503, _) if retry_after.is_some() => Self::Busy(answered),
            (_, Some("temporarily_unavailable" | "server_error")) => Self::Failed(answered),
            (401, _) => Self::Refused(answered),
            (200..=299 | 400..=499, Some(code)) if REFUSALS.contains(&code) => {
                Self::Refused(answered)
            }
            (400 | 403, _) => Self::Forbidden(answered),
            (300..=399, _) => Self::Redirected(answered),
            _ => Self::Failed(answered),
        }
    }

    /// What to check, if that is known.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Unset(_) | Self::Refused(_) => Some("engine.auth in the settings may be wrong"),
            Self::Redirected(_) | Self::Unusable(_) | Self::Unreachable(Trouble::Name) => {
                Some("engine.auth.token_url in the settings may be wrong")
            }
            Self::Failed(Answered { status: 404 | 405 | 410, .. }) => {
                Some("engine.auth.token_url in the settings may be wrong")
            }
            Self::Unreachable(_) => Some("look at the network's way out to it"),
            Self::Busy(_) | Self::Forbidden(_) | Self::Failed(_) => None,
        }
    }

    /// Whether the endpoint asks to come back later.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// The time from `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        self.answered()?.retry_after
    }

    /// Whether to leave the endpoint alone for a while: it identifies the client and counts its
    /// requests.
    pub(super) fn is_refusal(&self) -> bool {
        self.answered().is_some_and(|it| matches!(it.status, 400 | 401 | 403 | 429 | 503))
            || matches!(self, Self::Refused(_) | Self::Busy(_))
    }

    /// Whether the same call may well return a token a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(Trouble::Name | Trouble::Tls(_) | Trouble::Unmade) => false,
            Self::Unreachable(_) | Self::Busy(_) => true,
            Self::Failed(answered) => answered.status >= 500 || answered.status == 408,
            _ => false,
        }
    }

    /// The same fault after `passed` of its wait is over.
    pub(super) fn after(mut self, passed: Duration) -> Self {
        if let Some(answered) = self.answered_mut() {
            answered.retry_after = answered.retry_after.map(|wait| wait.saturating_sub(passed));
        }
        self
    }

    fn answered(&self) -> Option<&Answered> {
        match self {
            Self::Busy(it)
            | Self::Refused(it)
            | Self::Forbidden(it)
            | Self::Redirected(it)
            | Self::Failed(it) => Some(it),
            Self::Unset(_) | Self::Unreachable(_) | Self::Unusable(_) => None,
        }
    }

    fn answered_mut(&mut self) -> Option<&mut Answered> {
        match self {
            Self::Busy(it)
            | Self::Refused(it)
            | Self::Forbidden(it)
            | Self::Redirected(it)
            | Self::Failed(it) => Some(it),
            Self::Unset(_) | Self::Unreachable(_) | Self::Unusable(_) => None,
        }
    }
}
