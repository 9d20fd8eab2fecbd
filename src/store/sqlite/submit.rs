//! Records submissions before the Engine is called, many at a time.
//!
//! Called by the writer within its transaction; `answer` completes them. Invariant: for one
//! idempotency key there is one job, and it is `submitting` for one caller at a time.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{pipeline::Pipeline, read, rows};
use crate::{
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
        job::{Input, Job, JobStatus, Origin},
        time::from_millis,
    },
    store::{Begun, Idempotency, Lookup, NewSubmission},
};

/// Records submissions; returns what became of each, in the same order.
pub(super) async fn begin(
    pipeline: &mut Pipeline<'_>,
    submissions: &[&NewSubmission],
) -> sqlx::Result<Vec<Begun>> {
    let (last_seq, mut taken) = look(pipeline, submissions).await?;
    // A key belongs to the job of the first submission that brings it.
    let is_new: Vec<bool> = submissions
        .iter()
        .map(|one| one.idempotency.as_ref().is_none_or(|key| taken.insert(key_of(key))))
        .collect();
    let fresh: Vec<(i64, &NewSubmission)> = submissions
        .iter()
        .zip(&is_new)
        .filter_map(|(one, is_new)| is_new.then_some(*one))
        .zip(last_seq + 1..)
        .map(|(one, seq)| (seq, one))
        .collect();
    insert(pipeline, &fresh).await?;
    let mut begun = Vec::with_capacity(submissions.len());
    for (one, is_new) in submissions.iter().zip(is_new) {
        begun.push(match &one.idempotency {
            Some(key) if !is_new => one.answer_by_key(pipeline.connection().await?, key).await?,
            _ => Begun::New(Box::new(one.job())),
        });
    }
    Ok(begun)
}

/// The name of an API key, and the digest of an idempotency key used with it.
type Key = (String, [u8; 32]);

fn key_of(idempotency: &Idempotency) -> Key {
    (idempotency.api_key.clone(), idempotency.key_sha256)
}

/// The last job's seq, and which of the keys are on record.
async fn look(
    pipeline: &mut Pipeline<'_>,
    submissions: &[&NewSubmission],
) -> sqlx::Result<(i64, HashSet<Key>)> {
    let keys: Vec<&Idempotency> =
        submissions.iter().filter_map(|one| one.idempotency.as_ref()).collect();
    let query = pipeline.next().await?;
    query.push("select coalesce(max(seq), 0) as last from jobs;");
    let [last, known] = if keys.is_empty() {
        let [last] = pipeline.rows().await?;
        [last, Vec::new()]
    } else {
        push_known(query, &keys);
        pipeline.rows().await?
    };
    let last = last.first().ok_or(sqlx::Error::RowNotFound)?.try_get("last")?;
    let key = |row: &SqliteRow| Ok((row.try_get("api_key")?, rows::digest(row, "key_sha256")?));
    Ok((last, known.iter().map(key).collect::<sqlx::Result<_>>()?))
}

/// A statement that selects the keys that are on record.
pub(super) fn push_known(query: &mut QueryBuilder<Sqlite>, keys: &[&Idempotency]) {
    query.push("select api_key, key_sha256 from (");
    query.push_values(keys, |mut row, key| {
        row.push_bind(&key.api_key).push_bind(&key.key_sha256[..]);
    });
    // The join order is fixed, or the whole table would be scanned.
    query.push(
        ") as given cross join idempotency_keys
             on api_key = given.column1 and key_sha256 = given.column2;",
    );
}

/// Inserts new jobs by seq, with all that belongs to them.
async fn insert(
    pipeline: &mut Pipeline<'_>,
    submissions: &[(i64, &NewSubmission)],
) -> sqlx::Result<()> {
    if submissions.is_empty() {
        return Ok(());
    }
    let query = pipeline.next().await?;
    query.push(
        "insert into jobs (seq, id, origin, status, reference, end_user_id, cloud_package,
             external_job_id, callback_base, relay_url, created_at, warnings, key_number) ",
    );
    query.push_values(submissions, |mut row, (seq, job)| {
        row.push_bind(seq)
            .push_bind(job.id.0)
            .push("'submitted'")
            .push("'submitting'")
            .push_bind(&job.reference)
            .push_bind(&job.end_user_id)
            .push_bind(&job.cloud_package)
            .push_bind(&job.external_job_id)
            .push_bind(&job.callback_base)
            .push_bind(&job.relay_url)
            .push_bind(job.now.as_millisecond())
            .push_bind(rows::json_texts(&job.warnings))
            .push("(select key_number from instance where id = 1)");
    });
    query.push("; insert into job_bodies (job_seq, request) ");
    query.push_values(submissions, |mut row, (seq, job)| {
        row.push_bind(seq).push_bind(job.request.get());
    });
    query.push(";");
    let inputs: Vec<(i64, i64, &Input)> = parts(submissions, |job| &job.inputs);
    for chunk in inputs.chunks(rows::ROWS_PER_STATEMENT) {
        let query = pipeline.next_of_any_length().await?;
        query.push("insert into job_inputs (job_seq, position, name, extension, state) ");
        query.push_values(chunk, |mut row, (job_seq, position, input)| {
            row.push_bind(job_seq)
                .push_bind(position)
                .push_bind(&input.name)
                .push_bind(&input.extension)
                .push_bind(input.state.as_str());
        });
        query.push(";");
    }
    rows::upsert_outputs(pipeline, &parts(submissions, |job| &job.outputs)).await?;
    insert_keys(pipeline, submissions).await
}

/// All parts of one kind by their job's seq and their position.
fn parts<'a, P>(
    submissions: &[(i64, &'a NewSubmission)],
    of: impl Fn(&'a NewSubmission) -> &'a [P],
) -> Vec<(i64, i64, &'a P)> {
    let of_job = |(seq, job): &(i64, &'a NewSubmission)| {
        let seq = *seq;
        (0..).zip(of(job)).map(move |(position, part)| (seq, position, part))
    };
    submissions.iter().flat_map(of_job).collect()
}

async fn insert_keys(
    pipeline: &mut Pipeline<'_>,
    submissions: &[(i64, &NewSubmission)],
) -> sqlx::Result<()> {
    let keys: Vec<(&NewSubmission, &Idempotency)> =
        submissions.iter().filter_map(|(_, job)| Some((*job, job.idempotency.as_ref()?))).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let query = pipeline.next().await?;
    query.push(
        "insert into idempotency_keys (api_key, key_sha256, fingerprint, job_id, created_at) ",
    );
    query.push_values(keys, |mut row, (job, key)| {
        row.push_bind(&key.api_key)
            .push_bind(&key.key_sha256[..])
            .push_bind(&key.fingerprint[..])
            .push_bind(job.id.0)
            .push_bind(job.now.as_millisecond());
    });
    query.push(";");
    Ok(())
}

impl NewSubmission {
    /// The job as it is on record.
    fn job(&self) -> Job {
        Job {
            id: self.id,
            status: JobStatus::Submitting,
            success: None,
            overdue: false,
            origin: Origin::Submitted,
            secured: None,
            reference: self.reference.clone(),
            engine_job_id: None,
            end_user_id: self.end_user_id.clone(),
            cloud_package: self.cloud_package.clone(),
            external_job_id: self.external_job_id.clone(),
            created_at: from_millis(self.now.as_millisecond()),
            submitted_at: None,
            finished_at: None,
            request: Some(self.request.clone()),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            engine_status: None,
            engine_response: None,
            deliveries: 0,
            warnings: self.warnings.clone(),
        }
    }

    /// The answer for a key that is on record.
    async fn answer_by_key(
        &self,
        connection: &mut SqliteConnection,
        idempotency: &Idempotency,
    ) -> sqlx::Result<Begun> {
        let row = sqlx::query(
            "select fingerprint, job_id from idempotency_keys where api_key = ? and key_sha256 = ?",
        )
        .bind(&idempotency.api_key)
        .bind(&idempotency.key_sha256[..])
        .fetch_one(&mut *connection)
        .await?;
        if rows::digest(&row, "fingerprint")? != idempotency.fingerprint {
            return Ok(Begun::Mismatch);
        }
        let id = JobId(row.try_get("job_id")?);
        let Lookup::Found(mut job) = read::job(connection, id).await? else {
            return Ok(Begun::Erased(id));
        };
        Ok(match job.status {
            JobStatus::Submitting => Begun::InFlight,
            JobStatus::Unsent => {
                sqlx::query(
                    "update jobs set status = 'submitting', callback_base = ?,
                         key_number = (select key_number from instance where id = 1)
                     where id = ?",
                )
                .bind(&self.callback_base)
                .bind(id.0)
                .execute(&mut *connection)
                .await?;
                job.status = JobStatus::Submitting;
                Begun::Again(Box::new(job))
            }
            _ => Begun::Replay(Box::new(job)),
        })
    }
}

/// Marks jobs that were being submitted when the process ended as `unconfirmed`: nobody knows
/// whether the Engine took them. Returns how many there were.
pub(super) async fn mark_interrupted(
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
    for chunk in events.chunks(rows::ROWS_PER_STATEMENT) {
        rows::insert_events(connection, chunk).await?;
    }
    Ok(rows.len())
}
