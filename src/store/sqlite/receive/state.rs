//! The part of a job that its arrivals need, and what a delivery changes in it.
//!
//! Loaded, changed and written back by the batch. Invariant: a job that has a result keeps it.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, sqlite::SqliteRow};

use super::super::{callback_addresses, pipeline::Pipeline, rows};
use crate::{
    domain::{
        callback_address::{AddressRecord, Standing},
        delivery::{Budget, Kept, Outcome, Verdict},
        event::{EventType, NewEvent},
        ids::JobId,
        job::{self, JobStatus, Origin, Output},
        result::Reading,
        signing_keys::KeyNumber,
    },
    store::{Addressee, Arrival},
};

/// A delivery on record with the bytes of an arrival.
pub(super) struct Known {
    /// Its seq.
    pub delivery: i64,
    pub repeats: u64,
}

/// The part of a job that its arrivals need.
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
    pub address: AddressRecord,
    pub engine_job_id: Option<String>,
    pub result_delivery: Option<i64>,
    pub result_reading: Option<[u8; 32]>,
    pub kept: Kept,
    /// Arrivals that were counted and not kept.
    pub unkept: i64,
    pub warnings: Vec<String>,
    pub outputs: Vec<Output>,
    /// Deliveries on record that an arrival of the batch may repeat, by digest.
    pub known: HashMap<[u8; 32], Known>,
    /// When the job is to be looked up, if a delivery suggests it.
    pub look_at: Option<i64>,
    pub is_new: bool,
    pub is_changed: bool,
    pub are_outputs_changed: bool,
}

impl State {
    /// A job that is known only from this arrival.
    pub(super) fn new(seq: i64, arrival: &Arrival, key: KeyNumber) -> Self {
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
            address: AddressRecord { finished_at: None, key, earlier_keys: Vec::new() },
            engine_job_id: None,
            result_delivery: None,
            result_reading: None,
            kept: Kept::default(),
            unkept: 0,
            warnings: Vec::new(),
            outputs: Vec::new(),
            known: HashMap::new(),
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
            address: callback_addresses::record(row)?,
            engine_job_id: row.try_get("engine_job_id")?,
            result_delivery: row.try_get("result_delivery")?,
            result_reading: rows::optional_digest(row, "result_reading")?,
            kept: Kept {
                deliveries: row.try_get("delivery_count")?,
                after_result: row.try_get("kept_after_result")?,
                malformed: row.try_get("kept_malformed")?,
                bytes_beside_result: row.try_get::<i64, _>("bytes_beside_result")?.unsigned_abs(),
            },
            unkept: row.try_get("unkept_count")?,
            warnings: rows::texts(row, "warnings")?,
            outputs: Vec::new(),
            known: HashMap::new(),
            look_at: None,
            is_new: false,
            is_changed: false,
            are_outputs_changed: false,
        })
    }

    /// Whether the address or secret that an arrival came to is valid.
    pub(super) fn standing(&self, arrival: &Arrival, current: KeyNumber) -> Standing {
        match arrival.signer {
            _ if arrival.was_asked_for() => Standing::Valid,
            Some(signer) => self.address.standing(signer, current, arrival.received_at),
            None => self.address.standing_at(arrival.received_at),
        }
    }

    /// The budget of the job that keeping an arrival would exceed, if any.
    pub(super) fn exceeded_by(&self, outcome: Outcome, arrival: &Arrival) -> Option<Budget> {
        self.kept.exceeded_by(outcome, arrival.body.len() as u64, self.result_delivery.is_some())
    }

    /// Counts an arrival that is not kept. Returns an event for the first one.
    pub(super) fn leave_out(
        &mut self,
        budget: Budget,
        outcome: Outcome,
        arrival: &Arrival,
    ) -> Option<NewEvent> {
        self.unkept += 1;
        self.is_changed = true;
        let kind = EventType::of_delivery(outcome);
        let event = NewEvent::new(self.id, kind, arrival.received_at)
            .with(json!({ "kept": false, "limit": budget.as_str() }));
        (self.unkept == 1).then_some(event)
    }

    /// Adds a delivery that is kept under this seq.
    pub(super) fn keep(
        &mut self,
        outcome: Outcome,
        verdict: Verdict,
        delivery: i64,
        arrival: &Arrival,
    ) {
        self.kept.add(outcome, arrival.body.len() as u64, self.result_delivery.is_some());
        self.known.insert(arrival.sha256, Known { delivery, repeats: 0 });
        self.is_changed = true;
        if let (Outcome::Stored, Verdict::Result(reading)) = (outcome, verdict) {
            self.result_delivery = Some(delivery);
            self.result_reading = Some(reading);
        }
    }

    /// Applies a delivery to the job. After the result, a delivery changes nothing, unless the
    /// Engine was asked for it.
    pub(super) fn follow(&mut self, outcome: Outcome, arrival: &Arrival, outputs: Vec<Output>) {
        let is_settled = self.status.is_finished();
        match (outcome, &arrival.reading) {
            (Outcome::Stored, Reading::Result(result)) => {
                self.status = result.status(&outputs);
                self.success = Some(result.success);
                self.address.finished_at = Some(arrival.received_at);
                if self.engine_job_id.is_none() {
                    self.engine_job_id.clone_from(&result.engine_job_id);
                }
                for warning in result.warnings(&outputs) {
                    self.warn(&warning);
                }
                self.outputs = outputs;
                self.are_outputs_changed = true;
            }
            _ if is_settled && !arrival.was_asked_for() => {}
            (Outcome::Refreshed, _) => self.renew_links(outputs),
            (Outcome::Conflict, _) => {
                self.warn(
                    "A later answer of the Engine contradicts the result; the first one stands.",
                );
            }
            (Outcome::Unrecognised, Reading::Unrecognised(reason)) if !is_settled => {
                self.warn(&format!("A delivery is no job result ({reason}); the job stays open."));
            }
            (Outcome::Malformed, _) => {
                self.warn("A delivery is not JSON.");
                if self.status.is_in_flight() {
                    self.look_at = Some(arrival.received_at.as_millisecond());
                }
            }
            _ => {}
        }
    }

    /// Takes the new link of each output that is the same as before. An output that was not
    /// requested has no name of its own, so its other fields are compared too.
    fn renew_links(&mut self, outputs: Vec<Output>) {
        for (known, renewed) in self.outputs.iter_mut().zip(outputs) {
            let is_same = (&known.name, &known.kind, &known.extension, &known.structures)
                == (&renewed.name, &renewed.kind, &renewed.extension, &renewed.structures);
            if is_same && renewed.url.is_some() {
                known.url = renewed.url;
            }
        }
        self.are_outputs_changed = true;
    }

    fn finished_at(&self) -> Option<i64> {
        self.address.finished_at.map(|at| at.as_millisecond())
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
             created_at, finished_at, result_delivery, result_reading, warnings, key_number,
             delivery_count, kept_after_result, bytes_beside_result, kept_malformed, unkept_count) ",
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
            .push_bind(job.finished_at())
            .push_bind(job.result_delivery)
            .push_bind(job.result_reading.map(|digest| digest.to_vec()))
            .push_bind(rows::json_texts(&job.warnings))
            .push_bind(job.address.key.0)
            .push_bind(job.kept.deliveries)
            .push_bind(job.kept.after_result)
            .push_bind(job.kept.bytes_beside_result as i64)
            .push_bind(job.kept.malformed)
            .push_bind(job.unkept);
    });
    query.push(";");
    Ok(())
}

/// A statement that updates jobs, of which there must be at least one.
pub(super) fn push_updates(query: &mut QueryBuilder<Sqlite>, jobs: &[&State]) {
    query.push(
        "update jobs set status = fresh.column2, success = fresh.column3,
             finished_at = fresh.column4, engine_job_id = fresh.column5,
             result_delivery = fresh.column6, result_reading = fresh.column7,
             delivery_count = fresh.column8, warnings = fresh.column9,
             kept_after_result = fresh.column11, bytes_beside_result = fresh.column12,
             kept_malformed = fresh.column13, unkept_count = fresh.column14,
             overdue = case when fresh.column6 is null then overdue else 0 end,
             due_at = case when fresh.column6 is null then coalesce(fresh.column10, due_at) end
         from (",
    );
    query.push_values(jobs, |mut row, job| {
        row.push_bind(job.seq)
            .push_bind(job.status.as_str())
            .push_bind(job.success)
            .push_bind(job.finished_at())
            .push_bind(&job.engine_job_id)
            .push_bind(job.result_delivery)
            .push_bind(job.result_reading.map(|digest| digest.to_vec()))
            .push_bind(job.kept.deliveries)
            .push_bind(rows::json_texts(&job.warnings))
            .push_bind(job.look_at)
            .push_bind(job.kept.after_result)
            .push_bind(job.kept.bytes_beside_result as i64)
            .push_bind(job.kept.malformed)
            .push_bind(job.unkept);
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
