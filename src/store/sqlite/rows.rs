//! Rows to values and back: the columns that more than one use case reads or writes.
//!
//! Invariant: a row that does not fit our types is an error that names the column, not a panic.

use std::str::FromStr;

use bytes::Bytes;
use serde_json::value::RawValue;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::pipeline::Pipeline;
use crate::{
    domain::{
        event::{Event, NewEvent},
        ids::JobId,
        job::{Input, InputState, Job, Origin, Output},
        mirror::MirroredFile,
        names::Names,
        time::from_millis,
    },
    store::StoredResult,
};

/// Rows per statement, so that its variables stay below SQLite's limit of 32,766.
pub(super) const ROWS_PER_STATEMENT: usize = 1_000;

/// The columns of `jobs` that [`job`] reads, and its bodies.
pub(super) const JOB_COLUMNS: &str =
    "jobs.seq, id, origin, status, success, overdue, secured, reference, engine_job_id, end_user_id,
     cloud_package, external_job_id, created_at, submitted_at, finished_at, engine_status,
     delivery_count, warnings, request, engine_response";

/// A job without its inputs and outputs, which have tables of their own.
pub(super) fn job(row: &SqliteRow) -> sqlx::Result<Job> {
    let time = |column: &str| -> sqlx::Result<Option<jiff::Timestamp>> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(from_millis))
    };
    Ok(Job {
        id: JobId(row.try_get("id")?),
        status: parsed(row, "status", str::parse)?,
        success: row.try_get("success")?,
        overdue: row.try_get("overdue")?,
        origin: parsed(row, "origin", origin)?,
        secured: row.try_get("secured")?,
        reference: row.try_get("reference")?,
        engine_job_id: row.try_get("engine_job_id")?,
        end_user_id: row.try_get("end_user_id")?,
        cloud_package: row.try_get("cloud_package")?,
        external_job_id: row.try_get("external_job_id")?,
        created_at: from_millis(row.try_get("created_at")?),
        submitted_at: time("submitted_at")?,
        finished_at: time("finished_at")?,
        request: raw(row, "request")?,
        inputs: Vec::new(),
        outputs: Vec::new(),
        engine_status: row.try_get("engine_status")?,
        engine_response: raw(row, "engine_response")?,
        deliveries: row.try_get("delivery_count")?,
        warnings: texts(row, "warnings")?,
    })
}

pub(super) fn input(row: &SqliteRow) -> sqlx::Result<Input> {
    Ok(Input {
        name: row.try_get("name")?,
        extension: row.try_get("extension")?,
        upload_url: row.try_get("upload_url")?,
        notify_url: row.try_get("notify_url")?,
        state: parsed(row, "state", InputState::from_str)?,
    })
}

pub(super) fn output(row: &SqliteRow) -> sqlx::Result<Output> {
    Ok(Output {
        name: row.try_get("name")?,
        kind: row.try_get("kind")?,
        index: row.try_get("kind_index")?,
        extension: row.try_get("extension")?,
        structures: names(row)?,
        status: row.try_get("status")?,
        url: row.try_get("url")?,
        file: None,
    })
}

/// An output with its copy, whose columns are null while there is none.
pub(super) fn output_with_file(row: &SqliteRow) -> sqlx::Result<Output> {
    let file = match optional_digest(row, "sha256")? {
        Some(sha256) => Some(MirroredFile {
            bytes: row.try_get::<i64, _>("size_bytes")?.unsigned_abs(),
            sha256,
            content_type: row.try_get("content_type")?,
        }),
        None => None,
    };
    Ok(Output { file, ..output(row)? })
}

pub(super) fn result(row: &SqliteRow) -> sqlx::Result<StoredResult> {
    Ok(StoredResult {
        body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        sha256: digest(row, "sha256")?,
        finished_at: from_millis(row.try_get("finished_at")?),
    })
}

pub(super) fn event(row: &SqliteRow) -> sqlx::Result<Event> {
    Ok(Event {
        seq: row.try_get("seq")?,
        job_id: JobId(row.try_get("job_id")?),
        kind: row.try_get("type")?,
        at: from_millis(row.try_get("at")?),
        data: row.try_get("data")?,
    })
}

/// Inserts outputs by job's seq and position; updates those on record.
pub(super) async fn upsert_outputs(
    pipeline: &mut Pipeline<'_>,
    outputs: &[(i64, i64, &Output)],
) -> sqlx::Result<()> {
    for chunk in outputs.chunks(ROWS_PER_STATEMENT) {
        let query = pipeline.next_of_any_length().await?;
        query.push(
            "insert into job_outputs
                 (job_seq, position, name, kind, kind_index, extension, structures, status, url) ",
        );
        query.push_values(chunk, |mut row, (job_seq, position, output)| {
            row.push_bind(job_seq)
                .push_bind(position)
                .push_bind(&output.name)
                .push_bind(&output.kind)
                .push_bind(output.index)
                .push_bind(&output.extension)
                .push_bind(serde_json::to_string(&output.structures).expect("texts are JSON"))
                .push_bind(&output.status)
                .push_bind(&output.url);
        });
        query.push(
            " on conflict (job_seq, position) do update set status = excluded.status,
                  url = excluded.url;",
        );
    }
    Ok(())
}

pub(super) async fn insert_events(
    connection: &mut SqliteConnection,
    events: &[NewEvent],
) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::new("");
    push_events(&mut query, events);
    query.build().execute(connection).await?;
    Ok(())
}

/// A statement that inserts events, of which there must be at least one.
pub(super) fn push_events(query: &mut QueryBuilder<Sqlite>, events: &[NewEvent]) {
    query.push("insert into events (job_id, type, at, data) ");
    query.push_values(events, |mut row, event| {
        row.push_bind(event.job_id.0)
            .push_bind(event.kind.as_str())
            .push_bind(event.at.as_millisecond())
            .push_bind(event.data.to_string());
    });
}

/// A text column read by `parse`.
pub(super) fn parsed<T>(
    row: &SqliteRow,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> sqlx::Result<T> {
    parse(row.try_get(column)?).map_err(|reason| undecodable(column, reason))
}

pub(super) fn origin(text: &str) -> Result<Origin, String> {
    let known = [Origin::Submitted, Origin::Recovered, Origin::Inbox];
    let found = known.into_iter().find(|origin| origin.as_str() == text);
    found.ok_or_else(|| format!("unknown origin {text}"))
}

/// A SHA-256 column.
pub(super) fn digest(row: &SqliteRow, column: &str) -> sqlx::Result<[u8; 32]> {
    optional_digest(row, column)?.ok_or_else(|| undecodable(column, "it is null".into()))
}

/// A SHA-256 column that may be null.
pub(super) fn optional_digest(row: &SqliteRow, column: &str) -> sqlx::Result<Option<[u8; 32]>> {
    let Some(bytes) = row.try_get::<Option<&[u8]>, _>(column)? else { return Ok(None) };
    let digest = bytes.try_into().map_err(|_| undecodable(column, "not 32 bytes".into()))?;
    Ok(Some(digest))
}

/// A JSON array of texts.
pub(super) fn texts(row: &SqliteRow, column: &str) -> sqlx::Result<Vec<String>> {
    serde_json::from_str(row.try_get(column)?)
        .map_err(|error| undecodable(column, error.to_string()))
}

/// The structures of an output: a JSON array of texts.
fn names(row: &SqliteRow) -> sqlx::Result<Names> {
    const COLUMN: &str = "structures";
    serde_json::from_str(row.try_get(COLUMN)?)
        .map_err(|error| undecodable(COLUMN, error.to_string()))
}

/// A JSON array of texts, as [`texts`] reads it.
pub(super) fn json_texts(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("texts are JSON")
}

fn raw(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Box<RawValue>>> {
    let text: Option<String> = row.try_get(column)?;
    let parsed = text.map(RawValue::from_string).transpose();
    parsed.map_err(|error| undecodable(column, error.to_string()))
}

fn undecodable(column: &str, reason: String) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: reason.into() }
}
