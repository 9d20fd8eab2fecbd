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
        let mut query = QueryBuilder::<Sqlite>::new(
            "insert into jobs (id, origin, status, reference, end_user_id, cloud_package,
                 external_job_id, callback_base, relay_url, created_at, warnings) ",
        );
        query.push_values([self], |mut row, job| {
            row.push_bind(job.id.0)
                .push("'submitted'")
                .push("'submitting'")
                .push_bind(&job.reference)
                .push_bind(&job.end_user_id)
                .push_bind(&job.cloud_package)
                .push_bind(&job.external_job_id)
                .push_bind(&job.callback_base)
                .push_bind(&job.relay_url)
                .push_bind(job.now.as_millisecond())
                .push_bind(rows::json_texts(&job.warnings));
        });
        // Its rowid is the job's seq again, and the tables of parts have none.
        query.push("; insert into job_bodies (job_seq, request) values (last_insert_rowid(), ");
        query.push_bind(self.request.get()).push(");");
        let inputs: Vec<(i64, &Input)> = (0..).zip(&self.inputs).collect();
        for chunk in inputs.chunks(rows::ROWS_PER_STATEMENT) {
            query.push("insert into job_inputs (job_seq, position, name, extension, state) ");
            query.push_values(chunk, |mut row, (position, input)| {
                row.push("last_insert_rowid()")
                    .push_bind(position)
                    .push_bind(&input.name)
                    .push_bind(&input.extension)
                    .push_bind(input.state.as_str());
            });
            query.push(";");
        }
        let job_seq = query.build().execute(&mut *connection).await?.last_insert_rowid();
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
        let mut query = QueryBuilder::<Sqlite>::new("update jobs set status = ");
        query.push_bind(status.as_str());
        query.push(", engine_status = ").push_bind(self.engine_status());
        query.push(", warnings = ").push_bind(rows::json_texts(&warnings));
        query.push(", engine_job_id = coalesce(").push_bind(self.engine_job_id());
        query.push(", engine_job_id), submitted_at = coalesce(").push_bind(self.submitted_at());
        query.push(", submitted_at) where id = ").push_bind(self.id.0).push(";");
        if let Some(response) = self.response() {
            query.push("update job_bodies set engine_response = ").push_bind(response);
            query.push(" where job_seq = (select seq from jobs where id = ");
            query.push_bind(self.id.0).push(");");
        }
        // To a finished job, an answer that would leave it open is no news.
        if status == self.status() || matches!(self.answer, EngineAnswer::Accepted { .. }) {
            rows::push_events(&mut query, &[self.event()]);
        }
        query.build().execute(&mut *connection).await?;
        self.update_inputs(connection).await?;
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
