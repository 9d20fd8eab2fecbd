//! Everything that must survive a crash, and the only SQL.
//!
//! Called by the HTTP layer and the workers through `Arc<dyn Store>`. The invariants, which
//! `tests/store_conformance.rs` holds every implementation to:
//! - one method is one use case is one transaction; when it returns `Ok`, the change is on disk;
//! - a change that was handed over is carried out even if its caller goes away, and before those
//!   handed over later;
//! - times are supplied by the caller, in whole milliseconds;
//! - `Lookup::Missing` means never on record, `Lookup::Erased` means erased on purpose.

pub mod intake;
pub mod spool;
pub mod sqlite;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde_json::value::RawValue;

use self::spool::SpoolId;
use crate::domain::{
    delivery::{Delivery, Outcome},
    event::Event,
    ids::{DeliveryId, JobId},
    job::{Input, Job, JobStatus, Output},
    page::{JobFilter, JobPage, Position},
    result::Reading,
};

/// What a caller can do about a failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue of changes is full: try again in a moment.
    #[error("more changes are waiting than the database can take in")]
    Overloaded,
    /// The database refuses (full, locked, damaged, closed); the text is for the log only.
    #[error("the database refuses: {0}")]
    Unavailable(String),
}

/// The answer to a question about one thing.
#[derive(Debug)]
pub enum Lookup<T> {
    Found(T),
    /// It was on record and has been erased.
    Erased,
    Missing,
}

/// A submission to be put on record before the Engine is called.
#[derive(Debug)]
pub struct NewSubmission {
    pub id: JobId,
    pub now: Timestamp,
    pub reference: Option<String>,
    pub end_user_id: Option<String>,
    pub cloud_package: Option<String>,
    pub external_job_id: Option<String>,
    /// The caller's body, see `JobRequest::stored_body`.
    pub request: Box<RawValue>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub warnings: Vec<String>,
    /// Public URL that the callback address begins with.
    pub callback_base: String,
    pub idempotency: Option<Idempotency>,
}

/// The caller's wish that this submission happens once.
#[derive(Debug)]
pub struct Idempotency {
    /// Name of the API key it came with: each has its own keys.
    pub api_key: String,
    pub key_sha256: [u8; 32],
    /// Of the body, see `json::fingerprint`.
    pub fingerprint: [u8; 32],
}

/// What came of [`Store::begin_submission`].
#[derive(Debug)]
pub enum Begun {
    /// On record as `submitting`: now call the Engine.
    New(Box<Job>),
    /// The key's job was `unsent` and is `submitting` once more, under its own id.
    Again(Box<Job>),
    /// The key's job; nothing was changed.
    Replay(Box<Job>),
    /// The key's job is `submitting`.
    InFlight,
    /// The key was used with another body.
    Mismatch,
    /// The key's job has been erased.
    Erased(JobId),
}

/// What the Engine made of a submission.
#[derive(Clone, Debug)]
pub enum EngineAnswer {
    /// It answered 2xx.
    Accepted {
        engine_status: u16,
        response: Option<Box<RawValue>>,
        engine_job_id: Option<String>,
        /// For inputs by name: upload address, notify address.
        uploads: Vec<(String, Option<String>, Option<String>)>,
        warnings: Vec<String>,
    },
    /// It refused the job for good.
    Rejected { engine_status: u16, response: Option<Box<RawValue>> },
    /// It certainly did not take the job. `reason` is a problem code.
    Unsent { engine_status: Option<u16>, reason: &'static str },
    /// Nobody knows whether it took the job. `reason` is a problem code.
    Unconfirmed { engine_status: Option<u16>, reason: &'static str },
}

/// What a body was received for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// The job that a callback address proves.
    Job(JobId),
    /// The inbox job with this key (SHA-256 of the Engine's id, else of the body), made if there
    /// is none.
    Inbox([u8; 32]),
}

/// A body that was received, read and digested, to be put on record.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub delivery_id: DeliveryId,
    pub addressee: Addressee,
    pub received_at: Timestamp,
    /// The sender's address.
    pub source: String,
    /// Credentials redacted.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub sha256: [u8; 32],
    pub reading: Reading,
}

/// What became of an [`Arrival`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// On record, with this outcome.
    Kept { job_id: JobId, outcome: Outcome },
    /// The job has been erased; nothing was kept.
    Erased,
}

/// How far an emergency spool has been taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolMark {
    /// Which spool file.
    pub spool: SpoolId,
    /// Its records up to this number have been taken in.
    pub number: u64,
}

/// An arrival that waited in the emergency spool.
#[derive(Clone, Debug)]
pub struct Spooled {
    pub arrival: Arrival,
    pub spool: SpoolId,
    /// Its record's number.
    pub number: u64,
    /// No older record waits, so the mark may move up to this one.
    pub is_oldest: bool,
}

/// A job's result: the exact body of the delivery that settled it.
#[derive(Clone, Debug)]
pub struct StoredResult {
    pub body: Bytes,
    pub sha256: [u8; 32],
    pub finished_at: Timestamp,
}

/// Which jobs to erase.
#[derive(Clone, Debug)]
pub enum EraseTarget {
    Job(JobId),
    EndUser(String),
}

/// Figures over all jobs.
#[derive(Debug, Default)]
pub struct Stats {
    /// Every status, also those without a job.
    pub by_status: Vec<(JobStatus, u64)>,
    /// Newest day first, UTC: the day as `2026-11-23`, and its jobs by status.
    pub days: Vec<(String, Vec<(JobStatus, u64)>)>,
    /// From submission to result, milliseconds, ascending, of the jobs that finished last.
    pub turnaround_millis: Vec<u64>,
}

/// See the module's invariants.
#[async_trait]
pub trait Store: Send + Sync {
    /// The 32 random bytes that sign callback addresses: made on first start, the same ever after.
    fn signing_key(&self) -> [u8; 32];

    /// Puts a submission on record as `submitting`, or answers what its idempotency key stands for.
    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError>;

    /// Records the Engine's answer. A job that a callback has finished in the meantime keeps its
    /// status; the rest of the answer is recorded all the same.
    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;

    /// Puts a body on record with everything that follows from it: the delivery, the job's status,
    /// its outputs, its event.
    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError>;

    /// How far the spool had been taken in when the store was opened; `None`: never any.
    fn spool_mark(&self) -> Option<SpoolMark>;

    /// Takes in an arrival that may have been handed to [`Store::receive`] before, as that would,
    /// with the event `delivery.spooled`, and moves the mark. `None` if that was done before: the
    /// record is not above the mark, or the delivery is on record.
    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError>;

    /// Records that a body for this job was too large to be kept.
    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError>;

    /// Erases jobs and all that belongs to them, so that their bytes are nowhere in the database.
    /// Answers how many; `Erased` if the one job meant is erased already.
    async fn erase(&self, target: EraseTarget, now: Timestamp) -> Result<Lookup<u64>, StoreError>;

    /// Writes for real, to prove that the database takes writes.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;

    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError>;

    /// At most `limit` jobs that are older than `after`, newest first.
    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError>;

    /// All jobs of a filter, newest first, page by page as the reader takes them.
    fn all_jobs(&self, filter: JobFilter) -> BoxStream<'static, Result<Job, StoreError>>;

    /// `Found(None)` while the job has no result.
    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError>;

    /// A job's deliveries in the order they came.
    async fn deliveries(&self, job_id: JobId) -> Result<Lookup<Vec<Delivery>>, StoreError>;

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// The exact bytes of a delivery.
    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError>;

    /// A job's timeline; of an erased job only the tombstone is left.
    async fn events(&self, job_id: JobId) -> Result<Lookup<Vec<Event>>, StoreError>;

    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError>;

    /// Takes no more changes, carries out those handed over, closes the database.
    async fn close(&self);
}
