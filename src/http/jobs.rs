//! `/v1/jobs`: submit, list, show, erase.
//!
//! Called by the company's software. A handler only parses, calls and renders.

use std::{sync::Arc, time::Duration};

use axum::{
    BoxError, Json,
    body::Body,
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::{AppendHeaders, IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use sha2::{Digest, Sha256};

use super::{
    Context,
    accept::prefers,
    access::{Caller, MayErase, MayRead, MaySubmit},
    error::Problem,
    extract::{JobPath, ListQuery, expect_json},
    gzip::read_unpacked,
    idempotency_key,
    parameters::{EndUserQuery, SubmitHeaders},
    refusals::{CHECKED, ENGINE, JOB, JSON, KEY, Refusals, STORE},
    submission::{Submitted, submit as submit_job},
    wait::{self, Wait},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::{
        bounds::MAX_LIMIT,
        ids::JobId,
        job::Job,
        page::Position,
        request::{Defaults, JobRequest},
    },
    store::{EraseTarget, Idempotency, Lookup},
};

/// A job body names files and structures; it contains no files.
const MAX_JOB_BODY: usize = 1024 * 1024;

/// Larger bodies are parsed on a blocking thread.
const SLOW_BYTES: usize = 64 * 1024;

const LINES: &str = "application/x-ndjson";

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Submits a job to the Engine.
#[utoipa::path(
    operation_id = "submitJob",
    post, path = "/v1/jobs", tag = "jobs",
    description = "The body is the Engine's job body; unknown fields are passed on untouched. \
        `finishWebhook` is kept as the job's relay target and replaced by this service's own \
        callback address. `finishline.reference` is a label of your own, never sent. With an \
        `Idempotency-Key`, the same body never makes two jobs. The body may be packed with gzip. Without the scope `read`, the \
        answer is the job in short. Scope: `submit`.",
    params(SubmitHeaders),
    request_body(content = schema::JobRequest, example = json!(api::example_job_body())),
    responses(
        (status = 201, body = api::JobView, description = "The Engine took it", headers(
            ("Location" = String, description = "The job's address"),
            ("Preference-Applied" = String, description = "`wait=SECONDS`, where it was waited"),
        )),
        (status = 200, body = api::JobView, description = "The job that this `Idempotency-Key` stands for", headers(
            ("Idempotency-Replayed" = bool, description = "`true`: no job was made"),
            ("Preference-Applied" = String, description = "`wait=SECONDS`, where it was waited"),
        )),
        Refusals<{
            KEY | JSON | ENGINE | STORE | Code::Gone.bit() | Code::IdempotencyInFlight.bit()
                | Code::IdempotencyMismatch.bit() | Code::PublicUrlUnknown.bit()
        }>,
    ),
    security(("key" = [])),
)]
pub async fn submit(
    MaySubmit(caller): MaySubmit,
    State(context): State<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    expect_json(&headers)?;
    let key = idempotency_key::read(&headers)?;
    let wait = wait::preferred(&headers);
    // Before the job goes to the Engine: a caller that is refused may retry.
    let _place = wait.map(|_| context.limits.places.take(&caller.name)).transpose()?;
    let body = read_unpacked(&context.limits.of_callers(), &headers, body, MAX_JOB_BODY).await?;
    let request = read_request(&context, body).await?;
    let idempotency = key.map(|key| once(&caller.name, &key, &request));
    let submitted = submit_job(context.clone(), request, idempotency).await;
    let mut response = match submitted.map_err(|problem| caller.view_problem(problem))? {
        Submitted::Now(job) => {
            let location = AppendHeaders([(LOCATION, format!("/v1/jobs/{}", job.id))]);
            let job = caller.view(awaited(&context, &caller, *job, wait).await?);
            (StatusCode::CREATED, location, Json(job)).into_response()
        }
        Submitted::Replay(job) => {
            let replayed = AppendHeaders([(IDEMPOTENCY_REPLAYED, "true")]);
            let job = caller.view(awaited(&context, &caller, *job, wait).await?);
            (replayed, Json(job)).into_response()
        }
    };
    if let Some(wait) = wait {
        let applied = format!("wait={}", wait.as_secs());
        let applied = HeaderValue::try_from(applied).expect("digits are a header value");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// Parses a body; a large one on a blocking thread, a few of them at a time.
async fn read_request(context: &Context, body: Bytes) -> Result<JobRequest, Problem> {
    let defaults = defaults(context);
    if body.len() <= SLOW_BYTES {
        return Ok(JobRequest::parse(&body, &defaults)?);
    }
    let _place = context.limits.reading().await;
    let read = tokio::task::spawn_blocking(move || JobRequest::parse(&body, &defaults));
    Ok(read.await.map_err(|_| Problem::Internal)??)
}

/// The job after the wait that its submitter asked for. If the session ends meanwhile, returns the
/// job as it was submitted, because its id must not be lost.
async fn awaited(
    context: &Context,
    caller: &Caller,
    job: Job,
    wait: Option<Duration>,
) -> Result<Job, Problem> {
    let Some(wait) = wait else { return Ok(job) };
    match wait::until_finished(context, caller, job.id, wait).await {
        Err(Problem::Unauthorized) => Ok(job),
        finished => finished,
    }
}

/// The values that the settings provide for fields missing in a body.
pub(super) fn defaults(context: &Context) -> Defaults {
    Defaults {
        cloud_package: context.config.engine.default_cloud_package.clone(),
        end_user_id: context.config.engine.default_end_user_id.clone(),
    }
}

/// The record by which an idempotency key ensures that this request makes one job.
pub(super) fn once(api_key: &str, key: &str, request: &JobRequest) -> Idempotency {
    Idempotency {
        api_key: api_key.to_owned(),
        key_sha256: Sha256::digest(key).into(),
        fingerprint: request.fingerprint,
    }
}

/// Lists jobs, newest first.
#[utoipa::path(
    operation_id = "listJobs",
    get, path = "/v1/jobs", tag = "jobs",
    description = "Page by page; a page of large jobs has fewer than `limit`. With \
        `Accept: application/x-ndjson`, all matches as a stream of lines, each a `Job`, which breaks \
        off when the session it was asked for in ends. Scope: `read`.",
    params(ListQuery),
    responses(
        (status = 200, description = "A page, or all matches", content(
            (api::Jobs = "application/json"),
            (String = "application/x-ndjson"),
        )),
        Refusals<{ KEY | CHECKED | STORE }>,
    ),
    security(("key" = [])),
)]
pub async fn list(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    mut query: ListQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if query.filter.stale_callback.is_some() {
        // Without a public URL, no callback address leads here.
        query.filter.public_url = context.public_url.current().await.unwrap_or_default();
    }
    if prefers(&headers, LINES, "application/json") {
        let place = context.limits.places.take(&caller.name)?;
        return Ok(place.until_sent(lines(&context, caller, query)));
    }
    let after = match &query.cursor {
        Some(cursor) => Some(Position::from_cursor(cursor, &query.filter)?),
        None => None,
    };
    let page = context.store.jobs(&query.filter, after, query.limit).await?;
    let next_cursor = page.next.map(|position| position.to_cursor(&query.filter));
    let jobs = page.jobs.into_iter().map(|job| caller.view_whole(job));
    let jobs = jobs.collect::<Result<_, _>>()?;
    Ok(Json(api::Jobs { jobs, next_cursor }).into_response())
}

/// All matches, one page at a time as the reader takes them. The stream breaks off when the
/// caller's session ends, so that a partial list is not mistaken for the whole.
fn lines(context: &Context, caller: Caller, query: ListQuery) -> Response {
    let over = Box::pin(caller.over(context));
    let caller = Arc::new(caller);
    let context = context.clone();
    let pages = stream::try_unfold((Some(None), over), move |(next, mut over)| {
        let (context, caller) = (context.clone(), caller.clone());
        let filter = query.filter.clone();
        async move {
            let Some(after) = next else { return Ok(None) };
            let page = tokio::select! {
                biased;
                () = &mut over => return Err("the session is over".into()),
                page = context.store.jobs(&filter, after, MAX_LIMIT) => page?,
            };
            let mut lines = Vec::new();
            for job in page.jobs {
                serde_json::to_writer(&mut lines, &caller.view(job)).expect("a job is JSON");
                lines.push(b'\n');
            }
            let lines = context.limits.answers.wait_to_hold(lines.into()).await;
            Ok::<_, BoxError>(Some((lines, (page.next.map(Some), over))))
        }
    });
    let kind = HeaderValue::from_static(LINES);
    ([(CONTENT_TYPE, kind)], Body::from_stream(pages)).into_response()
}

/// Shows a job.
#[utoipa::path(
    operation_id = "showJob",
    get, path = "/v1/jobs/{id}", tag = "jobs",
    description = "With `wait`, as soon as it finishes or the time is up. Scope: `read`.",
    params(JobPath, Wait),
    responses(
        (status = 200, body = api::Job, description = "The job as it is now"),
        Refusals<{ KEY | JOB | CHECKED }>,
    ),
    security(("key" = [])),
)]
pub async fn show(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
    Wait(wait): Wait,
) -> Result<Json<api::Job>, Problem> {
    let job = wait::finished(&context, &caller, id, wait).await?;
    Ok(Json(caller.view_whole(job)?))
}

/// Erases a job and all that was received for it.
#[utoipa::path(
    operation_id = "eraseJob",
    delete, path = "/v1/jobs/{id}", tag = "jobs",
    description = "Answers once its bytes are in no file of the service any more; a tombstone \
        keeps its late callbacks out. A running job may be erased. `503`: some may be left, for \
        one because a backup reads the log; the service goes on, and so does repeating the call. \
        Scope: `erase`.",
    params(JobPath),
    responses(
        (status = 200, body = api::Erased, description = "Their bytes are gone"),
        Refusals<{ KEY | JOB | Code::FileStoreUnavailable.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn erase(
    _: MayErase,
    State(context): State<Context>,
    JobPath(id): JobPath,
) -> Result<Json<api::Erased>, Problem> {
    Ok(Json(api::Erased { erased: erase_job(&context, id).await? }))
}

/// Erases one job and returns how many were erased.
pub(super) async fn erase_job(context: &Context, id: JobId) -> Result<u64, Problem> {
    erase_target(context, EraseTarget::Job(id)).await
}

/// Erases all jobs of an end user.
#[utoipa::path(
    operation_id = "eraseJobsOfEndUser",
    delete, path = "/v1/jobs", tag = "jobs", description = "Scope: `erase`.",
    params(EndUserQuery),
    responses(
        (status = 200, body = api::Erased, description = "Their bytes are gone"),
        Refusals<{ KEY | CHECKED | STORE | Code::FileStoreUnavailable.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn erase_many(
    _: MayErase,
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Result<Json<api::Erased>, Problem> {
    let query = query.unwrap_or_default();
    let given: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let [(name, end_user_id)] = given.as_slice() else {
        return Err(Problem::invalid("/endUserId", "name the one end user whose jobs to erase"));
    };
    if name != "endUserId" || end_user_id.is_empty() {
        return Err(Problem::invalid("/endUserId", "name the one end user whose jobs to erase"));
    }
    let target = EraseTarget::EndUser(end_user_id.clone().into_owned());
    Ok(Json(api::Erased { erased: erase_target(&context, target).await? }))
}

async fn erase_target(context: &Context, target: EraseTarget) -> Result<u64, Problem> {
    let eraser = context.eraser.clone();
    // An erasure in progress continues if its caller hangs up.
    let erasure = context.tasks.spawn(async move { eraser.erase(target).await });
    let erased = found(erasure.await.map_err(|_| Problem::Internal)??)?;
    tracing::info!(jobs = erased, "jobs erased");
    Ok(erased)
}

/// The value that was found, or the problem that says why it is missing.
pub(super) fn found<T>(lookup: Lookup<T>) -> Result<T, Problem> {
    match lookup {
        Lookup::Found(found) => Ok(found),
        Lookup::Erased => Err(Problem::Gone),
        Lookup::Missing => Err(Problem::NotFound),
    }
}
