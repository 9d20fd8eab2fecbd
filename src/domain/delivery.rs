//! A delivery: what was received for a job, and its effect on the job.
//!
//! The store calls [`classify`] inside the transaction that writes the delivery.
//!
//! Invariant: the first result is final; no later delivery changes what it says.

use jiff::Timestamp;

use super::ids::{DeliveryId, JobId};

/// Malformed bodies stored per job: evidence, not an archive.
pub const MAX_MALFORMED: u32 = 3;

/// Deliveries stored per job. Its result is stored even beyond that.
pub const MAX_KEPT: u32 = 100;

/// Deliveries stored per job after its result; part of [`MAX_KEPT`].
pub const MAX_KEPT_AFTER_RESULT: u32 = 20;

/// Bytes of bodies stored per job, not counting its result.
pub const MAX_BYTES_BESIDE_RESULT: u64 = 64 * 1024 * 1024;

/// Repeats of one delivery that become events; further ones are only counted.
pub const MAX_REPEAT_EVENTS: u64 = 10;

/// Oversize bodies per job that become events; further ones are only counted.
pub const MAX_OVERSIZE_EVENTS: u32 = 10;

/// The source of a delivery that came from a look-up at the Engine.
pub const ENGINE_SOURCE: &str = "engine";

/// The answer to a sender while the body is on disk but not processed yet.
pub const SPOOLED: &str = "spooled";

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is the job's result.
    Stored,
    /// Byte-identical to a stored one.
    Duplicate,
    /// Other bytes with the same reading. The outputs' links are renewed if the Engine was asked
    /// for it; a callback renews nothing.
    Refreshed,
    /// Its reading differs from the result's: kept as evidence.
    Conflict,
    /// JSON that is not a job result.
    Unrecognised,
    /// Not JSON.
    Malformed,
}

impl Outcome {
    /// The outcomes of stored deliveries: a duplicate is only counted.
    pub const KEPT: [Self; 5] =
        [Self::Stored, Self::Refreshed, Self::Conflict, Self::Unrecognised, Self::Malformed];

    /// The outcomes that are answered with 2xx.
    pub const ACKNOWLEDGED: [Self; 5] =
        [Self::Stored, Self::Duplicate, Self::Refreshed, Self::Conflict, Self::Unrecognised];

    /// The name in JSON, SQL and metrics.
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

/// What a body says, reduced to what [`classify`] needs.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Digest of the reading, see [`super::result::reading_digest`].
    Result([u8; 32]),
    Unrecognised,
    Malformed,
}

/// Classifies a delivery, given the digest of the reading of the job's result, if it has one, and
/// whether the same bytes are stored already. A malformed body is malformed however often it
/// arrives.
pub fn classify(verdict: Verdict, result: Option<[u8; 32]>, seen_before: bool) -> Outcome {
    match (verdict, result) {
        (Verdict::Malformed, _) => Outcome::Malformed,
        _ if seen_before => Outcome::Duplicate,
        (Verdict::Unrecognised, _) => Outcome::Unrecognised,
        (Verdict::Result(_), None) => Outcome::Stored,
        (Verdict::Result(reading), Some(current)) if reading == current => Outcome::Refreshed,
        (Verdict::Result(_), Some(_)) => Outcome::Conflict,
    }
}

/// What a job has already stored of its deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// All of them, including the result.
    pub deliveries: u32,
    pub after_result: u32,
    pub malformed: u32,
    /// Of all bodies except the result's.
    pub bytes_beside_result: u64,
}

/// The limit that another delivery would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Deliveries,
    AfterResult,
    Bytes,
    /// A separate, lower limit.
    Malformed,
}

impl Budget {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::AfterResult => "deliveriesAfterResult",
            Self::Bytes => "bytes",
            Self::Malformed => "malformed",
        }
    }
}

impl Kept {
    /// The budget that a delivery exceeds; `None` if it is stored. A result always is.
    pub fn exceeded_by(&self, outcome: Outcome, bytes: u64, has_result: bool) -> Option<Budget> {
        let bytes_then = self.bytes_beside_result.saturating_add(bytes);
        match outcome {
            Outcome::Stored => None,
            Outcome::Malformed if self.malformed >= MAX_MALFORMED => Some(Budget::Malformed),
            _ if self.deliveries >= MAX_KEPT => Some(Budget::Deliveries),
            _ if has_result && self.after_result >= MAX_KEPT_AFTER_RESULT => {
                Some(Budget::AfterResult)
            }
            _ if bytes_then > MAX_BYTES_BESIDE_RESULT => Some(Budget::Bytes),
            _ => None,
        }
    }

    /// Counts a delivery that is stored.
    pub fn add(&mut self, outcome: Outcome, bytes: u64, has_result: bool) {
        self.deliveries += 1;
        if outcome != Outcome::Stored {
            self.bytes_beside_result = self.bytes_beside_result.saturating_add(bytes);
            self.after_result += u32::from(has_result);
        }
        self.malformed += u32::from(outcome == Outcome::Malformed);
    }
}

/// A stored delivery, without its bytes.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub job_id: JobId,
    pub received_at: Timestamp,
    /// The sender's address, or `engine` if it came from a look-up.
    pub source: String,
    pub outcome: Outcome,
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// Further identical arrivals.
    pub repeats: u64,
    /// In the order received, credentials redacted.
    pub headers: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_stands() {
        let (one, other) = ([1; 32], [2; 32]);
        assert_eq!(classify(Verdict::Result(one), None, false), Outcome::Stored);
        assert_eq!(classify(Verdict::Result(one), Some(one), true), Outcome::Duplicate);
        assert_eq!(classify(Verdict::Result(one), Some(one), false), Outcome::Refreshed);
        assert_eq!(classify(Verdict::Result(other), Some(one), false), Outcome::Conflict);
        assert_eq!(classify(Verdict::Unrecognised, Some(one), false), Outcome::Unrecognised);
        assert_eq!(classify(Verdict::Unrecognised, None, true), Outcome::Duplicate);
        assert_eq!(classify(Verdict::Malformed, None, true), Outcome::Malformed);
    }

    #[test]
    fn a_job_keeps_so_much_and_its_result_always() {
        let mut kept = Kept::default();
        for _ in 0..MAX_KEPT {
            assert_eq!(kept.exceeded_by(Outcome::Unrecognised, 1, false), None);
            kept.add(Outcome::Unrecognised, 1, false);
        }
        assert_eq!(kept.exceeded_by(Outcome::Unrecognised, 1, false), Some(Budget::Deliveries));
        assert_eq!(kept.exceeded_by(Outcome::Stored, u64::MAX, false), None);

        let mut kept = Kept::default();
        kept.add(Outcome::Stored, MAX_BYTES_BESIDE_RESULT * 2, false);
        for _ in 0..MAX_KEPT_AFTER_RESULT {
            assert_eq!(kept.exceeded_by(Outcome::Conflict, 1, true), None);
            kept.add(Outcome::Conflict, 1, true);
        }
        assert_eq!(kept.exceeded_by(Outcome::Refreshed, 1, true), Some(Budget::AfterResult));

        let mut kept = Kept::default();
        kept.add(Outcome::Malformed, MAX_BYTES_BESIDE_RESULT - 1, false);
        assert_eq!(kept.exceeded_by(Outcome::Unrecognised, 1, false), None);
        assert_eq!(kept.exceeded_by(Outcome::Unrecognised, 2, false), Some(Budget::Bytes));
        kept.malformed = MAX_MALFORMED;
        assert_eq!(kept.exceeded_by(Outcome::Malformed, 0, false), Some(Budget::Malformed));
    }
}
