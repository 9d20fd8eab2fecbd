//! Events: each job's timeline, and all of them in the order of their commits.

use async_trait::async_trait;

use super::{Lookup, StoreError};
use crate::domain::{
    event::{Event, NewEvent},
    ids::JobId,
    page::Page,
};

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Timeline: Send + Sync {
    /// Adds an event to its job's timeline; nothing else changes.
    ///
    /// # Errors
    /// The event may be missing. A repeated call may add it twice.
    async fn note(&self, event: NewEvent) -> Result<Lookup<()>, StoreError>;

    /// At most `limit` events of a job's timeline after the one numbered `after`; fewer where they
    /// are large, but at least one. The tombstone of an erased job is among the events of all jobs
    /// only.
    ///
    /// # Errors
    /// The database cannot be read: ask for the same page again.
    async fn events(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Event>>, StoreError>;

    /// Up to `limit` events after `seq`, of all jobs or of one, in their order.
    ///
    /// # Errors
    /// The database cannot be read: ask again from the same number.
    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError>;

    /// The number of the last event; 0 if there was none.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn last_event(&self) -> Result<i64, StoreError>;
}
