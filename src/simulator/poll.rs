//! `GET /{version}/job/{id}`: the state of a job.
//!
//! Called by the router. Invariant: for a finished job it returns the body of its callback, byte
//! for byte, unless `resign_polls` is set.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::submission::check_route;
use super::{Options, Refusal, Running, Simulator};

pub(super) async fn poll(
    State(simulator): State<Simulator>,
    Path((version, route, engine_job_id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    check_route(&version, &route)?;
    simulator.change(|state| state.requests.polls += 1);
    simulator.authorize(&headers)?;
    let job = simulator.change(|state| {
        let job = state.job_mut(&engine_job_id)?;
        job.polls += 1;
        Some(job.clone())
    });
    let job = job.ok_or_else(|| Refusal::not_found("job"))?;
    let options = simulator.options();
    if let Some(status) = options.poll_answer
        && simulator.strikes(|options| &mut options.poll_answer_rate)
    {
        return Err(Refusal::by_option(status));
    }
    let body = match job.result.clone() {
        None => return running(&engine_job_id, &options),
        Some(_) if options.resign_polls => simulator.render(&job, &options),
        Some(result) => result,
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn running(engine_job_id: &str, options: &Options) -> Result<Response, Refusal> {
    let mut body = json!({});
    if let Some(name) = options.id_field.name() {
        body[name] = json!(engine_job_id);
    }
    let status = match options.running {
        Running::NotFound => return Err(Refusal::not_found("result")),
        Running::Accepted => StatusCode::ACCEPTED,
        Running::WithoutSuccess => StatusCode::OK,
        Running::SuccessFalse => {
            body["success"] = json!(false);
            StatusCode::OK
        }
    };
    Ok((status, Json(body)).into_response())
}
