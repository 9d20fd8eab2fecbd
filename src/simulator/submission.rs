//! `POST /{version}/job` (`/generic-job` on v2 and older): accepts a job, or fails as the options
//! say.
//!
//! Called by the router. Invariant: a job is in the log before a byte of its reply is sent, and a
//! refused one never is.

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::connection::{Connection, Ending, paced_body};
use super::job::{AcceptedJob, JobState, Order};
use super::link::StoredFile;
use super::{NotifyPlace, Options, Refusal, Simulator};

/// Far larger than any real job body.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

pub(super) async fn submit(
    State(simulator): State<Simulator>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    Path((version, route)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    check_route(&version, &route)?;
    simulator.change(|state| state.requests.submissions += 1);
    if simulator.strikes(|options| &mut options.close_before_accept) {
        return Ok(connection.sever());
    }
    simulator.authorize(request.headers())?;
    let options = simulator.options();
    if !options.answer_after_accept {
        refuse(&simulator, &options).await?;
    }
    let job = accept(&simulator, version, request).await?;
    if simulator.strikes(|options| &mut options.callback_before_reply) {
        simulator.finish_and_wait(&job.engine_job_id).await;
    }
    simulator.start_if_ready(&job.engine_job_id);
    if options.answer_after_accept {
        refuse(&simulator, &options).await?;
    }
    sleep(options.reply_delay).await;
    if simulator.strikes(|options| &mut options.lose_reply) {
        return Ok(connection.sever());
    }
    Ok(reply(&simulator, &job, &options))
}

/// On `v2` and older only `generic-job` is valid, on later versions only `job`.
pub(super) fn check_route(version: &str, route: &str) -> Result<(), Refusal> {
    match route == route_of(version) {
        true => Ok(()),
        false => Err(Refusal::not_found("route in this version")),
    }
}

pub(super) fn route_of(version: &str) -> &'static str {
    let number = version.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(0..=2) => "generic-job",
        _ => "job",
    }
}

/// The faults `hang`, `answer` and `redirect_to`.
async fn refuse(simulator: &Simulator, options: &Options) -> Result<(), Refusal> {
    if simulator.strikes(|options| &mut options.hang) {
        std::future::pending::<()>().await;
    }
    let redirect = options.redirect_to.as_ref().map(|_| StatusCode::TEMPORARY_REDIRECT.as_u16());
    let Some(status) = options.answer.or(redirect) else {
        return Ok(());
    };
    if !simulator.strikes(|options| &mut options.answer_rate) {
        return Ok(());
    }
    let mut refusal = Refusal::by_option(status);
    let retry_after = options.retry_after.map(|seconds| seconds.to_string());
    refusal.add_header(header::RETRY_AFTER, retry_after);
    refusal.add_header(header::LOCATION, options.redirect_to.clone());
    Err(refusal)
}

async fn accept(
    simulator: &Simulator,
    version: String,
    request: Request,
) -> Result<AcceptedJob, Refusal> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let order =
        Order::read(&body).map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))?;
    let job = AcceptedJob {
        engine_job_id: Uuid::now_v7().to_string(),
        version,
        body,
        origin: origin(&parts.headers).unwrap_or_else(|| simulator.origin()),
        headers: parts.headers,
        callback_url: order.callback_url,
        accepted_at: Timestamp::now(),
        state: JobState::Waiting,
        inputs: order.inputs,
        outputs: order.outputs,
        notified: 0,
        polls: 0,
        success: None,
        result: None,
        error: None,
        finished_at: None,
        output_size: 0,
    };
    simulator.change(|state| {
        state.write_log(job.log_line());
        state.job_positions.insert(job.engine_job_id.clone(), state.jobs.len());
        state.jobs.push(job.clone());
    });
    Ok(job)
}

/// The origin by which the caller reached us, so that links also work from another container.
fn origin(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let origin = format!("http://{host}");
    url::Url::parse(&origin).is_ok().then_some(origin)
}

fn reply(simulator: &Simulator, job: &AcceptedJob, options: &Options) -> Response {
    let status = StatusCode::from_u16(options.reply_status).unwrap_or(StatusCode::OK);
    if options.reply_without_json {
        return (status, "job accepted").into_response();
    }
    let body = Bytes::from(reply_body(simulator, job, options).to_string());
    if !simulator.strikes(|options| &mut options.half_reply) {
        return (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, body.len().to_string()),
    ];
    let half: Body = paced_body(std::iter::once(body.slice(..body.len() / 2)), 0, Ending::Broken);
    (status, headers, half).into_response()
}

fn reply_body(simulator: &Simulator, job: &AcceptedJob, options: &Options) -> Value {
    let mut reply = Map::new();
    if let Some(name) = options.id_field.name() {
        reply.insert(name.into(), json!(job.engine_job_id));
    }
    let mut files = Map::new();
    for input in job.inputs.iter().filter(|input| input.download_url.is_none()) {
        let upload_url = simulator.link(job, StoredFile::Input(&input.name), options.link_life);
        let mut file = json!({"extension": input.extension, "uploadUrl": upload_url});
        if options.notify_place == NotifyPlace::PerFile {
            file["notifyUrl"] = json!(job.notify_url(Some(&input.name)));
        }
        files.insert(input.name.clone(), file);
    }
    if options.notify_place == NotifyPlace::TopLevel && !files.is_empty() {
        reply.insert("notifyUrl".into(), json!(job.notify_url(None)));
    }
    reply.insert("inputFiles".into(), Value::Object(files));
    Value::Object(reply)
}
