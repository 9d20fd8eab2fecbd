//! The notify URLs: "the upload is complete".
//!
//! Called by the router; the URLs for the reply of `submission` are made here. Invariant: a job
//! starts when every input without a download URL is uploaded and notified, and only once.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde_json::{Value, json};

use super::job::{AcceptedJob, Input};
use super::submission::{check_route, route_of};
use super::{Refusal, Simulator};

impl AcceptedJob {
    /// The notify URL of one input, or of all of them.
    pub(super) fn notify_url(&self, input: Option<&str>) -> String {
        let route = route_of(&self.version);
        let mut segments = vec![&self.version, route, &self.engine_job_id, "notify"];
        segments.extend(input);
        self.address(&segments).into()
    }
}

/// `POST …/{job}/notify`: notifies every input that is uploaded.
pub(super) async fn notify_job(
    State(simulator): State<Simulator>,
    Path((version, route, engine_job_id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    check_route(&version, &route)?;
    notify(&simulator, &headers, &engine_job_id, |input| input.upload.is_some())
}

/// `POST …/{job}/notify/{input}`
pub(super) async fn notify_input(
    State(simulator): State<Simulator>,
    Path((version, route, engine_job_id, name)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    check_route(&version, &route)?;
    notify(&simulator, &headers, &engine_job_id, |input| input.name == name)
}

fn notify(
    simulator: &Simulator,
    headers: &HeaderMap,
    engine_job_id: &str,
    is_meant: impl Fn(&Input) -> bool,
) -> Result<Json<Value>, Refusal> {
    let options = simulator.options();
    simulator.change(|state| state.requests.notifies += 1);
    if options.notify_requires_token {
        simulator.authorize(headers)?;
    }
    if let Some(status) = options.notify_answer {
        return Err(Refusal::by_option(status));
    }
    simulator.change(|state| {
        let job = state.job_mut(engine_job_id).ok_or_else(|| Refusal::not_found("job"))?;
        let meant: Vec<&mut Input> =
            job.inputs.iter_mut().filter(|input| is_meant(input)).collect();
        let conflict = |reason| Err(Refusal::new(StatusCode::CONFLICT, reason));
        if meant.is_empty() || meant.iter().any(|input| input.upload.is_none()) {
            return conflict("the input is not uploaded");
        }
        if options.refuse_second_notify && meant.iter().all(|input| input.notified) {
            return conflict("the input was notified before");
        }
        meant.into_iter().for_each(|input| input.notified = true);
        job.notified += 1;
        Ok(())
    })?;
    simulator.start_if_ready(engine_job_id);
    Ok(Json(json!({})))
}
