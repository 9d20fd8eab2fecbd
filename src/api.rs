//! The JSON bodies of our own API, camelCase as the Engine's.
//!
//! Written by `http`, read by `client`. The invariant: what stands here is the contract; a field is
//! added, never changed.

mod code;
pub mod schema;
mod view;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use utoipa::ToSchema;

pub use self::{
    code::ProblemCode,
    view::{BriefJob, BriefRelay, JobView, RelayView},
};
use crate::domain::{self, digest::hex, names::Names, time};

/// A job: what was asked, where it stands, what came of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// UUIDv7.
    #[schema(example = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55")]
    pub id: String,
    /// The caller's own label; never sent to the Engine.
    #[schema(required, example = "case-42")]
    pub reference: Option<String>,
    #[schema(value_type = schema::JobStatus)]
    pub status: String,
    /// As the Engine said; `null` before the result.
    #[schema(required)]
    pub success: Option<bool>,
    /// Past its due time without a result.
    pub overdue: bool,
    #[schema(value_type = schema::Origin)]
    pub origin: String,
    /// Whether every available output is mirrored; `null` where mirroring is off.
    #[schema(required)]
    pub secured: Option<bool>,
    #[schema(required)]
    pub engine_job_id: Option<String>,
    #[schema(required)]
    pub end_user_id: Option<String>,
    #[schema(required)]
    pub cloud_package: Option<String>,
    #[schema(required)]
    pub external_job_id: Option<String>,
    #[serde(with = "time::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[serde(with = "time::rfc3339_option")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub submitted_at: Option<Timestamp>,
    #[serde(with = "time::rfc3339_option")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// The submitted body without `finishline`, defaults filled in.
    #[schema(required, inline, value_type = Option<schema::OpenObject>)]
    pub request: Option<Box<RawValue>>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    /// The Engine's reply to the submission; a string if it was not JSON.
    #[schema(required, schema_with = schema::engine_answer)]
    pub engine_response: Option<Box<RawValue>>,
    /// Distinct deliveries on record.
    pub deliveries: u32,
    pub warnings: Vec<String>,
}

/// One scan the Engine needs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    #[schema(example = "cbct")]
    pub name: String,
    #[schema(example = ".dcm")]
    pub extension: String,
    /// Pre-signed address of the Engine's storage; `null` for one that nobody should follow.
    #[schema(required)]
    pub upload_url: Option<String>,
    /// To be called after the upload.
    #[schema(required)]
    pub notify_url: Option<String>,
    #[schema(value_type = schema::InputState)]
    pub state: String,
}

/// One file asked of the Engine; `index` is `null` for one that matches none of those asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    #[schema(example = "meshes-0")]
    pub name: String,
    #[schema(example = "meshes")]
    pub kind: String,
    #[schema(required)]
    pub index: Option<u32>,
    #[schema(required, example = ".stl")]
    pub extension: Option<String>,
    #[schema(value_type = Vec<String>)]
    pub structures: Names,
    /// As the Engine spelled it: `Available`, `Missing`, `Failed`; `null` before the result.
    #[schema(required)]
    pub status: Option<String>,
    /// The Engine's pre-signed link; it expires. `null` for one that nobody should follow.
    #[schema(required)]
    pub url: Option<String>,
    /// The mirrored copy, once there is one.
    #[schema(required)]
    pub file: Option<File>,
}

/// A job's outputs, those asked for first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = OutputList)]
pub struct Outputs {
    pub outputs: Vec<Output>,
}

/// A mirrored file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub content_type: String,
}

/// One page of jobs, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JobPage)]
pub struct Jobs {
    pub jobs: Vec<Job>,
    /// To be passed as `cursor`, with the same filters; `null` on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// What was received for a job, without its bytes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    pub id: String,
    pub job_id: String,
    #[serde(with = "time::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// The sender's address, or `engine` for what a look-up brought.
    #[schema(example = "203.0.113.7:51034")]
    pub source: String,
    #[schema(value_type = schema::DeliveryOutcome)]
    pub outcome: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Further identical arrivals.
    pub repeats: u64,
    /// As they came; credentials are redacted.
    #[schema(schema_with = schema::pairs)]
    pub headers: Vec<(String, String)>,
}

/// One page of a job's deliveries, in the order they came.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeliveryPage)]
pub struct Deliveries {
    pub deliveries: Vec<Delivery>,
    /// To be passed as `cursor`; `null` on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// One line of a job's timeline.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Grows with every event of the instance.
    pub seq: i64,
    pub job_id: String,
    #[serde(rename = "type")]
    #[schema(value_type = schema::EventType)]
    pub kind: String,
    #[serde(with = "time::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    #[schema(inline, value_type = schema::OpenObject)]
    pub data: Box<RawValue>,
}

/// The type of the event in a stream that ends what was before; its data is [`CaughtUp`].
pub const CAUGHT_UP: &str = "caught-up";

/// A follower has been sent everything that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtUp {
    /// The number of the last event that was sent or is of another job; 0 if there is none.
    pub seq: i64,
}

/// One page of a job's timeline.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventPage)]
pub struct Events {
    pub events: Vec<Event>,
    /// To be passed as `cursor`; `null` on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// An order to pass a result on to one target.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    pub id: String,
    pub job_id: String,
    /// Name of a configured target, or origin of the job's own `finishWebhook`.
    #[schema(example = "app")]
    pub target: String,
    #[schema(value_type = schema::RelayState)]
    pub state: String,
    pub attempts: u32,
    #[serde(with = "time::rfc3339_option")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// HTTP status of the last answer; `null` before one, or if the last attempt got none.
    #[schema(required)]
    pub last_status: Option<u16>,
    /// `webhook-id` of every attempt: `msg_`, the job's id, `_`, the order's id.
    pub webhook_id: String,
}

/// A page of orders, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RelayPage)]
pub struct Relays {
    pub relays: Vec<Relay>,
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// An order with its attempts, the last 100 of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayDetail {
    #[serde(flatten)]
    pub relay: Relay,
    /// In their order.
    pub attempt_log: Vec<RelayAttempt>,
}

/// One attempt to pass a result on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayAttempt {
    /// From 1.
    pub number: u32,
    #[serde(with = "time::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub millis: u64,
    /// HTTP status of the answer; `null` if there was none.
    #[schema(required)]
    pub status: Option<u16>,
    /// Why there was no answer.
    #[schema(required)]
    pub error: Option<String>,
    /// The answer's first 4 KiB; what is not UTF-8 is replaced.
    pub answer: String,
}

/// How many were ordered again, or would be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resent {
    pub relays: u64,
    pub dry_run: bool,
}

/// Figures over all jobs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub jobs: u64,
    /// Every status, also those without a job.
    pub by_status: BTreeMap<String, u64>,
    /// Newest first, UTC, the last thirty days that had jobs.
    pub days: Vec<Day>,
    pub turnaround: Turnaround,
}

/// The jobs that were created on one day.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    #[schema(example = "2026-11-23")]
    pub day: String,
    pub jobs: u64,
    pub by_status: BTreeMap<String, u64>,
}

/// Seconds from submission to result, over the jobs that finished last; `null` without any.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Turnaround {
    /// How many jobs it is taken from, at most 1,000.
    pub jobs: u64,
    #[schema(required)]
    pub p50_seconds: Option<f64>,
    #[schema(required)]
    pub p95_seconds: Option<f64>,
    #[schema(required)]
    pub p99_seconds: Option<f64>,
}

/// How many jobs were erased.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Erased {
    pub erased: u64,
}

/// What became of a callback.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Received {
    #[schema(value_type = schema::CallbackOutcome)]
    pub outcome: String,
}

/// An error (RFC 9457).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(rename = "type")]
    #[schema(example = "urn:finishline:problem:validation-failed")]
    pub kind: String,
    pub title: String,
    #[schema(example = 422)]
    pub status: u16,
    /// For people; its words may change.
    pub detail: String,
    #[schema(value_type = ProblemCode)]
    pub code: String,
    /// What is wrong with the body, place by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The job that stays on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// HTTP status of the Engine's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_status: Option<u16>,
    /// Body of the Engine's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::engine_answer)]
    pub engine_body: Option<Box<RawValue>>,
    /// HTTP status of the storage's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_status: Option<u16>,
    /// The storage's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SignatureDoesNotMatch")]
    pub storage_code: Option<String>,
    /// The storage's own words, without what may be a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_message: Option<String>,
}

/// One thing wrong with a body or a query.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the body, or `/name` of a query parameter.
    #[schema(example = "/inputFiles/cbct/extension")]
    pub pointer: String,
    pub detail: String,
}

impl From<domain::job::Input> for Input {
    fn from(input: domain::job::Input) -> Self {
        Self {
            name: input.name,
            extension: input.extension,
            upload_url: input.upload_url,
            notify_url: input.notify_url,
            state: input.state.as_str().into(),
        }
    }
}

impl From<domain::job::Output> for Output {
    fn from(output: domain::job::Output) -> Self {
        Self {
            name: output.name,
            kind: output.kind,
            index: output.index,
            extension: output.extension,
            structures: output.structures,
            status: output.status,
            url: output.url,
            file: output.file.map(File::from),
        }
    }
}

impl From<domain::mirror::MirroredFile> for File {
    fn from(file: domain::mirror::MirroredFile) -> Self {
        // What it is served with; the storage may have said anything.
        let content_type = domain::media_type::served(&file.content_type).into();
        Self { bytes: file.bytes, sha256: hex(&file.sha256), content_type }
    }
}

impl From<domain::delivery::Delivery> for Delivery {
    fn from(delivery: domain::delivery::Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            job_id: delivery.job_id.to_string(),
            received_at: delivery.received_at,
            source: delivery.source,
            outcome: delivery.outcome.as_str().into(),
            bytes: delivery.bytes,
            sha256: hex(&delivery.sha256),
            repeats: delivery.repeats,
            headers: delivery.headers,
        }
    }
}

impl From<domain::relay::Attempt> for RelayAttempt {
    fn from(attempt: domain::relay::Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at,
            millis: attempt.millis,
            status: attempt.status,
            error: attempt.error,
            answer: String::from_utf8_lossy(&attempt.answer).into_owned(),
        }
    }
}

impl From<domain::event::Event> for Event {
    fn from(event: domain::event::Event) -> Self {
        let data = RawValue::from_string(event.data).ok();
        Self {
            seq: event.seq,
            job_id: event.job_id.to_string(),
            kind: event.kind,
            at: event.at,
            data: data.unwrap_or_else(|| RawValue::NULL.to_owned()),
        }
    }
}

/// A job body that runs: one CBCT in, one mesh out.
pub fn example_job_body() -> serde_json::Value {
    json!({
        "inputFiles": { "cbct": { "extension": ".dcm" } },
        "outputFiles": { "meshes": [{ "extension": ".stl", "structures": ["mandible"] }] },
        "finishline": { "reference": "case-42" },
    })
}
