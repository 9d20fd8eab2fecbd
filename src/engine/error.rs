//! Errors of calls to the Engine, with one wording for each outcome.
//!
//! Made by `engine`; the log, problems and events use only these words. Invariant: a job that may
//! be running at the Engine is never called "not taken", because submitting it again costs money.

use std::{fmt, time::Duration};

use serde_json::value::RawValue;

use super::token::TokenFault;
use crate::{domain::job::JobStatus, outbound::Trouble};

/// The pause between attempts of one call, if a busy Engine names no time itself.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The error of a call to the Engine. Displayed as a clause that others continue.
#[derive(Debug)]
pub enum EngineError {
    /// The Engine refused the job; submitting it again is useless.
    Rejected { engine_status: u16, response: Option<Box<RawValue>> },
    /// The Engine accepts neither our token nor a fresh one. Not taken.
    Auth { engine_status: u16 },
    /// There is no token. Not taken.
    NoToken(TokenFault),
    /// The Engine asks to come back later. Not taken.
    Busy { engine_status: u16, retry_after: Option<Duration> },
    /// The call failed before the first byte of the request was sent. Not taken.
    Unreachable(Trouble),
    /// A redirect, which is never followed. Not taken.
    Redirected { engine_status: u16 },
    /// The Engine failed, or the connection was lost: the job may be running.
    Lost { engine_status: Option<u16>, cause: &'static str },
    /// No answer in time: the job may be running.
    TimedOut,
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { engine_status, .. } => {
                write!(formatter, "the Engine refuses ({engine_status})")
            }
            Self::Auth { engine_status } => {
                write!(formatter, "the Engine does not accept our token ({engine_status})")
            }
            Self::NoToken(fault) => write!(formatter, "there is no token: {fault}"),
            Self::Busy { engine_status, .. } => {
                write!(formatter, "the Engine asks to come back later ({engine_status})")
            }
            Self::Unreachable(trouble) => {
                write!(formatter, "the Engine cannot be reached: {trouble}")
            }
            Self::Redirected { engine_status } => write!(
                formatter,
                "the Engine answers with a redirect ({engine_status}), which is never followed"
            ),
            Self::Lost { engine_status: Some(status), cause } => {
                write!(formatter, "the Engine's answer is of no use: {cause} ({status})")
            }
            Self::Lost { engine_status: None, cause } => {
                write!(formatter, "the Engine's answer is lost: {cause}")
            }
            Self::TimedOut => formatter.write_str("the Engine did not answer in time"),
        }
    }
}

impl EngineError {
    /// The status of a job whose submission ended with this error: `unsent`, `rejected` or
    /// `unconfirmed`.
    pub fn fate(&self) -> JobStatus {
        match self {
            Self::Rejected { .. } => JobStatus::Rejected,
            Self::Auth { .. }
            | Self::NoToken(_)
            | Self::Busy { .. }
            | Self::Unreachable(_)
            | Self::Redirected { .. } => JobStatus::Unsent,
            Self::Lost { .. } | Self::TimedOut => JobStatus::Unconfirmed,
        }
    }

    /// Describes a failed submission: what happened, whether the job may be running, what to check.
    pub fn of_submission(&self) -> String {
        self.followed_by(self.fate().outlook().unwrap_or_default())
    }

    /// Describes a failed look-up.
    pub fn of_look_up(&self) -> String {
        self.followed_by("nothing was changed: ask again in a moment")
    }

    fn followed_by(&self, outlook: &str) -> String {
        match self.advice() {
            Some(advice) => format!("{self}; {outlook}; {advice}"),
            None => format!("{self}; {outlook}"),
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Auth { .. } | Self::NoToken(TokenFault::Unset(_) | TokenFault::Refused(_)) => {
                Some("engine.auth in the settings may be wrong: run `finishline check`")
            }
            Self::NoToken(fault) => fault.advice(),
            Self::Redirected { .. } | Self::Unreachable(Trouble::Name) => {
                Some("engine.base_url in the settings may be wrong")
            }
            _ => None,
        }
    }

    /// The HTTP status of the Engine's own answer; `None` if there was none.
    pub fn engine_status(&self) -> Option<u16> {
        match self {
            Self::Rejected { engine_status, .. }
            | Self::Auth { engine_status }
            | Self::Redirected { engine_status }
            | Self::Busy { engine_status, .. } => Some(*engine_status),
            Self::Lost { engine_status, .. } => *engine_status,
            Self::NoToken(_) | Self::Unreachable(_) | Self::TimedOut => None,
        }
    }

    /// How long to wait before the same call is repeated; `None` if it must not be repeated.
    pub(super) fn repeat_after(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(retry_after.unwrap_or(BUSY_PAUSE).max(pause)),
            // The token endpoint is not asked too early either: see `token`.
            Self::NoToken(fault) if fault.is_passing() => {
                Some(fault.retry_after().unwrap_or(pause).max(pause))
            }
            Self::Unreachable(Trouble::Unmade) => None,
            Self::Unreachable(_) => Some(pause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_running_is_never_called_not_taken() {
        let lost = |engine_status| EngineError::Lost { engine_status, cause: "it failed" };
        for error in [lost(Some(408)), lost(Some(500)), lost(None), EngineError::TimedOut] {
            let words = error.of_submission();
            assert!(words.contains("may be running") && words.contains("paid twice"), "{words}");
            assert!(!words.contains("not taken") && !words.contains("safe"), "{words}");
            assert_eq!(error.repeat_after(Duration::ZERO), None);
        }
        for error in [
            EngineError::Auth { engine_status: 401 },
            EngineError::NoToken(TokenFault::Unset("x")),
            EngineError::Busy { engine_status: 429, retry_after: None },
            EngineError::Unreachable(Trouble::Unreachable),
            EngineError::Redirected { engine_status: 302 },
        ] {
            assert!(error.of_submission().contains("not taken"), "{error}");
            assert!(!error.of_look_up().contains("taken"), "{error}");
        }
    }
}
