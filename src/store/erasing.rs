//! Erasing jobs for good.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Lookup, StoreError};
use crate::domain::ids::JobId;

/// Which jobs to erase.
#[derive(Clone, Debug)]
pub enum EraseTarget {
    Job(JobId),
    EndUser(String),
    /// Jobs that finished earlier than this.
    FinishedBefore(Timestamp),
}

/// What one batch of an erasure did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedBatch {
    pub jobs: u64,
    /// No other job matches the target.
    pub is_last: bool,
}

/// A part of [`super::Store`], whose promises hold here too. Erasing has two steps: a batch removes
/// jobs from all answers; [`Self::finish_erasure`] then erases them for good, so that no file of
/// the store holds a byte of them.
#[async_trait]
pub trait Erasing: Send + Sync {
    /// Erases jobs and all that belongs to them for good. Returns how many; `Erased` if the target
    /// is one job that is erased already.
    ///
    /// # Errors
    /// Some may be left, or not erased for good: repeat the call, which continues.
    async fn erase(&self, target: EraseTarget, now: Timestamp) -> Result<Lookup<u64>, StoreError> {
        let mut erased = 0;
        let outcome = loop {
            match self.erase_batch(&target, now).await? {
                Lookup::Found(batch) => {
                    erased += batch.jobs;
                    if batch.is_last {
                        break Lookup::Found(erased);
                    }
                }
                Lookup::Erased => break Lookup::Erased,
                Lookup::Missing => break Lookup::Missing,
            }
        };
        self.finish_erasure().await?;
        Ok(outcome)
    }

    /// Erases one batch of these jobs, small enough not to hold up other changes; not for good yet.
    ///
    /// # Errors
    /// The whole batch is erased, or nothing of it: repeat the call.
    async fn erase_batch(
        &self,
        target: &EraseTarget,
        now: Timestamp,
    ) -> Result<Lookup<ErasedBatch>, StoreError>;

    /// Erases all earlier batches for good, including those of a call that failed or of a process
    /// that was killed.
    ///
    /// # Errors
    /// Bytes of erased jobs may still be in the store's files: repeat the call.
    async fn finish_erasure(&self) -> Result<(), StoreError>;
}
