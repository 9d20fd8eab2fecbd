//! A job's timeline.
//!
//! The invariant: events are shown in the order of their numbers, which is the order of their
//! commits.

use axum::{Json, extract::State};

use super::{Context, access::MayRead, error::Problem, extract::JobPath, jobs::found};
use crate::api;

/// Shows a job's timeline.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "events", description = "Scope: `read`.",
    params(("id" = String, Path, description = "Job id")),
    responses(
        (status = 200, body = api::Events),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn timeline(
    _: MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
) -> Result<Json<api::Events>, Problem> {
    let events = found(context.store.events(id).await?)?;
    Ok(Json(api::Events { events: events.into_iter().map(api::Event::from).collect() }))
}
