//! Orders of a person or an operator for one job: look it up, send it again.
//!
//! The invariant: an order that may cost money twice says so and wants to be confirmed.

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
    submission::{self, Submitted},
};
use crate::{
    api,
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
    params(("id" = String, Path, description = "Job id")),
    responses(
        (status = 200, body = api::JobView),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 409, body = api::Problem, content_type = "application/problem+json", description = "`no-engine-id`"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 422, body = api::Problem, content_type = "application/problem+json", description = "`engine-rejected`"),
        (status = 502, body = api::Problem, content_type = "application/problem+json", description = "`engine-auth`, `engine-unavailable`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`engine-busy`, `overloaded`, `storage-unavailable`"),
        (status = 504, body = api::Problem, content_type = "application/problem+json", description = "`engine-timeout`"),
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

/// Asks the Engine once, and keeps what it says even if whoever asked hangs up.
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
    params(("id" = String, Path, description = "Job id")),
    request_body(content = Option<Resubmission>, example = json!({"confirm": true})),
    responses(
        (status = 201, body = api::JobView, description = "The Engine took it"),
        (status = 400, body = api::Problem, content_type = "application/problem+json", description = "`malformed-json`"),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 408, body = api::Problem, content_type = "application/problem+json", description = "`request-timeout`"),
        (status = 409, body = api::Problem, content_type = "application/problem+json", description = "`idempotency-in-flight`: it is being submitted right now"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 413, body = api::Problem, content_type = "application/problem+json", description = "`payload-too-large`"),
        (status = 415, body = api::Problem, content_type = "application/problem+json", description = "`unsupported-media-type`"),
        (status = 422, body = api::Problem, content_type = "application/problem+json", description = "`validation-failed`: not confirmed, or nothing to send again; `engine-rejected`"),
        (status = 502, body = api::Problem, content_type = "application/problem+json", description = "`engine-auth`, `engine-unavailable`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`engine-busy`, `public-url-unknown`, `overloaded`, `storage-unavailable`"),
        (status = 504, body = api::Problem, content_type = "application/problem+json", description = "`engine-timeout`"),
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
