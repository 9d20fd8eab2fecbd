//! Queries: each reads one snapshot, and payloads only where they are needed.
//!
//! Called through the read connections, and by use cases within their transaction; pages have a
//! file of their own. Invariant: what is read of one job is bounded, even if its rows are older
//! than the bounds.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{pipeline::Pipeline, rows, statements};
use crate::{
    domain::{
        bounds::{MAX_INPUTS, MAX_OUTPUTS, MAX_ROWS_BYTES},
        delivery::{Delivery, Outcome},
        ids::{DeliveryId, JobId},
        job::{Job, JobFlags},
        time::from_millis,
    },
    store::{Lookup, StoredResult},
};

pub(super) async fn job(connection: &mut SqliteConnection, id: JobId) -> sqlx::Result<Lookup<Job>> {
    let mut query = QueryBuilder::new("");
    push_jobs_of(&mut query, &[id]);
    let [rows, inputs, outputs] = statements::fetch_each(connection, query).await?;
    match joined(&rows, &inputs, &outputs)?.pop() {
        Some((_, job)) => Ok(Lookup::Found(job)),
        None => missing(connection, id).await,
    }
}

/// The jobs that are on record, with their seq.
pub(super) async fn jobs_of(
    pipeline: &mut Pipeline<'_>,
    ids: &[JobId],
) -> sqlx::Result<HashMap<JobId, (i64, Job)>> {
    push_jobs_of(pipeline.next().await?, ids);
    let [rows, inputs, outputs] = pipeline.rows().await?;
    let jobs = joined(&rows, &inputs, &outputs)?;
    Ok(jobs.into_iter().map(|(seq, job)| (job.id, (seq, job))).collect())
}

/// Three statements: the rows of jobs, their inputs, their outputs.
pub(super) fn push_jobs_of(query: &mut QueryBuilder<Sqlite>, ids: &[JobId]) {
    let push_ids = |query: &mut QueryBuilder<Sqlite>| {
        let mut list = query.separated(", ");
        for id in ids {
            list.push_bind(id.0);
        }
    };
    push_jobs(query, "id", push_ids);
}

/// Three statements: the rows of jobs whose `column` is among those that `push_list` writes, their
/// inputs, their outputs. Rows beyond a bound are older than that bound and are not read.
pub(super) fn push_jobs(
    query: &mut QueryBuilder<Sqlite>,
    column: &str,
    push_list: impl Fn(&mut QueryBuilder<Sqlite>),
) {
    query.push("select ").push(rows::JOB_COLUMNS);
    for (kind, position, bytes) in [PARTS_OF_INPUTS, PARTS_OF_OUTPUTS] {
        query.push(format!(
            ", exists (select 1 from job_{kind} where job_seq = jobs.seq and position >= {position})
                 or {bytes} > {MAX_ROWS_BYTES} as has_more_{kind}"
        ));
    }
    query.push(" from jobs left join job_bodies on job_bodies.job_seq = jobs.seq where jobs.");
    query.push(column).push(" in (");
    push_list(query);
    query.push(") order by created_at desc, jobs.seq desc;");
    for (select, (_, position, bytes)) in
        [(SELECT_INPUTS, PARTS_OF_INPUTS), (SELECT_OUTPUTS, PARTS_OF_OUTPUTS)]
    {
        query.push(select).push(" where job_seq in (select seq from jobs where ");
        query.push(column).push(" in (");
        push_list(query);
        query.push(format!(
            ") and {bytes} <= {MAX_ROWS_BYTES}) and position < {position}
             order by job_seq, position;"
        ));
    }
}

pub(super) async fn job_of_engine(
    connection: &mut SqliteConnection,
    engine_job_id: &str,
) -> sqlx::Result<Option<JobId>> {
    let found = sqlx::query_scalar(
        "select id from jobs where engine_job_id = ? and origin <> 'inbox' limit 2",
    )
    .bind(engine_job_id)
    .fetch_all(connection)
    .await?;
    Ok(if let [only] = found[..] { Some(JobId(only)) } else { None })
}

pub(super) async fn job_flags(
    connection: &mut SqliteConnection,
    ids: &[JobId],
    public_url: Option<&str>,
) -> sqlx::Result<HashMap<JobId, JobFlags>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "select id,
                status in ('submitting', 'submitted', 'unconfirmed')
                    and callback_base is not null and callback_base <> ",
    );
    // Without a public URL the comparison is null, which counts as not stale.
    query.push_bind(public_url);
    query.push(
        " as is_stale,
                exists (select 1 from deliveries
                        where job_seq = jobs.seq and outcome = 'conflict') as has_conflict,
                exists (select 1 from relays
                        where job_seq = jobs.seq and state = 'dead') as has_dead_relay
         from jobs where id in (",
    );
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(id.0);
    }
    query.push(")");
    let mut flags = HashMap::new();
    for row in query.build().fetch_all(connection).await? {
        let one = JobFlags {
            has_stale_callback: row.try_get::<Option<bool>, _>("is_stale")?.unwrap_or(false),
            has_conflict: row.try_get("has_conflict")?,
            has_dead_relay: row.try_get("has_dead_relay")?,
        };
        flags.insert(JobId(row.try_get("id")?), one);
    }
    Ok(flags)
}

/// A kind of a job's parts: its name, how many are read at most, and an SQL expression for their
/// bytes, in which columns of bounded length count as a constant.
type Parts = (&'static str, usize, &'static str);

pub(super) const PARTS_OF_INPUTS: Parts = (
    "inputs",
    MAX_INPUTS,
    "(select coalesce(sum(octet_length(name) + octet_length(extension)
             + coalesce(octet_length(upload_url), 0) + coalesce(octet_length(notify_url), 0)
             + 256), 0)
         from job_inputs where job_seq = jobs.seq and position < 100)",
);

pub(super) const PARTS_OF_OUTPUTS: Parts = (
    "outputs",
    MAX_OUTPUTS,
    "(select coalesce(sum(octet_length(name) + octet_length(kind) + octet_length(structures)
             + coalesce(octet_length(extension), 0) + coalesce(octet_length(status), 0)
             + coalesce(octet_length(url), 0) + 512), 0)
         from job_outputs where job_seq = jobs.seq and position < 1000)",
);

const SELECT_INPUTS: &str =
    "select job_seq, name, extension, upload_url, notify_url, state from job_inputs";

const SELECT_OUTPUTS: &str =
    "select job_seq, name, kind, kind_index, extension, structures, status, url, size_bytes,
         sha256, content_type
     from job_outputs left join mirrors using (job_seq, position)";

/// Jobs by seq, in the order of their rows, with inputs and outputs.
pub(super) fn joined(
    rows: &[SqliteRow],
    inputs: &[SqliteRow],
    outputs: &[SqliteRow],
) -> sqlx::Result<Vec<(i64, Job)>> {
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        let mut job = rows::job(row)?;
        for (kind, most, _) in [PARTS_OF_INPUTS, PARTS_OF_OUTPUTS] {
            if row.try_get(&*format!("has_more_{kind}"))? {
                job.warn(&format!(
                    "It is older than the bounds of this service, and not all of its {kind} are \
                     shown: at most {most}. Its bodies are kept as they came."
                ));
            }
        }
        jobs.push((row.try_get::<i64, _>("seq")?, job));
    }
    let places: HashMap<i64, usize> =
        jobs.iter().enumerate().map(|(place, (seq, _))| (*seq, place)).collect();
    for row in inputs {
        if let Some(&place) = places.get(&row.try_get("job_seq")?) {
            jobs[place].1.inputs.push(rows::input(row)?);
        }
    }
    for row in outputs {
        if let Some(&place) = places.get(&row.try_get("job_seq")?) {
            jobs[place].1.outputs.push(rows::output_with_file(row)?);
        }
    }
    Ok(jobs)
}

pub(super) const SELECT_RESULTS: &str =
    "select jobs.id, jobs.finished_at, deliveries.sha256, delivery_bodies.body
     from jobs
     join deliveries on deliveries.seq = jobs.result_delivery
     join delivery_bodies on delivery_bodies.delivery_seq = deliveries.seq";

pub(super) async fn result(
    connection: &mut SqliteConnection,
    id: JobId,
) -> sqlx::Result<Lookup<Option<StoredResult>>> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT_RESULTS);
    query.push(" where jobs.id = ").push_bind(id.0);
    let row = query.build().fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return on_record(connection, id, None).await };
    Ok(Lookup::Found(Some(rows::result(&row)?)))
}

pub(super) const SELECT_DELIVERIES: &str =
    "select deliveries.seq, deliveries.id, jobs.id as job_id, deliveries.received_at, deliveries.source,
         deliveries.outcome, deliveries.size_bytes, deliveries.sha256, deliveries.repeats,
         deliveries.headers
     from deliveries join jobs on jobs.seq = deliveries.job_seq";

pub(super) async fn delivery(
    connection: &mut SqliteConnection,
    id: DeliveryId,
) -> sqlx::Result<Option<Delivery>> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT_DELIVERIES);
    query.push(" where deliveries.id = ").push_bind(id.0);
    query.build().fetch_optional(connection).await?.as_ref().map(delivery_of).transpose()
}

/// Bytes of a delivery; `None` if it is not on record.
pub(super) async fn delivery_bytes(
    connection: &mut SqliteConnection,
    id: DeliveryId,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("select size_bytes from deliveries where id = ?")
        .bind(id.0)
        .fetch_optional(connection)
        .await
}

/// Bytes of a job's result; `None` if there is none.
pub(super) async fn result_bytes(
    connection: &mut SqliteConnection,
    id: JobId,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "select size_bytes from jobs join deliveries on deliveries.seq = jobs.result_delivery
         where jobs.id = ?",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await
}

pub(super) async fn delivery_body(
    connection: &mut SqliteConnection,
    id: DeliveryId,
) -> sqlx::Result<Option<Bytes>> {
    let body: Option<Vec<u8>> = sqlx::query_scalar(
        "select body from delivery_bodies
         where delivery_seq = (select seq from deliveries where id = ?)",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    Ok(body.map(Bytes::from))
}

pub(super) fn delivery_of(row: &SqliteRow) -> sqlx::Result<Delivery> {
    let headers: String = row.try_get("headers")?;
    let size: i64 = row.try_get("size_bytes")?;
    let repeats: i64 = row.try_get("repeats")?;
    Ok(Delivery {
        id: DeliveryId(row.try_get("id")?),
        job_id: JobId(row.try_get("job_id")?),
        received_at: from_millis(row.try_get("received_at")?),
        source: row.try_get("source")?,
        outcome: rows::parsed(row, "outcome", outcome)?,
        bytes: size.unsigned_abs(),
        sha256: rows::digest(row, "sha256")?,
        repeats: repeats.unsigned_abs(),
        headers: serde_json::from_str(&headers).map_err(|error| sqlx::Error::ColumnDecode {
            index: "headers".into(),
            source: error.into(),
        })?,
    })
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let kept = [
        Outcome::Stored,
        Outcome::Refreshed,
        Outcome::Conflict,
        Outcome::Unrecognised,
        Outcome::Malformed,
    ];
    let found = kept.into_iter().find(|outcome| outcome.as_str() == text);
    found.ok_or_else(|| format!("unknown outcome {text}"))
}

/// `found` if the job is on record, else why it is not.
pub(super) async fn on_record<T>(
    connection: &mut SqliteConnection,
    id: JobId,
    found: T,
) -> sqlx::Result<Lookup<T>> {
    let known: Option<i64> = sqlx::query_scalar("select 1 from jobs where id = ?")
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
    match known {
        Some(_) => Ok(Lookup::Found(found)),
        None => missing(connection, id).await,
    }
}

/// Why a job is not on record: erased, or missing.
pub(super) async fn missing<T>(
    connection: &mut SqliteConnection,
    id: JobId,
) -> sqlx::Result<Lookup<T>> {
    let erased: Option<i64> = sqlx::query_scalar("select 1 from erased_jobs where job_id = ?")
        .bind(id.0)
        .fetch_optional(connection)
        .await?;
    Ok(if erased.is_some() { Lookup::Erased } else { Lookup::Missing })
}
