//! Erasing jobs wherever bytes of theirs may be: spool, database, write-ahead log, file store.
//!
//! Called by the API's handlers and by the purge worker. The invariant: when [`Eraser::erase`]
//! returns, the bytes are nowhere; where that is not known, it fails, and repeating it goes on.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::{
    blobs::{BlobError, Blobs},
    clock::Clock,
    domain::{ids::JobId, mirror::PendingFileDeletion},
    store::{EraseTarget, ErasedBatch, Lookup, Store, StoreError, intake::Intake},
};

/// Jobs whose files are deleted at a time: each is a few calls to the file store.
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
    /// In a file store that is not known any more.
    #[error("erased jobs have copies, but the settings name no mirror.store to delete them from")]
    NoFileStore,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Eraser {
    pub store: Arc<dyn Store>,
    /// What waits in its spool may be of any job.
    pub intake: Arc<Intake>,
    /// Where copies of outputs are, if there are any.
    pub blobs: Option<Blobs>,
    pub clock: Clock,
}

impl Eraser {
    /// Erases all jobs that are meant, and answers how many; `Erased` if the one job meant is
    /// erased already.
    ///
    /// # Errors
    /// Where something of them may still be. Their rows are in no answer any more.
    pub async fn erase(&self, target: EraseTarget) -> Result<Lookup<u64>, EraseError> {
        let only = match target {
            EraseTarget::Job(id) => Some(id),
            _ => None,
        };
        // A callback that waits may have to make its job first.
        self.intake.drain().await?;
        let erased = self.store.erase(target, self.clock.now()).await?;
        // One that came meanwhile is of an erased job by now, and is not kept.
        self.intake.drain().await?;
        self.delete_files(only).await?;
        Ok(erased)
    }

    /// One batch of an erasure, for those who come back for the next one and then
    /// [`Eraser::finish`] it.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn erase_some(&self, target: &EraseTarget) -> Result<ErasedBatch, StoreError> {
        match self.store.erase_batch(target, self.clock.now()).await? {
            Lookup::Found(batch) => Ok(batch),
            Lookup::Erased | Lookup::Missing => Ok(ErasedBatch { jobs: 0, is_last: true }),
        }
    }

    /// Finishes what an erasure has left, also one that was refused or whose process was killed.
    ///
    /// # Errors
    /// Where something may still be.
    pub async fn finish(&self) -> Result<(), EraseError> {
        // The one that fails must not keep the other from being done.
        let files = self.delete_files(None).await;
        self.intake.drain().await?;
        self.store.finish_erasure().await?;
        files
    }

    /// Deletes the copies of erased jobs, of all or of one.
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
        // Until then, a copy that was under way may be finished: they are deleted once more.
        if deletion.until <= self.clock.now() {
            self.store.finish_file_deletion(deletion.job_id).await?;
        }
        Ok(())
    }
}
