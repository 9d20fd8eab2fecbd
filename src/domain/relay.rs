//! The relay of results: orders, attempts, and what follows an attempt.
//!
//! The relay worker decides with it, the store records it. Invariant: an order is delivered, or
//! tried as often as the schedule allows, or stopped by its target; and `Retry-After` can only
//! lengthen a wait.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::ids::JobId;

/// The longest wait that a target can request with `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Failures in a row after which a target is paused.
pub const FAILURES_BEFORE_PAUSE: u32 = 10;

/// How long a target is paused before one order probes it.
pub const PAUSE: Duration = Duration::from_secs(60);

/// Bytes of an answer that are stored.
pub const KEPT_ANSWER_BYTES: usize = 4 * 1024;

/// The status with which a target refuses all further attempts.
const GONE: u16 = 410;

/// A stored order.
#[derive(Clone, Debug)]
pub struct Relay {
    pub id: Uuid,
    pub job_id: JobId,
    /// The name of a configured target, or the origin of a job's own.
    pub target: String,
    pub state: RelayState,
    /// All attempts.
    pub attempts: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub last_status: Option<u16>,
    pub created_at: Timestamp,
    /// The position in the list.
    pub seq: i64,
}

/// The Standard Webhooks id of an order: the same in every attempt. It is signed, so a receiver can
/// rely on the job id in it, between the first `_` and the second.
pub fn webhook_id(job: JobId, order: Uuid) -> String {
    format!("msg_{job}_{order}")
}

/// The order in a `webhook-id`; `None` if it has another form.
pub fn order_of_webhook_id(text: &str) -> Option<Uuid> {
    let (_job, order) = text.strip_prefix("msg_")?.split_once('_')?;
    Uuid::try_parse(order).ok()
}

/// The state of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayState {
    Pending,
    Delivered,
    /// Given up; it can be ordered again.
    Dead,
    /// Pending, and its target is paused.
    Paused,
}

impl RelayState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Paused];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Paused => "paused",
        }
    }
}

impl std::str::FromStr for RelayState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| "expected pending, delivered, dead or paused".to_owned())
    }
}

/// An order that is due for an attempt.
#[derive(Clone, Debug)]
pub struct DueRelay {
    pub id: Uuid,
    pub job_id: JobId,
    pub target: String,
    /// A job's own address; `None` for a configured target.
    pub url: Option<String>,
    /// Attempts since it was ordered, not including this one.
    pub tries: u32,
}

/// A stored attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    pub at: Timestamp,
    pub millis: u64,
    pub status: Option<u16>,
    /// The reason why there was no answer.
    pub error: Option<String>,
    /// Its first [`KEPT_ANSWER_BYTES`].
    pub answer: Vec<u8>,
}

/// Selects orders; every given field must match.
#[derive(Clone, Debug, Default)]
pub struct RelayFilter {
    pub job_id: Option<JobId>,
    pub state: Option<RelayState>,
    pub target: Option<String>,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub status: Option<u16>,
    /// `Retry-After` of the answer.
    pub retry_after: Option<Duration>,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAttempt {
    Delivered,
    Retry { at: Timestamp },
    Dead,
}

/// Decides what follows an attempt. `tries` counts attempts since the order, including this one;
/// entry `i` of `schedule` is the wait after try `i + 1`. `jitter`, from 0 to 1, lengthens a wait
/// by up to a tenth, so that orders that failed together are not all retried together.
pub fn after_attempt(
    schedule: &[Duration],
    tries: u32,
    answered: Answered,
    jitter: f64,
    now: Timestamp,
) -> AfterAttempt {
    match answered.status {
        Some(200..=299) => return AfterAttempt::Delivered,
        Some(GONE) => return AfterAttempt::Dead,
        _ => {}
    }
    let index = usize::try_from(tries).unwrap_or(usize::MAX).saturating_sub(1);
    let Some(wait) = schedule.get(index) else { return AfterAttempt::Dead };
    let wished = answered.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    let wait = wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0).max(wished);
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    AfterAttempt::Retry { at: now.checked_add(wait).unwrap_or(Timestamp::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(tries: u32, status: Option<u16>, retry_after: Option<Duration>) -> AfterAttempt {
        let schedule = [5 * SECOND, 300 * SECOND];
        let answered = Answered { status, retry_after };
        after_attempt(&schedule, tries, answered, 0.0, Timestamp::UNIX_EPOCH)
    }

    fn in_seconds(seconds: i64) -> AfterAttempt {
        AfterAttempt::Retry { at: Timestamp::from_second(seconds).expect("in range") }
    }

    #[test]
    fn a_webhook_id_tells_the_job_and_the_order() {
        let (job, order) = (JobId(Uuid::from_u128(7)), Uuid::from_u128(8));
        let id = webhook_id(job, order);
        assert_eq!(
            id,
            "msg_00000000-0000-0000-0000-000000000007_00000000-0000-0000-0000-000000000008"
        );
        assert_eq!(id.split('_').nth(1), Some(job.to_string().as_str()));
        assert_eq!(order_of_webhook_id(&id), Some(order));
        for other in ["", "msg_", "msg_7", "msg_7_8", "00000000-0000-0000-0000-000000000007"] {
            assert_eq!(order_of_webhook_id(other), None, "{other}");
        }
    }

    #[test]
    fn n_entries_are_n_plus_one_tries() {
        assert_eq!(after(1, Some(500), None), in_seconds(5));
        assert_eq!(after(2, None, None), in_seconds(300));
        assert_eq!(after(3, Some(302), None), AfterAttempt::Dead);
        assert_eq!(after(3, Some(204), None), AfterAttempt::Delivered);
        assert_eq!(after(1, Some(410), None), AfterAttempt::Dead);
    }

    #[test]
    fn a_wish_to_wait_only_lengthens_and_is_capped() {
        assert_eq!(after(1, Some(429), Some(SECOND)), in_seconds(5));
        assert_eq!(after(1, Some(503), Some(60 * SECOND)), in_seconds(60));
        assert_eq!(after(1, Some(503), Some(1_000_000 * SECOND)), in_seconds(24 * 60 * 60));
    }

    #[test]
    fn jitter_lengthens_by_a_tenth_at_most() {
        let answered = Answered { status: None, retry_after: None };
        let at = after_attempt(&[100 * SECOND], 1, answered, 1.0, Timestamp::UNIX_EPOCH);
        assert_eq!(at, in_seconds(110));
    }
}
