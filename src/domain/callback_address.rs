//! How long a job's callback address is valid, and under which keys.
//!
//! Used by the store within the transaction that stores a delivery, and by the callbacks listener
//! for addresses that a replaced key signed.

use jiff::{SignedDuration, Timestamp};

use super::signing_keys::KeyNumber;

/// From the end of a job until its callback address expires.
pub const LIFE_AFTER_RESULT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is recorded about a job's callback address.
#[derive(Clone, Debug)]
pub struct AddressRecord {
    pub finished_at: Option<Timestamp>,
    /// The key that signed it.
    pub key: KeyNumber,
    /// Keys that signed an earlier submission of the job, which may be running at the Engine.
    pub earlier_keys: Vec<KeyNumber>,
}

/// Whether an address is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Deliveries to it are accepted.
    Valid,
    /// Its job finished too long ago.
    Ended,
    /// The job was never submitted with it.
    NotOurs,
}

impl AddressRecord {
    /// Whether the job's address, signed with this key, is accepted at a time. The current key is
    /// accepted for every job: it has only signed addresses that are meant for callbacks.
    pub fn standing(&self, signer: KeyNumber, current: KeyNumber, at: Timestamp) -> Standing {
        let was_given_out =
            signer == current || signer == self.key || self.earlier_keys.contains(&signer);
        if !was_given_out {
            return Standing::NotOurs;
        }
        self.standing_at(at)
    }

    /// The same, regardless of the key.
    pub fn standing_at(&self, at: Timestamp) -> Standing {
        let has_ended = self.finished_at.is_some_and(|finished_at| finished_at < last_end(at));
        if has_ended { Standing::Ended } else { Standing::Valid }
    }
}

/// The addresses of jobs that finished before this time have expired at `at`.
pub fn last_end(at: Timestamp) -> Timestamp {
    at.checked_sub(LIFE_AFTER_RESULT).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_seven_days_after_its_job_and_knows_its_keys() {
        let at = |hours| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        let [one, two, three] = [1, 2, 3].map(KeyNumber);
        let record =
            |finished_at, earlier_keys| AddressRecord { finished_at, key: one, earlier_keys };
        let open = record(None, vec![]);
        assert_eq!(open.standing(one, one, at(100_000)), Standing::Valid);
        assert_eq!(open.standing(one, two, at(0)), Standing::Valid, "submitted under it");
        assert_eq!(open.standing(two, two, at(0)), Standing::Valid, "the current one");
        assert_eq!(open.standing(two, three, at(0)), Standing::NotOurs);
        assert_eq!(record(None, vec![two]).standing(two, three, at(0)), Standing::Valid);
        let finished = record(Some(at(1)), vec![]);
        assert_eq!(finished.standing(one, one, at(1 + 7 * 24)), Standing::Valid);
        assert_eq!(finished.standing(one, one, at(2 + 7 * 24)), Standing::Ended);
        assert_eq!(finished.standing(two, three, at(2 + 7 * 24)), Standing::NotOurs);
    }
}
