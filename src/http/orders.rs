//! Operations on one job that a person or an operator orders: look it up, send it again.
//!
//! Invariant: an order that may cost money twice says so and requires confirmation.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    Context,
    access::{MayOperate, MaySubmit},
    error::Problem,
    extract::{JobPath, read_small_json},
    jobs::found,
    refusals::{ENGINE, JOB, JSON, KEY, Refusals},
    submission::{self, Submitted},
};
use crate::{
    api::{self, ProblemCode as Code},
    domain::{ids::JobId, job::Job},
    engine::Polled,
    store::{Arrival, Receipt},
};

/// Asks the Engine once for a job's result.
#[utoipa::path(
    operation_id = "refreshJob",
    post, path = "/v1/jobs/{id}/refresh", tag = "jobs",
    description = "Still running: nothing changes. Finished: the answer is kept as a delivery with \
        `source: \"engine\"` and becomes the result when there is none, renews the links, or is \
        kept as a conflict. Scope: `operate`.",
    params(JobPath),
    responses(
        (status = 200, body = api::JobView, description = "The job as it is now"),
        Refusals<{ KEY | JOB | ENGINE | Code::NoEngineId.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn refresh(
    MayOperate(caller): MayOperate,
    State(context): State<Context>,
    JobPath(id): JobPath,
) -> Result<Json<api::JobView>, Problem> {
    match look_up_to_the_end(context, id).await {
        Ok(job) => Ok(Json(caller.view(job))),
        Err(problem) => Err(caller.view_problem(problem)),
    }
}

/// Asks the Engine once, and keeps the answer even if the caller hangs up.
pub(super) async fn look_up_to_the_end(context: Context, id: JobId) -> Result<Job, Problem> {
    let tasks = context.tasks.clone();
    let refreshed = tasks.spawn(async move { look_up(&context, id).await });
    refreshed.await.unwrap_or(Err(Problem::Internal))
}

async fn look_up(context: &Context, id: JobId) -> Result<Job, Problem> {
    let job = found(context.store.job(id).await?)?;
    let engine_job_id = job.engine_job_id.ok_or(Problem::NoEngineId)?;
    let polled = context.engine.fetch_result(&engine_job_id).await;
    if let Polled::Finished(body) = polled.map_err(|error| Problem::of_look_up(id, &error))? {
        let id_pointers = &context.config.engine.job_id_pointers;
        let arrival = Arrival::of_engine(id, body, context.clock.now(), id_pointers);
        if context.store.receive(arrival).await? == Receipt::Erased {
            return Err(Problem::Gone);
        }
    }
    found(context.store.job(id).await?)
}

/// The body of a resubmission; it may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resubmission {
    /// `true`: send an `unconfirmed` job again although the Engine may be running it.
    #[serde(default)]
    confirm: bool,
}

/// Sends a job again under its own id.
#[utoipa::path(
    operation_id = "resubmitJob",
    post, path = "/v1/jobs/{id}/resubmit", tag = "jobs",
    description = "Free for `unsent` and `rejected`. An `unconfirmed` job may be running, and would \
        be billed twice: it needs `{\"confirm\": true}`. Scope: `submit`.",
    params(JobPath),
    request_body(content = Option<Resubmission>, example = json!({"confirm": true})),
    responses(
        (status = 201, body = api::JobView, description = "The Engine took it"),
        Refusals<{
            KEY | JOB | JSON | ENGINE | Code::IdempotencyInFlight.bit()
                | Code::PublicUrlUnknown.bit()
        }>,
    ),
    security(("key" = [])),
)]
pub async fn resubmit(
    MaySubmit(caller): MaySubmit,
    State(context): State<Context>,
    JobPath(id): JobPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let order: Resubmission = read_small_json(&context.limits, &headers, body).await?;
    let (Submitted::Now(job) | Submitted::Replay(job)) =
        submission::resubmit(context, id, order.confirm).await?;
    Ok((StatusCode::CREATED, Json(caller.view(*job))).into_response())
}
