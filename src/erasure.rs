//! Erasing jobs wherever bytes of theirs may be: the spool, the database, its write-ahead log.
//!
//! Called by the API's handlers and by the purge worker. The invariant: when [`Eraser::erase`]
//! returns, the bytes are nowhere; where that is not known, it fails, and repeating it goes on.

use std::sync::Arc;

use crate::{
    clock::Clock,
    store::{EraseTarget, ErasedBatch, Lookup, Store, StoreError, intake::Intake},
};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Eraser {
    pub store: Arc<dyn Store>,
    /// What waits in its spool may be of any job.
    pub intake: Arc<Intake>,
    pub clock: Clock,
}

impl Eraser {
    /// Erases all jobs that are meant, and answers how many; `Erased` if the one job meant is
    /// erased already.
    ///
    /// # Errors
    /// Something of them may still be in a file. What the database held is gone from every answer.
    pub async fn erase(&self, target: EraseTarget) -> Result<Lookup<u64>, StoreError> {
        // A callback that waits may have to make its job first.
        self.intake.take_in().await?;
        let erased = self.store.erase(target, self.clock.now()).await?;
        // One that came meanwhile is of an erased job by now, and is not kept.
        self.intake.take_in().await?;
        Ok(erased)
    }

    /// One batch of an erasure, for those who come back for the next one.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn erase_some(&self, target: &EraseTarget) -> Result<ErasedBatch, StoreError> {
        match self.store.erase_batch(target, self.clock.now()).await? {
            Lookup::Found(batch) => Ok(batch),
            Lookup::Erased | Lookup::Missing => Ok(ErasedBatch { jobs: 0, is_last: true }),
        }
    }

    /// Goes on where an erasure was refused or its process was killed, if there was one.
    ///
    /// # Errors
    /// Something may still be in a file.
    pub async fn finish(&self) -> Result<(), StoreError> {
        self.store.finish_erasure().await?;
        self.intake.take_in().await.map(|_| ())
    }
}
