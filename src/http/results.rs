//! `/v1/jobs/{id}/result`: the callback's body, byte for byte.
//!
//! The invariant: the bytes are those that were received, under the digest that was stored with
//! them.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};

use super::{
    Context,
    access::MayRead,
    conditions,
    error::Problem,
    extract::JobPath,
    jobs::found,
    wait::{self, Wait},
};
use crate::{api, domain::digest, store::StoredResult};

/// Shows a job's result exactly as the Engine sent it.
#[utoipa::path(
    operation_id = "showResult",
    get, path = "/v1/jobs/{id}/result", tag = "jobs",
    description = "`202` with the job while there is no result; with `wait`, only when the time is \
        up. Scope: `read`.",
    params(
        ("id" = String, Path, description = "Job id"),
        ("wait" = Option<u64>, Query, description = "Seconds, 0 to 60"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` seen before"),
    ),
    responses(
        (status = 200, body = Object, description = "The exact bytes", headers(("ETag" = String))),
        (status = 202, body = api::Job, description = "There is none yet"),
        (status = 304, description = "It is the one you have"),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`overloaded`, `storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn show(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
    Wait(wait): Wait,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Whoever has seen a result most likely has it: then its body need not be read.
    if headers.contains_key(IF_NONE_MATCH)
        && let Some(sha256) = context.store.result_digest(id).await?
        && conditions::is_known(&headers, &etag(&sha256))
    {
        return Ok((StatusCode::NOT_MODIFIED, head(&sha256)).into_response());
    }
    if let Some(result) = found(context.store.result(id).await?)? {
        return render(&context, result);
    }
    let job = wait::finished(&context, &caller.name, id, wait).await?;
    if job.status.is_finished()
        && let Some(result) = found(context.store.result(id).await?)?
    {
        return render(&context, result);
    }
    Ok((StatusCode::ACCEPTED, Json(api::Job::from(job))).into_response())
}

fn render(context: &Context, result: StoredResult) -> Result<Response, Problem> {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let body = context.limits.answers.hold(result.body)?;
    Ok((head(&result.sha256), kind, body).into_response())
}

fn head(sha256: &[u8; 32]) -> [(HeaderName, HeaderValue); 3] {
    let etag = HeaderValue::try_from(etag(sha256));
    [
        (ETAG, etag.expect("hexadecimal in quotes is a header value")),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
        // Browsers come here from the inspector: what was received is data to them.
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

fn etag(sha256: &[u8; 32]) -> String {
    format!("\"{}\"", digest::hex(sha256))
}
