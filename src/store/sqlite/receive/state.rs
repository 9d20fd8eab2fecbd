//! A job as far as its arrivals concern it, and what a delivery changes about it.
//!
//! Loaded, changed and written back by the batch. The invariant: a job that has a result keeps it.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row, Sqlite, sqlite::SqliteRow};

use super::super::{pipeline::Pipeline, rows};
use crate::{
    domain::{
        delivery::{Outcome, Says},
        ids::JobId,
        job::{self, JobStatus, Origin, Output},
        result::Reading,
    },
    store::{Addressee, Arrival},
};

/// A job as far as its arrivals concern it.
pub(super) struct State {
    pub seq: i64,
    pub id: JobId,
    pub origin: Origin,
    pub inbox_key: Option<[u8; 32]>,
    pub created_at: i64,
    /// The caller's own webhook.
    pub relay_url: Option<String>,
    pub status: JobStatus,
    pub success: Option<bool>,
    pub finished_at: Option<i64>,
    pub engine_job_id: Option<String>,
    pub result_delivery: Option<i64>,
    pub result_reading: Option<[u8; 32]>,
    pub delivery_count: i64,
    pub warnings: Vec<String>,
    pub outputs: Vec<Output>,
    /// Deliveries on record by digest: their seq.
    pub known: HashMap<[u8; 32], i64>,
    pub malformed: usize,
    /// When the job is to be looked up, if a delivery suggests it.
    pub look_at: Option<i64>,
    pub is_new: bool,
    pub is_changed: bool,
    pub are_outputs_changed: bool,
}

impl State {
    /// A job that only this arrival tells of.
    pub(super) fn new(seq: i64, arrival: &Arrival) -> Self {
        let (id, origin, inbox_key) = match arrival.addressee {
            Addressee::Job(id) => (id, Origin::Recovered, None),
            Addressee::Inbox(key) => (JobId::new(arrival.received_at), Origin::Inbox, Some(key)),
        };
        Self {
            seq,
            id,
            origin,
            inbox_key,
            created_at: arrival.received_at.as_millisecond(),
            relay_url: None,
            status: JobStatus::Unconfirmed,
            success: None,
            finished_at: None,
            engine_job_id: None,
            result_delivery: None,
            result_reading: None,
            delivery_count: 0,
            warnings: Vec::new(),
            outputs: Vec::new(),
            known: HashMap::new(),
            malformed: 0,
            look_at: None,
            is_new: true,
            is_changed: true,
            are_outputs_changed: false,
        }
    }

    pub(super) fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            seq: row.try_get("seq")?,
            id: JobId(row.try_get("id")?),
            origin: rows::parsed(row, "origin", rows::origin)?,
            inbox_key: rows::optional_digest(row, "inbox_key")?,
            created_at: row.try_get("created_at")?,
            relay_url: row.try_get("relay_url")?,
            status: rows::parsed(row, "status", str::parse)?,
            success: row.try_get("success")?,
            finished_at: row.try_get("finished_at")?,
            engine_job_id: row.try_get("engine_job_id")?,
            result_delivery: row.try_get("result_delivery")?,
            result_reading: rows::optional_digest(row, "result_reading")?,
            delivery_count: row.try_get("delivery_count")?,
            warnings: rows::texts(row, "warnings")?,
            outputs: Vec::new(),
            known: HashMap::new(),
            malformed: 0,
            look_at: None,
            is_new: false,
            is_changed: false,
            are_outputs_changed: false,
        })
    }

    /// Applies what a delivery means for the job.
    pub(super) fn follow(
        &mut self,
        outcome: Outcome,
        says: Says,
        delivery: i64,
        arrival: &Arrival,
        outputs: Vec<Output>,
    ) {
        match (outcome, &arrival.reading, says) {
            (Outcome::Stored, Reading::Result(result), Says::Result(digest)) => {
                self.status = result.status(&outputs);
                self.success = Some(result.success);
                self.finished_at = Some(arrival.received_at.as_millisecond());
                self.result_delivery = Some(delivery);
                self.result_reading = Some(digest);
                if self.engine_job_id.is_none() {
                    self.engine_job_id.clone_from(&result.engine_job_id);
                }
                for warning in result.warnings(&outputs) {
                    self.warn(&warning);
                }
                self.outputs = outputs;
                self.are_outputs_changed = true;
            }
            (Outcome::Refreshed, ..) => {
                for (known, renewed) in self.outputs.iter_mut().zip(outputs) {
                    if renewed.url.is_some() {
                        known.url = renewed.url;
                    }
                }
                self.are_outputs_changed = true;
            }
            (Outcome::Conflict, ..) => {
                self.warn("A later delivery contradicts the result; the first one stands.");
            }
            (Outcome::Unrecognised, Reading::Unrecognised(reason), _) => {
                self.warn(&format!("A delivery is no job result ({reason}); the job stays open."));
            }
            (Outcome::Malformed, ..) => {
                self.warn("A delivery is not JSON.");
                if self.status.is_in_flight() {
                    self.look_at = Some(arrival.received_at.as_millisecond());
                }
            }
            _ => {}
        }
    }

    fn warn(&mut self, warning: &str) {
        job::warn(&mut self.warnings, warning);
    }
}

pub(super) async fn insert_jobs(pipeline: &mut Pipeline<'_>, jobs: &[&State]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let query = pipeline.next().await?;
    query.push(
        "insert into jobs (seq, id, origin, status, success, engine_job_id, inbox_key,
             created_at, finished_at, result_delivery, result_reading, delivery_count, warnings) ",
    );
    query.push_values(jobs, |mut row, job| {
        row.push_bind(job.seq)
            .push_bind(job.id.0)
            .push_bind(job.origin.as_str())
            .push_bind(job.status.as_str())
            .push_bind(job.success)
            .push_bind(&job.engine_job_id)
            .push_bind(job.inbox_key.map(|key| key.to_vec()))
            .push_bind(job.created_at)
            .push_bind(job.finished_at)
            .push_bind(job.result_delivery)
            .push_bind(job.result_reading.map(|digest| digest.to_vec()))
            .push_bind(job.delivery_count)
            .push_bind(rows::json_texts(&job.warnings));
    });
    query.push(";");
    Ok(())
}

/// A statement that brings jobs up to date, of which there is one at least.
pub(super) fn push_updates(query: &mut QueryBuilder<Sqlite>, jobs: &[&State]) {
    query.push(
        "update jobs set status = fresh.column2, success = fresh.column3,
             finished_at = fresh.column4, engine_job_id = fresh.column5,
             result_delivery = fresh.column6, result_reading = fresh.column7,
             delivery_count = fresh.column8, warnings = fresh.column9,
             overdue = case when fresh.column6 is null then overdue else 0 end,
             due_at = case when fresh.column6 is null then coalesce(fresh.column10, due_at) end
         from (",
    );
    query.push_values(jobs, |mut row, job| {
        row.push_bind(job.seq)
            .push_bind(job.status.as_str())
            .push_bind(job.success)
            .push_bind(job.finished_at)
            .push_bind(&job.engine_job_id)
            .push_bind(job.result_delivery)
            .push_bind(job.result_reading.map(|digest| digest.to_vec()))
            .push_bind(job.delivery_count)
            .push_bind(rows::json_texts(&job.warnings))
            .push_bind(job.look_at);
    });
    query.push(") as fresh where jobs.seq = fresh.column1;");
}

pub(super) async fn upsert_outputs(
    pipeline: &mut Pipeline<'_>,
    jobs: &[&State],
) -> sqlx::Result<()> {
    let changed = jobs.iter().filter(|job| job.are_outputs_changed);
    let rows: Vec<(i64, i64, &Output)> = changed
        .flat_map(|job| {
            (0..).zip(&job.outputs).map(|(position, output)| (job.seq, position, output))
        })
        .collect();
    rows::upsert_outputs(pipeline, &rows).await
}
