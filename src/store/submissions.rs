//! Submissions on record: before the Engine is called, after it has answered, and when they are
//! sent again.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{Lookup, StoreError};
use crate::domain::{
    ids::JobId,
    job::{Input, Job, JobStatus, Output},
};

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

/// The caller's request that this submission happens only once.
#[derive(Debug)]
pub struct Idempotency {
    /// Name of the API key it came with: each has its own keys.
    pub api_key: String,
    pub key_sha256: [u8; 32],
    /// Of the body, see `json::fingerprint`.
    pub fingerprint: [u8; 32],
}

/// What [`Submissions::begin_submission`] did.
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

/// What [`Submissions::begin_resubmission`] did.
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

/// How the Engine answered a submission.
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

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Submissions: Send + Sync {
    /// Puts a submission on record as `submitting`, or returns the job that its idempotency key
    /// belongs to.
    ///
    /// # Errors
    /// The caller must not call the Engine. It may repeat the submission under its idempotency
    /// key; without a key, the job may be on record even so.
    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError>;

    /// Records the Engine's answer. A job that a callback has finished in the meantime keeps its
    /// status; the rest of the answer is recorded.
    ///
    /// # Errors
    /// The caller may repeat it. A job whose answer is never recorded stays `submitting`; it is
    /// `unconfirmed` after the next start, and a callback still finishes it.
    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError>;

    /// Makes an `unsent` or `rejected` job `submitting` once more, or, if `is_confirmed`, an
    /// `unconfirmed` one. Its callback address will begin with `callback_base`.
    ///
    /// # Errors
    /// The caller must not call the Engine. A repeated call may return [`BegunAgain::InFlight`].
    async fn begin_resubmission(
        &self,
        id: JobId,
        is_confirmed: bool,
        callback_base: &str,
    ) -> Result<Lookup<BegunAgain>, StoreError>;
}
