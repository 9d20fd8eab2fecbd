//! `/healthz`, `/readyz`, `/metrics`: what operators and orchestrators ask.
//!
//! The invariant: ready means that a callback sent now would be stored and a job could be
//! submitted; it is found out by doing, with a real write. A spool that works does not make up for
//! a database that does not.

use std::time::Duration;

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
};
use crate::{clock::Stopwatch, domain::time, store::StoreError};

/// A database that does not write by then is not ready; whoever asks has little patience.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// The process is alive.
#[utoipa::path(
    operation_id = "checkAlive",
    get, path = "/healthz", tag = "operation",
    responses((status = 200, body = Object, example = json!({"status": "ok"}))),
)]
pub async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The service can do its work.
#[utoipa::path(
    operation_id = "checkReady",
    get, path = "/readyz", tag = "operation",
    description = "Writes to the database; says whether the public URL leads here, as the doctor \
        found it last. Details only with a key.",
    responses(
        (status = 200, body = Object, description = "Ready"),
        (status = 503, body = Object, description = "Not ready"),
    ),
)]
pub async fn ready(KnownCaller(caller): KnownCaller, State(context): State<Context>) -> Response {
    let stopwatch = Stopwatch::start();
    let probe = context.store.probe(context.clock.now());
    let database = tokio::time::timeout(PROBE_PATIENCE, probe).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("no answer within {PROBE_PATIENCE:?}")))
    });
    let commit_millis = stopwatch.elapsed().as_secs_f64() * 1000.0;
    let public_url = reachability(&context).await;
    let (now, beats) = (context.clock.now(), context.pulse.beats());
    let is_turning = beats.values().all(|beat| !beat.is_missed(now));
    let is_ready = database.is_ok() && public_url["ok"] == true && is_turning;
    let mut body = json!({ "status": if is_ready { "ready" } else { "not ready" } });
    if caller.is_some() {
        body["checks"] = json!({
            "database": match database {
                Ok(()) => json!({ "ok": true, "commitMillis": commit_millis }),
                Err(error) => json!({ "ok": false, "detail": error.to_string() }),
            },
            "publicUrl": public_url,
            "spool": match context.intake.spool_state() {
                Some(state) => json!({
                    "ok": true,
                    "records": state.records,
                    "bytes": state.bytes,
                    "bytesFree": state.bytes_free,
                }),
                None => json!({ "ok": true, "detail": "off" }),
            },
            "loops": beats.iter().map(|(name, beat)| {
                let last = json!({
                    "ok": !beat.is_missed(now),
                    "lastTurnAt": time::render(beat.at),
                    "ageSeconds": beat.age(now).as_secs(),
                });
                ((*name).to_owned(), last)
            }).collect::<serde_json::Map<_, _>>(),
        });
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// The public URL as the doctor found it last; one that it has not examined yet counts as fine.
async fn reachability(context: &Context) -> Value {
    let url = match context.public_url.current().await {
        Ok(url) => url,
        Err(unknown) => return json!({ "ok": false, "detail": unknown.to_string() }),
    };
    match context.doctor.last().filter(|finding| finding.url.as_ref() == Some(&url)) {
        None => json!({ "ok": true, "url": url, "checkedAt": null }),
        Some(finding) => json!({
            "ok": finding.fault.is_none(),
            "url": url,
            "checkedAt": time::render(finding.checked_at),
            "detail": finding.fault.map(|fault| fault.to_string()),
        }),
    }
}

/// Figures in the Prometheus text format.
#[utoipa::path(
    operation_id = "showMetrics",
    get, path = "/metrics", tag = "operation", description = "Scope: `read`.",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 401, body = crate::api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = crate::api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
    ),
    security(("key" = [])),
)]
pub async fn metrics(_: MayRead, State(context): State<Context>) -> Result<Response, Problem> {
    context.metrics.run_upkeep();
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, context.metrics.render()).into_response())
}
