//! Recording arrivals, directly or from the emergency spool.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Arrival, Lookup, Receipt, SpoolMark, Spooled, StoreError};
use crate::domain::{callback_address::Standing, ids::JobId};

/// What every result orders, in the transaction that records the result.
#[derive(Clone, Debug, Default)]
pub struct ResultOrders {
    /// Names of the configured targets that it goes to.
    pub relay_targets: Vec<String>,
    /// Its outputs are to be copied.
    pub is_mirroring: bool,
}

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Receiving: Send + Sync {
    /// Puts a body on record with everything that follows from it: the delivery, the job's status,
    /// its outputs, its event. After the result, an arrival changes nothing that is served, unless
    /// the Engine was asked for it.
    ///
    /// # Errors
    /// The caller must not acknowledge the body. It may hand the same arrival to the spool, which
    /// is drained without counting it twice, or have the sender repeat it.
    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError>;

    /// How far the emergency spool has been drained; `None`: never.
    ///
    /// # Errors
    /// The database cannot be read: ask again before the spool is drained.
    async fn spool_mark(&self) -> Result<Option<SpoolMark>, StoreError>;

    /// Puts an arrival from the spool on record, as [`Self::receive`] would, with the event
    /// `delivery.spooled`, and moves the mark. `None` if that was done before: the record is not
    /// above the mark, or the delivery is on record.
    ///
    /// # Errors
    /// The record must stay in the spool; the caller repeats the call, which does no harm.
    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError>;

    /// Records that a body for this job was too large to be kept; nothing if its address has ended.
    ///
    /// # Errors
    /// The refusal of the body may have left no trace. The caller refuses the body in any case.
    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<Standing>, StoreError>;
}
