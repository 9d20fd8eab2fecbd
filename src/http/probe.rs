//! Probes of the public URL: `POST /callbacks/{nil UUID}/{signature}`, sent by the doctor.
//!
//! Answered by the callbacks' door of the service, and by a door of their own while the service is
//! not running. Invariant: a probe touches no database, and its answer proves that the instance
//! with this key has read exactly this body.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{any, post},
};
use serde_json::json;

use super::{error::Problem, extract::read_body, headers, limits::Limits};
use crate::{config::Config, domain::signature};

/// The answer to a probe whose signature is genuine.
pub(super) fn answer(key: &[u8; 32], body: &[u8]) -> Response {
    let proof = signature::prove(key, body);
    Json(json!({ "outcome": "probe", "proof": proof })).into_response()
}

#[derive(Clone)]
struct Door {
    key: [u8; 32],
    max_body: usize,
    limits: Limits,
}

/// Answers probes; every other request is asked to retry later, since nothing is kept here.
pub fn door(key: [u8; 32], config: &Config) -> Router {
    let door = Door { key, max_body: config.callbacks.max_body, limits: Limits::new(config) };
    Router::new()
        .route("/callbacks/{job}/{signature}", post(receive))
        .fallback(any(async || Problem::StorageUnavailable))
        .method_not_allowed_fallback(async || Problem::StorageUnavailable)
        .layer(map_response(headers::completed))
        .with_state(door)
}

async fn receive(
    State(door): State<Door>,
    Path((job, given)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = job.parse()?;
    if !signature::is_genuine(&door.key, id, &given) {
        return Err(Problem::NotFound);
    }
    if id != signature::PROBE_ID {
        return Err(Problem::StorageUnavailable);
    }
    let read = read_body(&door.limits, &headers, body, door.max_body).await;
    let body = read.map_err(|error| error.into_problem(door.max_body))?;
    Ok(answer(&door.key, &body))
}
