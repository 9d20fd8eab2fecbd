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
    /// Gives jobs in flight that have no time for their first look-up one: `after` their
    /// submission.
    ///
    /// # Errors
    /// Some have none yet: repeat the call, which changes no time that is set.
    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError>;

    /// Makes jobs in flight whose callback address is not under `public_url` due at once, each
    /// once for that URL. Answers which.
    ///
    /// # Errors
    /// Repeat the call; those that are due already are not answered again.
    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError>;

    /// Takes up to `limit` jobs that are due, those with a stale callback address first, and lets
    /// nobody else take them before `lease_until`. A time later than a lease and `horizon` was set
    /// by a clock that was wrong, and counts as due.
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

    /// Records a look-up that brought no result, and what follows. Nothing if the job has finished.
    ///
    /// # Errors
    /// The look-up may not be counted; the job is due again when its lease has run out.
    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError>;
}
