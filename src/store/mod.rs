//! Everything that must survive a crash, and the only SQL.
//!
//! Called by the HTTP layer and the workers through `Arc<dyn Store>`. The invariants, which
//! `tests/store_conformance.rs` holds every implementation to:
//! - one method is one use case is one transaction; when it returns `Ok`, the change is on disk;
//! - a change that was handed over is carried out even if its caller goes away, and before those
//!   handed over later;
//! - times are supplied by the caller, in whole milliseconds;
//! - `Lookup::Missing` means never on record, `Lookup::Erased` means erased on purpose.

mod arrival;
pub mod intake;
mod sessions;
pub mod spool;
pub mod sqlite;

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::{
    arrival::{Addressee, Arrival, Receipt, SpoolMark, Spooled, inbox_key},
    sessions::{SessionStore, SignedOut},
};
use crate::domain::{
    callback_address::{AddressRecord, Standing},
    delivery::Delivery,
    event::{Event, NewEvent},
    ids::{DeliveryId, JobId},
    job::{Input, Job, JobStatus, Marks, Output},
    mirror::{AfterMirror, Doomed, DueMirror, FilePlace, FreePlaces, StoredCopy},
    page::{JobFilter, JobPage, Page, Position},
    reconcile::{DueJob, Next},
    relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter},
    signing_keys::SigningKeys,
};

/// What a caller can do about a failure.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// The caller's body, see `JobRequest::take_stored_body`.
    pub request: Box<RawValue>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    pub warnings: Vec<String>,
    /// Public URL that the callback address begins with.
    pub callback_base: String,
    /// The caller's own webhook, to which the result is passed on.
    pub relay_url: Option<String>,
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

/// What came of [`Store::begin_resubmission`].
#[derive(Debug)]
pub enum BegunAgain {
    /// It is `submitting` once more: now call the Engine.
    Again(Box<Job>),
    /// It is `unconfirmed`: the Engine may be running it, so a person must confirm.
    NeedsConfirmation,
    /// It is being submitted right now.
    InFlight,
    /// The Engine has it, or it was not submitted here: there is nothing to send again.
    NotNeeded(JobStatus),
}

/// An input by name: its upload address, its notify address.
pub type InputLinks = (String, Option<String>, Option<String>);

/// What the Engine made of a submission.
#[derive(Clone, Debug)]
pub enum EngineAnswer {
    /// It answered 2xx.
    Accepted {
        engine_status: u16,
        response: Option<Box<RawValue>>,
        engine_job_id: Option<String>,
        uploads: Vec<InputLinks>,
        warnings: Vec<String>,
    },
    /// It refused the job for good.
    Rejected { engine_status: u16, response: Option<Box<RawValue>> },
    /// It certainly did not take the job. `reason` is a problem code, `detail` a sentence.
    Unsent { engine_status: Option<u16>, reason: &'static str, detail: String },
    /// Nobody knows whether it took the job. `reason` is a problem code, `detail` a sentence.
    Unconfirmed { engine_status: Option<u16>, reason: &'static str, detail: String },
}

/// What follows from every result, in its own transaction.
#[derive(Clone, Debug, Default)]
pub struct ResultOrders {
    /// Names of the configured targets that it goes to.
    pub relay_targets: Vec<String>,
    /// Its outputs are to be copied.
    pub is_mirroring: bool,
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
    /// Jobs that finished earlier than this.
    FinishedBefore(Timestamp),
}

/// What a batch of an erasure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedBatch {
    pub jobs: u64,
    /// None that was meant is left.
    pub is_last: bool,
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
    /// Jobs past their due time without a result.
    pub overdue: u64,
}

/// What one target has not been passed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub target: String,
    /// Orders that wait for their next attempt.
    pub pending: u64,
    /// Given up; they can be ordered again.
    pub dead: u64,
    /// The target is left alone for a while.
    pub is_paused: bool,
}

/// See the module's invariants.
#[async_trait]
pub trait Store: SessionStore {
    /// The keys that sign, or signed, callback addresses: they stay the same while the store is
    /// open.
    fn signing_keys(&self) -> &SigningKeys;

    /// The 32 random bytes that sign callback addresses: made on first start, and by a rotation.
    fn signing_key(&self) -> [u8; 32] {
        self.signing_keys().current.bytes
    }

    /// What is on record of a job's callback address.
    async fn callback_address(&self, id: JobId) -> Result<Lookup<AddressRecord>, StoreError>;

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

    /// Makes an `unsent` or `rejected` job `submitting` once more, or, if `is_confirmed`, an
    /// `unconfirmed` one. Its callback address will begin with `callback_base`.
    async fn begin_resubmission(
        &self,
        id: JobId,
        is_confirmed: bool,
        callback_base: &str,
    ) -> Result<Lookup<BegunAgain>, StoreError>;

    /// Puts a body on record with everything that follows from it: the delivery, the job's status,
    /// its outputs, its event. What comes after the result changes nothing that is served, unless
    /// the Engine was asked for it.
    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError>;

    /// How far the spool had been taken in when the store was opened; `None`: never any.
    fn spool_mark(&self) -> Option<SpoolMark>;

    /// Takes in an arrival that may have been handed to [`Store::receive`] before, as that would,
    /// with the event `delivery.spooled`, and moves the mark. `None` if that was done before: the
    /// record is not above the mark, or the delivery is on record.
    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError>;

    /// Records that a body for this job was too large to be kept; nothing if its address has ended.
    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<Standing>, StoreError>;

    /// Erases jobs and all that belongs to them, so that their bytes are nowhere in the database.
    /// Answers how many; `Erased` if the one job meant is erased already.
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

    /// Erases the rows of as many of these jobs as others can wait for.
    async fn erase_batch(
        &self,
        target: &EraseTarget,
        now: Timestamp,
    ) -> Result<Lookup<ErasedBatch>, StoreError>;

    /// Overwrites what erased rows left behind, also those of an earlier call that was refused, or
    /// of a process that was killed.
    async fn finish_erasure(&self) -> Result<(), StoreError>;

    /// Gives jobs in flight that have no time for their first look one: `after` their submission.
    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError>;

    /// Makes jobs in flight whose callback address is not under `public_url` due at once, each
    /// once for that URL. Answers which.
    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError>;

    /// Takes up to `limit` jobs that are due, those with a stale callback address first, and lets
    /// nobody else take them before `lease_until`. A time further ahead than `horizon` and a lease
    /// was set by a clock that was wrong, and counts as due.
    async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Result<Vec<DueJob>, StoreError>;

    /// Records a look that brought no result, and what follows. Nothing if the job has finished.
    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError>;

    /// From submission to result, milliseconds, ascending, of the jobs that finished last.
    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError>;

    /// Takes orders that are due: for each target at most `concurrency`, those `under_way` counted,
    /// and for one that is left alone a single probe when its pause is over. Nobody else takes them
    /// before `lease_until`.
    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError>;

    /// Records an attempt and what follows. The attempt's number is given by the store. Nothing if
    /// the order has been erased.
    async fn record_attempt(
        &self,
        id: Uuid,
        attempt: Attempt,
        after: AfterAttempt,
    ) -> Result<(), StoreError>;

    /// Orders again, at once; answers whether there is such an order.
    async fn resend_relay(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Orders again, or counts, all that are meant; answers how many.
    async fn resend_relays(
        &self,
        filter: RelayFilter,
        now: Timestamp,
        is_dry_run: bool,
    ) -> Result<u64, StoreError>;

    /// At most `limit` orders before the one numbered `before`, newest first.
    async fn relays(
        &self,
        filter: &RelayFilter,
        before: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Relay>, StoreError>;

    /// An order with its last attempts in their order, see `bounds::MAX_ATTEMPTS`.
    async fn relay(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Relay, Vec<Attempt>)>, StoreError>;

    /// The targets that have an order which is not delivered, by name.
    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError>;

    /// Records that an input is uploaded; `bytes` is `None` where its caller did it. Nothing
    /// changes for an input that was `notified` or `provided`.
    async fn record_upload(
        &self,
        id: JobId,
        input: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;

    /// Adds an event to its job's timeline; nothing else changes.
    async fn note(&self, event: NewEvent) -> Result<Lookup<()>, StoreError>;

    /// Records that the Engine was told of these inputs.
    async fn record_notified(
        &self,
        id: JobId,
        inputs: Vec<String>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;

    /// Takes outputs that are to be copied now and find a place, those whose links die soonest
    /// first. Those of a host without a place are passed over, however many they are.
    /// Nobody else takes them before `lease_until`.
    async fn claim_mirrors(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        places: FreePlaces,
    ) -> Result<Vec<DueMirror>, StoreError>;

    /// Records what an attempt came to, with the job's `secured` and the events that follow. Unless
    /// `Found`, the job is gone and a copy that was made is nobody's.
    async fn record_mirror(
        &self,
        place: FilePlace,
        after: AfterMirror,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError>;

    /// At most `limit` copies on record behind `after`, in a steady order.
    async fn stored_copies(
        &self,
        after: Option<FilePlace>,
        limit: u32,
    ) -> Result<Vec<StoredCopy>, StoreError>;

    /// Up to `limit` erased jobs whose copies are to be deleted.
    async fn doomed_files(&self, limit: u32) -> Result<Vec<Doomed>, StoreError>;

    /// The copies of this erased job are deleted for good.
    async fn forget_doomed(&self, job_id: JobId) -> Result<(), StoreError>;

    /// Writes for real, to prove that the database takes writes.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;

    /// A job with its inputs and outputs.
    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError>;

    /// At most `limit` jobs that are older than `after`, newest first; fewer where they are large,
    /// see `bounds::MAX_PAGE_BYTES`, but one at least.
    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError>;

    /// What is unusual about each of these jobs that is on record; without a `public_url` no
    /// callback address counts as stale.
    async fn marks(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, Marks>, StoreError>;

    /// The job that the Engine knows by this id, inbox jobs aside; `None` if there is none, or more
    /// than one.
    async fn job_of_engine(&self, engine_job_id: &str) -> Result<Option<JobId>, StoreError>;

    /// `Found(None)` while the job has no result.
    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError>;

    /// The SHA-256 of [`Self::result`], if there is one.
    async fn result_digest(&self, id: JobId) -> Result<Option<[u8; 32]>, StoreError>;

    /// At most `limit` deliveries of a job behind the one numbered `after`, in the order they came;
    /// fewer where they are large, but one at least.
    async fn deliveries(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Delivery>>, StoreError>;

    /// A delivery without its bytes; `None` if it is not on record, or no more.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// The exact bytes of a delivery.
    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError>;

    /// At most `limit` events of a job's timeline behind the one numbered `after`; fewer where they
    /// are large, but one at least. The tombstone of an erased job stands among the events of all.
    async fn events(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Event>>, StoreError>;

    /// Up to `limit` events after `seq`, of all jobs or of one, in their order.
    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError>;

    /// The number of the last event; 0 if there was none.
    async fn last_event(&self) -> Result<i64, StoreError>;

    /// Figures as of `now`.
    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError>;

    /// Takes no more changes, carries out those handed over, closes the database.
    async fn close(&self);
}
