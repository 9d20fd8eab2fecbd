//! The routes under `/_simulator/`, for tests in another process, and the log file.
//!
//! Called by the router; the log is written when a job is accepted and when a callback is answered
//! 2xx. Invariants: a log line is in the file before the fact is visible anywhere else; tokens are
//! never shown.

use std::io::Write;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::job::Input;
use super::{AcceptedJob, JobState, Options, Refusal, SentCallback, Simulator, State as Log, hex};

pub(super) async fn jobs(State(simulator): State<Simulator>) -> Json<Value> {
    Json(simulator.jobs().iter().map(AcceptedJob::log_line).collect())
}

pub(super) async fn callbacks(State(simulator): State<Simulator>) -> Json<Value> {
    Json(simulator.callbacks().iter().map(SentCallback::log_line).collect())
}

pub(super) async fn finish(
    State(simulator): State<Simulator>,
    Path(engine_job_id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    match simulator.finish(&engine_job_id) {
        true => Ok(Json(json!({}))),
        false => Err(Refusal::not_found("unfinished job")),
    }
}

pub(super) async fn send_callback(
    State(simulator): State<Simulator>,
    Path(engine_job_id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let job = simulator.job(&engine_job_id).filter(AcceptedJob::is_finished);
    if job.is_none_or(|job| job.callback_url.is_none()) {
        return Err(Refusal::not_found("finished job with a callback address"));
    }
    Ok(Json(json!({"status": simulator.send_callback(&engine_job_id).await})))
}

pub(super) async fn options(State(simulator): State<Simulator>) -> Json<Options> {
    Json(simulator.options())
}

pub(super) async fn change_options(
    State(simulator): State<Simulator>,
    Json(patch): Json<Value>,
) -> Result<Json<Options>, Refusal> {
    simulator.change(|state| {
        let merged = state.options.merged(patch);
        let merged = merged.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
        state.options = merged.clone();
        Ok(Json(merged))
    })
}

pub(super) async fn stats(State(simulator): State<Simulator>) -> Json<Value> {
    let state = simulator.state();
    let in_state = |wanted| state.jobs.iter().filter(|job| job.state == wanted).count();
    Json(json!({
        "requests": state.requests,
        "jobs": {
            "accepted": state.jobs.len(),
            "waiting": in_state(JobState::Waiting),
            "processing": in_state(JobState::Processing),
            "finished": in_state(JobState::Finished),
        },
        "callbacks": {
            "sent": state.callbacks.len(),
            "answered": state.callbacks.iter().filter(|callback| callback.answered()).count(),
            "held": state.held.len(),
        },
    }))
}

impl Log {
    /// Appends a line to the log file, if there is one.
    pub(super) fn write_log(&mut self, line: Value) {
        let Some(log) = &mut self.log else { return };
        // A single write call, so that another process never reads half a line.
        if let Err(error) = log.write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(%error, "the simulator's log cannot be written");
        }
    }
}

impl AcceptedJob {
    pub(super) fn log_line(&self) -> Value {
        json!({
            "type": "job",
            "engine_job_id": self.engine_job_id,
            "version": self.version,
            "accepted_at": self.accepted_at.to_string(),
            "state": self.state,
            "callback_url": self.callback_url,
            "headers": header_list(&self.headers),
            "body": text(&self.body),
            "sha256": hex(&Sha256::digest(&self.body)),
            "inputs": self.inputs.iter().map(Input::log_entry).collect::<Value>(),
            "notified": self.notified,
            "polls": self.polls,
            "success": self.success,
            "result": self.result.as_ref().map(|result| text(result)),
        })
    }
}

impl Input {
    fn log_entry(&self) -> Value {
        let upload = self.upload.as_ref().map(|upload| {
            let headers = header_list(&upload.headers);
            json!({"size_bytes": upload.size_bytes, "sha256": upload.sha256, "headers": headers})
        });
        json!({"name": self.name, "extension": self.extension, "upload": upload, "notified": self.notified})
    }
}

impl SentCallback {
    pub(super) fn log_line(&self) -> Value {
        json!({
            "type": "callback",
            "engine_job_id": self.engine_job_id,
            "url": self.url,
            "body": text(&self.body),
            "sha256": self.sha256,
            "status": self.status,
            "sent_at": self.sent_at.to_string(),
        })
    }
}

/// Text as it is; other bytes as `{"base64": "…"}`.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

fn header_list(headers: &HeaderMap) -> Value {
    let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let entry = |(name, value): (&header::HeaderName, &header::HeaderValue)| match name {
        &header::AUTHORIZATION => json!([name.as_str(), "(hidden)"]),
        _ => json!([name.as_str(), shown(value.as_bytes())]),
    };
    headers.iter().map(entry).collect()
}
