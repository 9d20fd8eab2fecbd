//! Reading jobs, results and deliveries. Nothing here changes what is on record.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{Lookup, StoreError};
use crate::domain::{
    delivery::Delivery,
    ids::{DeliveryId, JobId},
    job::{Job, JobFlags},
    page::{JobFilter, JobPage, Page, Position},
};

/// A job's result: the exact body of the delivery that finished it.
#[derive(Clone, Debug)]
pub struct StoredResult {
    pub body: Bytes,
    pub sha256: [u8; 32],
    pub finished_at: Timestamp,
}

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Querying: Send + Sync {
    /// A job with its inputs and outputs.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError>;

    /// At most `limit` jobs that are older than `after`, newest first; fewer where they are large,
    /// see `bounds::MAX_PAGE_BYTES`, but at least one.
    ///
    /// # Errors
    /// The database cannot be read: ask for the same page again.
    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError>;

    /// The flags of the given jobs that are on record; without a `public_url` no callback address
    /// counts as stale.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn job_flags(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, JobFlags>, StoreError>;

    /// The job that the Engine knows by this id, inbox jobs aside; `None` if there is none, or more
    /// than one.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn job_of_engine(&self, engine_job_id: &str) -> Result<Option<JobId>, StoreError>;

    /// The job's result; `Found(None)` while it has none.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError>;

    /// The SHA-256 of [`Self::result`], if there is one.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn result_digest(&self, id: JobId) -> Result<Option<[u8; 32]>, StoreError>;

    /// At most `limit` deliveries of a job after the one numbered `after`, in the order they came;
    /// fewer where they are large, but at least one.
    ///
    /// # Errors
    /// The database cannot be read: ask for the same page again.
    async fn deliveries(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Delivery>>, StoreError>;

    /// A delivery without its bytes; `None` if it is not, or no longer, on record.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// The exact bytes of a delivery.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError>;
}
