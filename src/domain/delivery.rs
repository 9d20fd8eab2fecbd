//! A delivery: what was received for a job, and what it means for the job.
//!
//! The store calls [`judge`] inside the transaction that writes the delivery. The invariant: the
//! first result stands; nothing that comes later changes what it says.

use jiff::Timestamp;

use super::ids::{DeliveryId, JobId};

/// Malformed bodies kept for one job: evidence, not an archive.
pub const MAX_MALFORMED: usize = 3;

/// The source of a delivery that a look-up at the Engine brought.
pub const ENGINE_SOURCE: &str = "engine";

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is the job's result.
    Stored,
    /// Byte-identical to one on record.
    Duplicate,
    /// Other bytes with the same reading: the outputs' links are renewed.
    Refreshed,
    /// Another reading than the result's: kept as evidence.
    Conflict,
    /// JSON that is no job result.
    Unrecognised,
    /// Not JSON.
    Malformed,
}

impl Outcome {
    /// As it is written in JSON, SQL and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Refreshed => "refreshed",
            Self::Conflict => "conflict",
            Self::Unrecognised => "unrecognised",
            Self::Malformed => "malformed",
        }
    }
}

/// What a body says, as far as [`judge`] needs it.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// Digest of the reading, see [`super::result::reading_digest`].
    Result([u8; 32]),
    Unrecognised,
    Malformed,
}

/// What a delivery is, given the digest of the reading of the job's result, if it has one, and
/// whether the same bytes are on record. A malformed body stays malformed however often it comes.
pub fn judge(says: Says, result: Option<[u8; 32]>, seen_before: bool) -> Outcome {
    match (says, result) {
        (Says::Malformed, _) => Outcome::Malformed,
        _ if seen_before => Outcome::Duplicate,
        (Says::Unrecognised, _) => Outcome::Unrecognised,
        (Says::Result(_), None) => Outcome::Stored,
        (Says::Result(said), Some(stands)) if said == stands => Outcome::Refreshed,
        (Says::Result(_), Some(_)) => Outcome::Conflict,
    }
}

/// A delivery on record, without its bytes.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub job_id: JobId,
    pub received_at: Timestamp,
    /// The sender's address, or `engine` for what a look-up brought.
    pub source: String,
    pub outcome: Outcome,
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// Further identical arrivals.
    pub repeats: u64,
    /// In the order they came, credentials redacted.
    pub headers: Vec<(String, String)>,
}

/// Headers that carry credentials: their names are kept, their values are not.
const CREDENTIALS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
];

/// A header's value as it may be kept.
pub fn redact_header<'a>(name: &str, value: &'a str) -> &'a str {
    let is_credential = CREDENTIALS.iter().any(|known| name.eq_ignore_ascii_case(known));
    if is_credential { "[redacted]" } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_stands() {
        let (one, other) = ([1; 32], [2; 32]);
        assert_eq!(judge(Says::Result(one), None, false), Outcome::Stored);
        assert_eq!(judge(Says::Result(one), Some(one), true), Outcome::Duplicate);
        assert_eq!(judge(Says::Result(one), Some(one), false), Outcome::Refreshed);
        assert_eq!(judge(Says::Result(other), Some(one), false), Outcome::Conflict);
        assert_eq!(judge(Says::Unrecognised, Some(one), false), Outcome::Unrecognised);
        assert_eq!(judge(Says::Unrecognised, None, true), Outcome::Duplicate);
        assert_eq!(judge(Says::Malformed, None, true), Outcome::Malformed);
    }

    #[test]
    fn credentials_are_kept_by_name_only() {
        assert_eq!(redact_header("Authorization", "Bearer x"), "[redacted]");
        assert_eq!(redact_header("content-type", "application/json"), "application/json");
    }
}
