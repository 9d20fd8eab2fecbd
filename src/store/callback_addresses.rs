//! Which callback addresses are ours: the keys that sign them, and each job's own record.

use async_trait::async_trait;

use super::{Lookup, StoreError};
use crate::domain::{callback_address::AddressRecord, ids::JobId, signing_keys::SigningKeys};

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait CallbackAddresses: Send + Sync {
    /// The keys that sign, or signed, callback addresses. They stay the same while the store is
    /// open.
    fn signing_keys(&self) -> &SigningKeys;

    /// The 32 random bytes that sign callback addresses: made on first start, and by a rotation.
    fn signing_key(&self) -> [u8; 32] {
        self.signing_keys().current.bytes
    }

    /// What is on record about a job's callback address.
    ///
    /// # Errors
    /// The caller cannot tell whether the address is valid, and must refuse with a status that
    /// makes the sender repeat the callback.
    async fn callback_address(&self, id: JobId) -> Result<Lookup<AddressRecord>, StoreError>;
}
