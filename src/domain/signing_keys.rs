//! The keys that sign callback addresses: the current one and the ones it replaced.
//!
//! Whether one of them signed an address is decided without I/O, and takes the same time for every
//! address that none of them signed.

use serde::{Deserialize, Serialize};

use super::{
    ids::JobId,
    signature::{is_genuine, sign},
};

/// Replaced keys that are accepted at the same time. Each one costs an HMAC for every callback.
pub const MAX_RETIRED_KEYS: usize = 8;

/// The number of a key: 1 for the first one, one more with every rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyNumber(pub i64);

impl KeyNumber {
    /// The key that was generated at the first start.
    pub const FIRST: Self = Self(1);
}

/// A key that signs, or used to sign, callback addresses.
#[derive(Clone)]
pub struct SigningKey {
    pub number: KeyNumber,
    pub bytes: [u8; 32],
}

/// All keys that are accepted.
#[derive(Clone)]
pub struct SigningKeys {
    /// Signs all new addresses.
    pub current: SigningKey,
    /// At most [`MAX_RETIRED_KEYS`]. Each is accepted for jobs that were submitted under it.
    pub retired: Vec<SigningKey>,
}

impl SigningKeys {
    /// The keys of an instance that has only its first key.
    pub fn first(bytes: [u8; 32]) -> Self {
        let current = SigningKey { number: KeyNumber::FIRST, bytes };
        Self { current, retired: Vec::new() }
    }

    /// The key that made this signature for this job; `None` if it is a forgery.
    pub fn signer(&self, id: JobId, signature: &str) -> Option<KeyNumber> {
        // All keys are tried, so that the time does not reveal which one it was.
        self.all().fold(None, |signer, key| {
            let is_signer = is_genuine(&key.bytes, id, signature);
            if is_signer { Some(key.number) } else { signer }
        })
    }

    /// The signature of this job's id by each key.
    pub fn signatures(&self, id: JobId) -> Vec<String> {
        self.all().map(|key| sign(&key.bytes, id)).collect()
    }

    fn all(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.current).chain(&self.retired)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_signature_tells_which_key_made_it() {
        let key = |number, byte| SigningKey { number: KeyNumber(number), bytes: [byte; 32] };
        let keys = SigningKeys { current: key(3, 30), retired: vec![key(1, 10), key(2, 20)] };
        let id = JobId(Uuid::from_u128(7));
        for (byte, number) in [(10, Some(1)), (20, Some(2)), (30, Some(3)), (40, None)] {
            let signer = keys.signer(id, &sign(&[byte; 32], id));
            assert_eq!(signer, number.map(KeyNumber));
        }
        assert_eq!(keys.signer(JobId(Uuid::from_u128(8)), &sign(&[30; 32], id)), None);
        assert_eq!(keys.signatures(id).len(), 3);
    }
}
