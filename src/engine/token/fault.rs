//! Why there is no token, in words that blame nothing that is not to blame.
//!
//! Made by `token`; told by the log, by problems and by `check`. The invariants: each is a sentence
//! of its own and holds no secret; the settings are suspected only where the issuer's answer does.

use std::time::Duration;

use super::answer::IssuerError;
use crate::outbound::Trouble;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// A setting without which nothing can be asked.
    #[error("{0} is not set")]
    Unset(&'static str),
    /// There was no answer.
    #[error("the token endpoint cannot be reached: {0}")]
    Unreachable(Trouble),
    /// 429, or 503 with a time.
    #[error("the token endpoint asks to come back later ({0})")]
    Busy(Answered),
    /// It does not give this client a token.
    #[error("the token endpoint refuses the client id or secret, or the audience ({0})")]
    Refused(Answered),
    /// It refuses, and not as an issuer of tokens does: a firewall's page, say.
    #[error("the token endpoint refuses the request ({0})")]
    Forbidden(Answered),
    /// Never followed: the secret would go along.
    #[error("the token endpoint answers with a redirect ({0}), which is never followed")]
    Redirected(Answered),
    /// Any other status that is no success.
    #[error("the token endpoint answers with an error ({0})")]
    Failed(Answered),
    /// A success that brings no token; what it brings.
    #[error("the token endpoint answers with {0}, and not with a token")]
    Unusable(&'static str),
}

/// An answer of the token endpoint that brought no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    /// What its `Retry-After` asks for; bounded.
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

/// Codes of RFC 6749 and RFC 8707 by which an issuer turns a client away for what it is or asks.
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
    /// What an answer that brought no token means.
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

    /// What to look at, where that is known.
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

    /// What `Retry-After` asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.answered()?.retry_after
    }

    /// Whether it is to be left alone for a while: it knows who asks, and counts.
    pub(super) fn is_refusal(&self) -> bool {
        self.answered().is_some_and(|it| matches!(it.status, 400 | 401 | 403 | 429 | 503))
            || matches!(self, Self::Refused(_) | Self::Busy(_))
    }

    /// Whether the same call may well bring a token a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(Trouble::Name | Trouble::Tls(_) | Trouble::Unmade) => false,
            Self::Unreachable(_) | Self::Busy(_) => true,
            Self::Failed(answered) => answered.status >= 500 || answered.status == 408,
            _ => false,
        }
    }

    /// The same fault when `passed` of its time is over.
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
