//! Submissions: recorded, answered by the Engine, sent again on a person's order.
//!
//! The statements for new submissions and for answers, which the writer runs in batches, are in
//! `submit` and `answer`. Invariant: a job that the Engine may be running is sent again only if a
//! person confirmed it.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{SqliteStore, answer::RecordAnswer, read, use_case::UseCase};
use crate::{
    domain::{
        ids::JobId,
        job::{Job, JobStatus},
    },
    store::{Begun, BegunAgain, EngineAnswer, Lookup, NewSubmission, StoreError, Submissions},
};

#[async_trait]
impl Submissions for SqliteStore {
    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        self.writer.submit(submission).await
    }

    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.writer.answer(RecordAnswer { id, answer, now }).await
    }

    async fn begin_resubmission(
        &self,
        id: JobId,
        is_confirmed: bool,
        callback_base: &str,
    ) -> Result<Lookup<BegunAgain>, StoreError> {
        let callback_base = callback_base.to_owned();
        self.write(Resubmit { id, is_confirmed, callback_base }).await
    }
}

pub(super) struct Resubmit {
    pub id: JobId,
    pub is_confirmed: bool,
    pub callback_base: String,
}

#[async_trait]
impl UseCase for Resubmit {
    type Output = Lookup<BegunAgain>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Self::Output> {
        let mut job = match read::job(connection, self.id).await? {
            Lookup::Found(job) => job,
            Lookup::Erased => return Ok(Lookup::Erased),
            Lookup::Missing => return Ok(Lookup::Missing),
        };
        let refusal = match job.status {
            // The job was made from an arrival: what to send is not on record.
            status if job.request.is_none() => Some(BegunAgain::NotNeeded(status)),
            JobStatus::Unsent | JobStatus::Rejected => None,
            JobStatus::Unconfirmed if self.is_confirmed => None,
            JobStatus::Unconfirmed => Some(BegunAgain::NeedsConfirmation),
            JobStatus::Submitting => Some(BegunAgain::InFlight),
            status => Some(BegunAgain::NotNeeded(status)),
        };
        if let Some(refusal) = refusal {
            return Ok(Lookup::Found(refusal));
        }
        // The Engine may be running an unconfirmed job: its earlier callback address stays valid.
        sqlx::query(
            "update jobs set status = 'submitting', callback_base = ?, overdue = 0, due_at = null,
                 given_up_at = null, lookups = 0, expedited_for = null,
                 earlier_keys = case
                     when status <> 'unconfirmed' then earlier_keys
                     when exists (select 1 from json_each(earlier_keys) where value = key_number)
                         then earlier_keys
                     else json_insert(earlier_keys, '$[#]', key_number) end,
                 key_number = (select key_number from instance where id = 1)
             where id = ?",
        )
        .bind(&self.callback_base)
        .bind(self.id.0)
        .execute(connection)
        .await?;
        job.status = JobStatus::Submitting;
        Ok(Lookup::Found(BegunAgain::Again(Box::new(job))))
    }
}
