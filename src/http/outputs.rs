//! `/v1/jobs/{id}/outputs`: a job's output files, one by one or as one bundle.
//!
//! Called by the company's software. Invariant: our copy is preferred to the Engine's link, which
//! expires; a link is sent only if the guard of `outbound` permits it.

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};

use super::{
    Context,
    access::MayRead,
    bundle, download,
    error::Problem,
    extract::{FilePath, JobPath},
    file_responses::FileResponses,
    jobs::found,
    parameters::{BundleQuery, KnownTag, PartHeaders},
    refusals::{CHECKED, JOB, KEY, Refusals},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::job::{Job, Output},
    outbound::Refused,
};

/// A larger file is a download that takes a place.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;

/// Lists a job's outputs, or gives all their files as a zip.
#[utoipa::path(
    operation_id = "listOutputs",
    get, path = "/v1/jobs/{id}/outputs", tag = "jobs",
    description = "With `bundle=zip`, every mirrored file of the job in one archive, put together \
        while it is read. One that breaks off is shorter than its `Content-Length`. Scope: `read`.",
    params(JobPath, BundleQuery),
    responses(
        (status = 200, description = "The list, or the archive", content(
            (api::Outputs = "application/json"),
            (inline(schema::Binary) = "application/zip"),
        )),
        Refusals<{ KEY | JOB | CHECKED | Code::FileStoreUnavailable.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn list(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let is_bundle = is_bundle(&query.unwrap_or_default())?;
    let job = found(context.store.job(id).await?)?;
    if is_bundle {
        let place = context.limits.places.take(&caller.name)?;
        return Ok(place.until_sent(bundle::zip(context, job).await?));
    }
    let outputs = job.into_shown().outputs.into_iter().map(api::Output::from).collect();
    Ok(Json(api::Outputs { outputs }).into_response())
}

fn is_bundle(query: &str) -> Result<bool, Problem> {
    let mut is_bundle = false;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("bundle", "zip") => is_bundle = true,
            ("bundle", _) => return Err(Problem::invalid("/bundle", "expected zip")),
            _ => return Err(Problem::invalid(format!("/{name}"), "unknown parameter")),
        }
    }
    Ok(is_bundle)
}

/// Gives an output's file.
#[utoipa::path(
    operation_id = "showOutput",
    get, path = "/v1/jobs/{id}/outputs/{name}", tag = "jobs",
    description = "The mirrored copy, verified against the digest on record when it is served \
        first. While there is none, a redirect to the Engine's link, unless the guard for foreign \
        addresses refuses it. Scope: `read`.",
    params(FilePath, PartHeaders, KnownTag),
    responses(
        FileResponses,
        (status = 304, description = "It is the one you have"),
        (status = 307, description = "The Engine's link", headers(("Location" = String, description = "It expires"))),
        Refusals<{
            KEY | JOB | Code::RangeNotSatisfiable.bit() | Code::UrlRefused.bit()
                | Code::FileStoreUnavailable.bit()
        }>,
    ),
    security(("key" = [])),
)]
pub async fn show(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    FilePath(id, name): FilePath,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = found(context.store.job(id).await?)?;
    let output = job.outputs.iter().find(|output| output.name == name);
    let output = output.ok_or(Problem::NotFound)?;
    let copy = download::copies(&job).into_iter().find(|copy| copy.output.name == name);
    if let Some(copy) = copy.filter(|_| context.blobs.is_some()) {
        // A smaller file fits into the connection's buffers and is sent at once.
        let is_large = copy.output.file.as_ref().is_some_and(|file| file.bytes > SMALL_FILE_BYTES);
        let place = is_large.then(|| context.limits.places.take(&caller.name)).transpose()?;
        if let Some(served) = download::copy(&context, (&job, &copy), &method, &headers).await? {
            return Ok(match place {
                Some(place) => place.until_sent(served),
                None => served,
            });
        }
        return redirect(&context, output).await?.ok_or(Problem::FileStoreUnavailable);
    }
    let redirected = redirect(&context, output).await?;
    redirected.ok_or_else(|| Problem::NoFile(why_not(&job, output)))
}

/// Redirects to the Engine's link, which is a credential: `headers` keeps it out of caches. `None`
/// if the Engine gave no link.
async fn redirect(context: &Context, output: &Output) -> Result<Option<Response>, Problem> {
    let Some(link) = &output.url else { return Ok(None) };
    let link = context.outbound.may_leave(link).await?;
    let link = HeaderValue::try_from(String::from(link)).map_err(|_| Refused::Unreadable)?;
    Ok(Some((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, link)], Body::empty()).into_response()))
}

fn why_not(job: &Job, output: &Output) -> String {
    match output.status.as_deref() {
        _ if !job.status.is_finished() => format!("the job is {}: it has no files yet", job.status),
        Some(status) => format!("the Engine gave no link for it and says that it is {status}"),
        None => "the Engine gave no link for it".into(),
    }
}
