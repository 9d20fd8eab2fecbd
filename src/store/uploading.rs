//! The progress of jobs' inputs: uploaded, Engine notified.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Lookup, StoreError};
use crate::domain::{ids::JobId, job::Job};

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Uploading: Send + Sync {
    /// Records that an input is uploaded; `bytes` is `None` where its caller did it. Nothing
    /// changes for an input that was `notified` or `provided`.
    ///
    /// # Errors
    /// The bytes are at the Engine's storage; the caller may repeat the call, which adds at most
    /// one more event.
    async fn record_upload(
        &self,
        id: JobId,
        input: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;

    /// Records that the Engine was notified of these inputs.
    ///
    /// # Errors
    /// The Engine knows of the inputs; the caller may repeat the call, or notify again.
    async fn record_notified(
        &self,
        id: JobId,
        inputs: Vec<String>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;
}
