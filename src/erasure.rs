//! Erases jobs everywhere their bytes may be: spool, database, write-ahead log, file store.
//!
//! Called by the API's handlers and by the purge worker. Invariant: when [`Eraser::erase`] returns
//! `Ok`, no bytes of the jobs are left; if that is uncertain it fails, and a repeated call
//! continues.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::{
    blobs::{BlobError, Blobs},
    clock::Clock,
    domain::{ids::JobId, mirror::PendingFileDeletion},
    store::{EraseTarget, ErasedBatch, Lookup, Store, StoreError, intake::Intake},
};

/// Jobs whose files are deleted concurrently: each takes a few calls to the file store.
const DELETIONS_AT_ONCE: usize = 8;

/// Where bytes of an erased job may still be.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// In the spool, the database or its log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// In the file store.
    #[error(transparent)]
    Files(#[from] BlobError),
    /// In a file store that the settings no longer name.
    #[error("erased jobs have copies, but the settings name no mirror.store to delete them from")]
    NoFileStore,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Eraser {
    pub store: Arc<dyn Store>,
    /// A record waiting in its spool may belong to any job.
    pub intake: Arc<Intake>,
    /// Where copies of outputs are kept; `None` without a file store.
    pub blobs: Option<Blobs>,
    pub clock: Clock,
}

impl Eraser {
    /// Erases all jobs of the target and returns how many; `Erased` if the target is one job that
    /// is erased already.
    ///
    /// # Errors
    /// Some jobs, or bytes of them, may be left where the error says: repeat the call, which
    /// continues.
    pub async fn erase(&self, target: EraseTarget) -> Result<Lookup<u64>, EraseError> {
        let only = match target {
            EraseTarget::Job(id) => Some(id),
            _ => None,
        };
        // A waiting callback may first have to create its job.
        self.intake.drain().await?;
        let erased = self.store.erase(target, self.clock.now()).await?;
        // A callback that arrived meanwhile belongs to an erased job now and is not kept.
        self.intake.drain().await?;
        self.delete_files(only).await?;
        Ok(erased)
    }

    /// Erases one batch, for callers that repeat the call until the last batch and then call
    /// [`Eraser::finish`].
    ///
    /// # Errors
    /// The store refuses: repeat the call.
    pub async fn erase_some(&self, target: &EraseTarget) -> Result<ErasedBatch, StoreError> {
        match self.store.erase_batch(target, self.clock.now()).await? {
            Lookup::Found(batch) => Ok(batch),
            Lookup::Erased | Lookup::Missing => Ok(ErasedBatch { jobs: 0, is_last: true }),
        }
    }

    /// Finishes earlier erasures, including those that were refused or whose process was killed.
    ///
    /// # Errors
    /// Bytes may be left where the error says: repeat the call.
    pub async fn finish(&self) -> Result<(), EraseError> {
        // A failure here must not prevent the steps below.
        let files = self.delete_files(None).await;
        self.intake.drain().await?;
        self.store.finish_erasure().await?;
        files
    }

    /// Deletes the copies of one erased job, or of all.
    async fn delete_files(&self, only: Option<JobId>) -> Result<(), EraseError> {
        let pending = self.store.pending_file_deletions(u32::MAX).await?;
        let meant = pending.into_iter().filter(|one| only.is_none_or(|id| id == one.job_id));
        let deletions = stream::iter(meant).map(|one| self.delete_files_of(one));
        let outcomes: Vec<Result<(), EraseError>> =
            deletions.buffer_unordered(DELETIONS_AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }

    async fn delete_files_of(&self, deletion: PendingFileDeletion) -> Result<(), EraseError> {
        let blobs = self.blobs.as_ref().ok_or(EraseError::NoFileStore)?;
        blobs.delete_job(deletion.job_id).await?;
        // Until then a copy in progress may still be finished, so the files are deleted once more.
        if deletion.until <= self.clock.now() {
            self.store.finish_file_deletion(deletion.job_id).await?;
        }
        Ok(())
    }
}
