//! `/v1/jobs/{id}/result`: the callback's body, byte for byte.
//!
//! Invariant: the bytes are those that were received, under the digest that was stored with them.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};

use super::{
    Context,
    access::MayRead,
    conditions,
    error::Problem,
    extract::JobPath,
    headers,
    jobs::found,
    parameters::KnownTag,
    refusals::{CHECKED, JOB, KEY, Refusals},
    wait::{self, Wait},
};
use crate::{
    api::{self, schema},
    domain::digest,
    store::StoredResult,
};

/// Shows a job's result exactly as the Engine sent it.
#[utoipa::path(
    operation_id = "showResult",
    get, path = "/v1/jobs/{id}/result", tag = "jobs",
    description = "`202` with the job while there is no result; with `wait`, only when the time is \
        up. Scope: `read`.",
    params(JobPath, Wait, KnownTag),
    responses(
        (status = 200, body = schema::EngineResult, description = "The exact bytes", headers(
            ("ETag" = String, description = "To be sent as `If-None-Match`"),
        )),
        (status = 202, body = api::Job, description = "There is none yet"),
        (status = 304, description = "It is the one you have"),
        Refusals<{ KEY | JOB | CHECKED }>,
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
    // A reader that knows a result's tag most likely has the result: then its body need not be
    // read.
    if headers.contains_key(IF_NONE_MATCH)
        && let Some(sha256) = context.store.result_digest(id).await?
        && conditions::is_known(&headers, &etag(&sha256))
    {
        return Ok((StatusCode::NOT_MODIFIED, head(&sha256)).into_response());
    }
    if let Some(result) = found(context.store.result(id).await?)? {
        return Ok(render(result));
    }
    let job = wait::finished(&context, &caller, id, wait).await?;
    if job.status.is_finished()
        && let Some(result) = found(context.store.result(id).await?)?
    {
        return Ok(render(result));
    }
    Ok((StatusCode::ACCEPTED, Json(caller.view_whole(job)?)).into_response())
}

fn render(result: StoredResult) -> Response {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (head(&result.sha256), kind, result.body).into_response()
}

fn head(sha256: &[u8; 32]) -> [(HeaderName, HeaderValue); 2] {
    let etag = HeaderValue::try_from(etag(sha256));
    [
        (ETAG, etag.expect("hexadecimal in quotes is a header value")),
        (CACHE_CONTROL, headers::PRIVATE),
    ]
}

fn etag(sha256: &[u8; 32]) -> String {
    format!("\"{}\"", digest::hex(sha256))
}
