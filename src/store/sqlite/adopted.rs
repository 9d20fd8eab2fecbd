//! Results that came to the inbox before the Engine's reply named their job.
//!
//! Called within the writer's transaction when a reply is recorded. Invariants: what was received
//! is judged again as if it had come to the job itself, and keeps its id and time; the job that the
//! inbox made for it is deleted in the same commit.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{erased_rows, pipeline::Pipeline, receive, rows};
use crate::{
    domain::{
        delivery::Outcome,
        event::{EventType, NewEvent},
        ids::{DeliveryId, JobId},
        job::{Job, warn},
        result::{self, Reading},
        time::from_millis,
    },
    store::{Addressee, Arrival, ResultOrders, inbox_key},
};

/// A job that the inbox made.
struct InboxJob {
    seq: i64,
    id: JobId,
}

/// Moves what the inbox received for a job's Engine id to that job; returns whether there was
/// anything. An id that several submitted jobs share belongs to none of them.
pub(super) async fn adopt(
    pipeline: &mut Pipeline<'_>,
    job: &Job,
    now: Timestamp,
    orders: &ResultOrders,
) -> sqlx::Result<bool> {
    let Some(engine_job_id) = &job.engine_job_id else { return Ok(false) };
    let connection = pipeline.connection().await?;
    let Some(made) = find(connection, engine_job_id).await? else { return Ok(false) };
    let arrivals = arrivals(connection, made.seq, job.id).await?;
    erased_rows::forget(connection, made.seq, made.id, now).await?;
    let gone = NewEvent::new(made.id, EventType::JobErased, now);
    rows::insert_events(connection, &[gone.with(json!({ "adoptedBy": job.id.to_string() }))])
        .await?;
    let mut warnings = job.warnings.clone();
    warn(
        &mut warnings,
        "The result came to the inbox before the Engine's reply; it was kept as a job of its own \
         until then.",
    );
    sqlx::query("update jobs set warnings = ? where id = ?")
        .bind(rows::json_texts(&warnings))
        .bind(job.id.0)
        .execute(connection)
        .await?;
    receive::apply(pipeline, &arrivals.iter().collect::<Vec<_>>(), orders).await?;
    pipeline.flush().await?;
    Ok(true)
}

async fn find(
    connection: &mut SqliteConnection,
    engine_job_id: &str,
) -> sqlx::Result<Option<InboxJob>> {
    let row = sqlx::query(
        "select seq, id from jobs where inbox_key = ?1
             and (select count(*) from jobs where engine_job_id = ?2 and origin <> 'inbox') = 1",
    )
    .bind(inbox_key(engine_job_id).to_vec())
    .bind(engine_job_id)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(InboxJob { seq: row.try_get("seq")?, id: JobId(row.try_get("id")?) }))
        .transpose()
}

/// What an inbox job received, as arrivals for another job. Memory is bounded, because a job keeps
/// a bounded number of bytes.
async fn arrivals(
    connection: &mut SqliteConnection,
    job_seq: i64,
    to: JobId,
) -> sqlx::Result<Vec<Arrival>> {
    let rows = sqlx::query(
        "select id, received_at, source, outcome, sha256, headers, body
         from deliveries join delivery_bodies on delivery_seq = deliveries.seq
         where job_seq = ? order by deliveries.seq",
    )
    .bind(job_seq)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| arrival(row, to)).collect()
}

fn arrival(row: &SqliteRow, to: JobId) -> sqlx::Result<Arrival> {
    let body: Vec<u8> = row.try_get("body")?;
    let headers = serde_json::from_str(row.try_get("headers")?);
    // A body of broken gzip is malformed even if its bytes parse. No id pointers: the Engine's id
    // is known by now.
    let reading = match row.try_get::<&str, _>("outcome")? == Outcome::Malformed.as_str() {
        true => Reading::Malformed("it came to the inbox and was malformed".into()),
        false => result::read(&body, &[]),
    };
    Ok(Arrival {
        delivery_id: DeliveryId(row.try_get("id")?),
        addressee: Addressee::Job(to),
        signer: None,
        received_at: from_millis(row.try_get("received_at")?),
        source: row.try_get("source")?,
        headers: headers.map_err(|error| sqlx::Error::Decode(error.into()))?,
        body: body.into(),
        sha256: rows::digest(row, "sha256")?,
        reading,
    })
}
