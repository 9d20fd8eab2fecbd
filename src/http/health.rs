//! `/healthz`, `/readyz`, `/metrics`: endpoints for operators and orchestrators.
//!
//! Invariants: ready means that a callback sent now would be stored and a job could be submitted,
//! as a real write shows, and a working spool does not make up for a failing database; nobody
//! without a key can cause a write by asking the API's door.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Context,
    access::{KnownCaller, MayRead},
    error::Problem,
    readiness::Finding,
    refusals::{KEY, OPEN, Refusals},
};
use crate::{
    api::{self, schema},
    domain::time,
};

/// The process is alive.
#[utoipa::path(
    operation_id = "checkAlive",
    get, path = "/healthz", tag = "operation",
    responses(
        (status = 200, body = schema::Alive, description = "It is alive"),
        Refusals<{ OPEN }>,
    ),
)]
pub async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The service can do its work.
#[utoipa::path(
    operation_id = "checkReady",
    get, path = "/readyz", tag = "operation",
    description = "Whether the database takes a write, and whether the public URL leads here, as \
        the doctor found it last. All who ask with a key share one probe a second, and are told \
        the details; without a key the answer is the last probe's. The callbacks' door has a \
        `/readyz` too: 200 while a callback would be kept, in the spool too.",
    security((), ("key" = [])),
    responses(
        Refusals<{ OPEN }>,
        (status = 200, body = schema::Ready, description = "Ready"),
        (status = 503, description = "Not ready; `overloaded`: too much is going on", content(
            (schema::Ready = "application/json"),
            (api::Problem = "application/problem+json"),
        )),
    ),
)]
pub async fn ready(KnownCaller(caller): KnownCaller, State(context): State<Context>) -> Response {
    let has_key = caller.is_some();
    let finding = match has_key {
        true => context.readiness.fresh(&context).await,
        false => context.readiness.last(&context).await,
    };
    let now = context.clock.now();
    let is_turning = context.heartbeats.beats().values().all(|beat| !beat.is_missed(now));
    let is_ready = finding.database.is_ok() && finding.public_url["ok"] == true && is_turning;
    let details = has_key.then(|| checks(&context, &finding));
    answer(is_ready, details)
}

/// Ready if a callback sent now would be kept, in the database or in the spool. Everyone may ask,
/// so the answer holds no details.
pub async fn ready_for_callbacks(State(context): State<Context>) -> Response {
    let finding = context.readiness.fresh(&context).await;
    answer(finding.database.is_ok() || context.intake.has_room_in_spool(), None)
}

fn answer(is_ready: bool, details: Option<Value>) -> Response {
    let mut body = json!({ "status": if is_ready { "ready" } else { "not ready" } });
    if let Some(checks) = details {
        body["checks"] = checks;
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// The details of readiness.
fn checks(context: &Context, finding: &Finding) -> Value {
    let now = context.clock.now();
    json!({
        "database": match &finding.database {
            Ok(took) => json!({ "ok": true, "commitMillis": took.as_secs_f64() * 1000.0 }),
            Err(error) => json!({ "ok": false, "detail": error.to_string() }),
        },
        "publicUrl": finding.public_url,
        "spool": match context.intake.spool_state() {
            Some(state) => json!({
                "ok": true,
                "records": state.records,
                "bytes": state.bytes,
                "bytesFree": state.bytes_free,
            }),
            None => json!({ "ok": true, "detail": "off" }),
        },
        "loops": context.heartbeats.beats().iter().map(|(name, beat)| {
            let last = json!({
                "ok": !beat.is_missed(now),
                "lastTurnAt": time::render(beat.at),
                "ageSeconds": beat.age(now).as_secs(),
            });
            ((*name).to_owned(), last)
        }).collect::<serde_json::Map<_, _>>(),
    })
}

/// Figures in the Prometheus text format.
#[utoipa::path(
    operation_id = "showMetrics",
    get, path = "/metrics", tag = "operation", description = "Scope: `read`.",
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "The figures"),
        Refusals<{ KEY }>,
    ),
    security(("key" = [])),
)]
pub async fn metrics(_: MayRead, State(context): State<Context>) -> Result<Response, Problem> {
    context.metrics.run_upkeep();
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, context.metrics.render()).into_response())
}
