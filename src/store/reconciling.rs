//! Jobs in flight that are to be looked up at the Engine.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use crate::domain::{
    ids::JobId,
    reconcile::{DueJob, Next},
};

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Reconciling: Send + Sync {
    /// Sets the time of the first look-up, `after` their submission, for jobs in flight that have
    /// none.
    ///
    /// # Errors
    /// Some have none yet: repeat the call, which changes no time that is set.
    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError>;

    /// Makes jobs in flight whose callback address is not under `public_url` due at once, each once
    /// for that URL. Returns their ids.
    ///
    /// # Errors
    /// Repeat the call; jobs that were made due already are not returned again.
    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError>;

    /// Leases up to `limit` due jobs until `lease_until`, those with a stale callback address
    /// first. A due time later than `lease_until` plus `horizon` was set while the clock was wrong,
    /// and counts as due.
    ///
    /// # Errors
    /// Some may be leased: they are due again when the lease has run out.
    async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Result<Vec<DueJob>, StoreError>;

    /// Records a look-up that brought no result, and the job's next step. Does nothing if the job
    /// has finished.
    ///
    /// # Errors
    /// The look-up may not be counted; the job is due again when its lease has run out.
    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError>;
}
