//! Submissions: put on record before the Engine is called, completed with its answer.
//!
//! Called by the writer within its transaction. The invariant: for one idempotency key there is one
//! job, and it is `submitting` for one caller at a time.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{read, rows, writer::UseCase};
use crate::{
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
        job::{Input, Job, JobStatus, Output},
    },
    store::{Begun, EngineAnswer, Idempotency, Lookup, NewSubmission},
};

#[async_trait]
impl UseCase for NewSubmission {
    type Output = Begun;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Begun> {
        if let Some(idempotency) = &self.idempotency
            && let Some(begun) = self.answer_by_key(connection, idempotency).await?
        {
            return Ok(begun);
        }
        self.insert(connection).await?;
        if let Some(idempotency) = &self.idempotency {
            self.insert_key(connection, idempotency).await?;
        }
        Ok(Begun::New(found(connection, self.id).await?))
    }
}

impl NewSubmission {
    /// What the key stands for already; `None` if it is new.
    async fn answer_by_key(
        &self,
        connection: &mut SqliteConnection,
        idempotency: &Idempotency,
    ) -> sqlx::Result<Option<Begun>> {
        let row = sqlx::query(
            "select fingerprint, job_id from idempotency_keys where api_key = ? and key_sha256 = ?",
        )
        .bind(&idempotency.api_key)
        .bind(&idempotency.key_sha256[..])
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if rows::digest(&row, "fingerprint")? != idempotency.fingerprint {
            return Ok(Some(Begun::Mismatch));
        }
        let id = JobId(row.try_get("job_id")?);
        let Lookup::Found(job) = read::job(connection, id).await? else {
            return Ok(Some(Begun::Erased(id)));
        };
        Ok(Some(match job.status {
            JobStatus::Submitting => Begun::InFlight,
            JobStatus::Unsent => {
                sqlx::query(
                    "update jobs set status = 'submitting', callback_base = ? where id = ?",
                )
                .bind(&self.callback_base)
                .bind(id.0)
                .execute(&mut *connection)
                .await?;
                Begun::Again(found(connection, id).await?)
            }
            _ => Begun::Replay(Box::new(job)),
        }))
    }

    async fn insert(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let job_seq = sqlx::query(
            "insert into jobs (id, origin, status, reference, end_user_id, cloud_package,
                 external_job_id, callback_base, relay_url, created_at, warnings)
             values (?, 'submitted', 'submitting', ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.id.0)
        .bind(&self.reference)
        .bind(&self.end_user_id)
        .bind(&self.cloud_package)
        .bind(&self.external_job_id)
        .bind(&self.callback_base)
        .bind(&self.relay_url)
        .bind(self.now.as_millisecond())
        .bind(rows::json_texts(&self.warnings))
        .execute(&mut *connection)
        .await?
        .last_insert_rowid();
        sqlx::query("insert into job_bodies (job_seq, request) values (?, ?)")
            .bind(job_seq)
            .bind(self.request.get())
            .execute(&mut *connection)
            .await?;
        let inputs: Vec<(i64, &Input)> = (0..).zip(&self.inputs).collect();
        for chunk in inputs.chunks(rows::ROWS_PER_STATEMENT) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "insert into job_inputs (job_seq, position, name, extension, state) ",
            );
            query.push_values(chunk, |mut row, (position, input)| {
                row.push_bind(job_seq)
                    .push_bind(position)
                    .push_bind(&input.name)
                    .push_bind(&input.extension)
                    .push_bind(input.state.as_str());
            });
            query.build().execute(&mut *connection).await?;
        }
        let outputs: Vec<(i64, i64, &Output)> = (0..)
            .zip(&self.outputs)
            .map(|(position, output)| (job_seq, position, output))
            .collect();
        rows::upsert_outputs(connection, &outputs).await
    }

    async fn insert_key(
        &self,
        connection: &mut SqliteConnection,
        idempotency: &Idempotency,
    ) -> sqlx::Result<()> {
        sqlx::query(
            "insert into idempotency_keys (api_key, key_sha256, fingerprint, job_id, created_at)
             values (?, ?, ?, ?, ?)",
        )
        .bind(&idempotency.api_key)
        .bind(&idempotency.key_sha256[..])
        .bind(&idempotency.fingerprint[..])
        .bind(self.id.0)
        .bind(self.now.as_millisecond())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The Engine's answer to the submission of a job.
pub(super) struct RecordAnswer {
    pub id: JobId,
    pub answer: EngineAnswer,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for RecordAnswer {
    type Output = Lookup<Job>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<Job>> {
        let job = match read::job(connection, self.id).await? {
            Lookup::Found(job) => job,
            gone => return Ok(gone),
        };
        let status = if job.status.is_finished() { job.status } else { self.status() };
        let mut warnings = job.warnings;
        warnings.extend(self.warnings().iter().cloned());
        sqlx::query(
            "update jobs set status = ?, engine_status = ?, warnings = ?,
                 engine_job_id = coalesce(?, engine_job_id), submitted_at = coalesce(?, submitted_at)
             where id = ?",
        )
        .bind(status.as_str())
        .bind(self.engine_status())
        .bind(rows::json_texts(&warnings))
        .bind(self.engine_job_id())
        .bind(self.submitted_at())
        .bind(self.id.0)
        .execute(&mut *connection)
        .await?;
        if let Some(response) = self.response() {
            sqlx::query(
                "update job_bodies set engine_response = ?
                 where job_seq = (select seq from jobs where id = ?)",
            )
            .bind(response)
            .bind(self.id.0)
            .execute(&mut *connection)
            .await?;
        }
        self.update_inputs(connection).await?;
        // To a finished job, an answer that would leave it open is no news.
        if status == self.status() || matches!(self.answer, EngineAnswer::Accepted { .. }) {
            rows::insert_events(connection, &[self.event()]).await?;
        }
        read::job(connection, self.id).await
    }
}

impl RecordAnswer {
    fn status(&self) -> JobStatus {
        match self.answer {
            EngineAnswer::Accepted { .. } => JobStatus::Submitted,
            EngineAnswer::Rejected { .. } => JobStatus::Rejected,
            EngineAnswer::Unsent { .. } => JobStatus::Unsent,
            EngineAnswer::Unconfirmed { .. } => JobStatus::Unconfirmed,
        }
    }

    fn engine_status(&self) -> Option<u16> {
        match self.answer {
            EngineAnswer::Accepted { engine_status, .. }
            | EngineAnswer::Rejected { engine_status, .. } => Some(engine_status),
            EngineAnswer::Unsent { engine_status, .. }
            | EngineAnswer::Unconfirmed { engine_status, .. } => engine_status,
        }
    }

    fn response(&self) -> Option<&str> {
        match &self.answer {
            EngineAnswer::Accepted { response, .. } | EngineAnswer::Rejected { response, .. } => {
                response.as_ref().map(|body| body.get())
            }
            _ => None,
        }
    }

    fn engine_job_id(&self) -> Option<&str> {
        match &self.answer {
            EngineAnswer::Accepted { engine_job_id, .. } => engine_job_id.as_deref(),
            _ => None,
        }
    }

    fn submitted_at(&self) -> Option<i64> {
        matches!(self.answer, EngineAnswer::Accepted { .. }).then(|| self.now.as_millisecond())
    }

    fn warnings(&self) -> &[String] {
        match &self.answer {
            EngineAnswer::Accepted { warnings, .. } => warnings,
            _ => &[],
        }
    }

    async fn update_inputs(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let EngineAnswer::Accepted { uploads, .. } = &self.answer else { return Ok(()) };
        for (name, upload_url, notify_url) in uploads {
            sqlx::query(
                "update job_inputs set upload_url = ?, notify_url = ?
                 where job_seq = (select seq from jobs where id = ?) and name = ?",
            )
            .bind(upload_url)
            .bind(notify_url)
            .bind(self.id.0)
            .bind(name)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }

    fn event(&self) -> NewEvent {
        let (kind, reason) = match &self.answer {
            EngineAnswer::Accepted { .. } => (EventType::JobSubmitted, None),
            EngineAnswer::Rejected { .. } => (EventType::JobRejected, Some("engine-rejected")),
            EngineAnswer::Unsent { reason, .. } => (EventType::JobUnsent, Some(*reason)),
            EngineAnswer::Unconfirmed { reason, .. } => (EventType::JobUnconfirmed, Some(*reason)),
        };
        let data = match reason {
            None => json!({ "engineJobId": self.engine_job_id() }),
            Some(reason) => json!({ "reason": reason, "engineStatus": self.engine_status() }),
        };
        NewEvent::new(self.id, kind, self.now).with(data)
    }
}

/// Jobs that were being submitted when the process ended: nobody knows whether the Engine took
/// them. Answers how many there were.
pub(super) async fn settle_interrupted(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<usize> {
    let rows = sqlx::query(
        "update jobs set status = 'unconfirmed' where status = 'submitting' returning id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let event = NewEvent::new(JobId(row.try_get("id")?), EventType::JobUnconfirmed, now);
        events.push(event.with(json!({ "reason": "interrupted", "engineStatus": null })));
    }
    for chunk in events.chunks(1_000) {
        rows::insert_events(connection, chunk).await?;
    }
    Ok(rows.len())
}

async fn found(connection: &mut SqliteConnection, id: JobId) -> sqlx::Result<Box<Job>> {
    match read::job(connection, id).await? {
        Lookup::Found(job) => Ok(Box::new(job)),
        Lookup::Erased | Lookup::Missing => Err(sqlx::Error::RowNotFound),
    }
}
