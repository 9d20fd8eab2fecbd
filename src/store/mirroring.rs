//! Orders to copy outputs into the file store, the copies, and those that are to be deleted.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Lookup, StoreError};
use crate::domain::{
    ids::JobId,
    mirror::{AfterMirror, DueMirror, FilePlace, FreePlaces, PendingFileDeletion, StoredCopy},
};

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Mirroring: Send + Sync {
    /// Leases outputs that are due and find a free place until `lease_until`, those whose links
    /// expire soonest first. Outputs of a host without a free place are skipped, however many there
    /// are.
    ///
    /// # Errors
    /// Some may be leased: they are due again when the lease has run out.
    async fn claim_mirrors(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        places: FreePlaces,
    ) -> Result<Vec<DueMirror>, StoreError>;

    /// Records the outcome of an attempt, with the job's `secured` and the events that follow.
    /// Unless `Found`, the job is gone and a copy that was made belongs to nobody: delete it.
    ///
    /// # Errors
    /// The copy may not be on record: keep it. It is made again when the lease has run out.
    async fn record_mirror(
        &self,
        place: FilePlace,
        after: AfterMirror,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError>;

    /// At most `limit` copies on record after `after`, in a stable order.
    ///
    /// # Errors
    /// The database cannot be read: ask for the same page again.
    async fn stored_copies(
        &self,
        after: Option<FilePlace>,
        limit: u32,
    ) -> Result<Vec<StoredCopy>, StoreError>;

    /// Up to `limit` erased jobs whose copies are to be deleted.
    ///
    /// # Errors
    /// The database cannot be read: ask again. Until then an erasure is not finished.
    async fn pending_file_deletions(
        &self,
        limit: u32,
    ) -> Result<Vec<PendingFileDeletion>, StoreError>;

    /// Records that the copies of this erased job are deleted for good.
    ///
    /// # Errors
    /// The job may still be listed: delete its copies once more, which does no harm.
    async fn finish_file_deletion(&self, job_id: JobId) -> Result<(), StoreError>;
}
