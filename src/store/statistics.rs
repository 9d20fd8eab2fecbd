//! Figures over all jobs.

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use crate::domain::job::JobStatus;

/// Figures over all jobs.
#[derive(Debug, Default)]
pub struct Stats {
    /// Every status, also those without a job.
    pub by_status: Vec<(JobStatus, u64)>,
    /// Newest day first, UTC: the day as `2026-11-23`, and its jobs by status.
    pub days: Vec<(String, Vec<(JobStatus, u64)>)>,
    /// From submission to result, milliseconds, ascending, of the jobs that finished last.
    pub turnaround_millis: Vec<u64>,
    /// Jobs past their due time without a result.
    pub overdue: u64,
}

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Statistics: Send + Sync {
    /// Figures as of `now`.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError>;

    /// From submission to result, milliseconds, ascending, of the jobs that finished last.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError>;
}
