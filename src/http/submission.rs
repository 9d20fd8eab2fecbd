//! One submission from the caller's body to the Engine's answer.
//!
//! Called by `jobs::submit`. Invariants: the job is recorded before it is sent to the Engine; a
//! submission that has begun is completed even if the caller hangs up; a callback address never
//! appears in an answer.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Context, error::Problem, jobs::found};
use crate::{
    domain::{
        bounds::MAX_REPLY_BYTES,
        ids::JobId,
        job::{Job, JobStatus},
        request::{JobRequest, Violation, engine_body_of_stored},
        signature,
    },
    engine::{Accepted, EngineError},
    store::{Begun, BegunAgain, EngineAnswer, Idempotency, Lookup, NewSubmission, StoreError},
    telemetry,
};

/// The Engine's answer must be recorded: until then nobody knows what the job costs. These are the
/// pause between attempts, and their number (about a minute in all).
const RECORD_PAUSE: Duration = Duration::from_millis(500);
const RECORD_ATTEMPTS: u32 = 120;

/// The successful outcomes of a submission.
#[derive(Debug)]
pub(super) enum Submitted {
    /// The Engine took it in this call.
    Now(Box<Job>),
    /// The idempotency key's job, in its current state.
    Replay(Box<Job>),
}

/// Submits a job. `idempotency` is the digest of the caller's key.
pub(super) async fn submit(
    context: Context,
    request: JobRequest,
    idempotency: Option<Idempotency>,
) -> Result<Submitted, Problem> {
    check_relay_target(&context, &request)?;
    let place = context.limits.submission(request.held_bytes())?;
    let tasks = context.tasks.clone();
    let submitted = tasks.spawn(async move {
        let _until_recorded = place;
        let outcome = record_and_send(&context, request, idempotency).await;
        let answer = match &outcome {
            Ok(Submitted::Now(_)) => "submitted",
            Ok(Submitted::Replay(_)) => "replayed",
            Err(problem) => problem.code(),
        };
        telemetry::SUBMISSIONS.of([answer.into()]).increment(1);
        outcome
    });
    submitted.await.unwrap_or(Err(Problem::Internal))
}

/// Sends a job again, on a person's order.
pub(super) async fn resubmit(
    context: Context,
    id: JobId,
    is_confirmed: bool,
) -> Result<Submitted, Problem> {
    let place = context.limits.resubmission()?;
    let tasks = context.tasks.clone();
    let submitted = tasks.spawn(async move {
        let _until_recorded = place;
        let callback_base = public_url(&context).await?;
        let begun = context.store.begin_resubmission(id, is_confirmed, &callback_base).await?;
        match found(begun)? {
            BegunAgain::Again(job) => send_stored(&context, job, &callback_base).await,
            BegunAgain::InFlight => Err(Problem::IdempotencyInFlight),
            BegunAgain::NeedsConfirmation => Err(Problem::invalid(
                "/confirm",
                "the Engine may be running this job, and would run and bill it twice: send \
                 {\"confirm\": true} if it shall be sent again all the same",
            )),
            BegunAgain::NotNeeded(status) => Err(Problem::invalid(
                "",
                format!("the job is {status}: there is nothing to send again"),
            )),
        }
    });
    submitted.await.unwrap_or(Err(Problem::Internal))
}

/// Checks that relays may be sent to the caller's own webhook.
fn check_relay_target(context: &Context, request: &JobRequest) -> Result<(), Problem> {
    let Some(url) = &request.finish_webhook else { return Ok(()) };
    let refuse = |detail: String| {
        let pointer = "/finishWebhook".to_owned();
        Err(Problem::ValidationFailed(vec![Violation { pointer, detail }]))
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let is_allowed =
        context.config.relay.allowed_hosts.iter().any(|allowed| {
            allowed == "*" || allowed == host || *allowed == format!("{host}:{port}")
        });
    if !is_allowed {
        return refuse("its host is not among relay.allowed_hosts of this service".into());
    }
    match context.outbound.check(url) {
        Ok(()) => Ok(()),
        Err(refused) => refuse(refused.to_string()),
    }
}

async fn record_and_send(
    context: &Context,
    mut request: JobRequest,
    idempotency: Option<Idempotency>,
) -> Result<Submitted, Problem> {
    let callback_base = public_url(context).await?;
    let now = context.clock.now();
    let id = JobId::new(now);
    let address = CallbackAddress::of(context, &callback_base, id);
    // The only large value held while the Engine is called.
    let engine_body = request.engine_body(&address.url);
    let begun = context.store.begin_submission(NewSubmission {
        id,
        now,
        request: request.take_stored_body(),
        reference: request.reference,
        end_user_id: request.end_user_id,
        cloud_package: request.cloud_package,
        external_job_id: request.external_job_id,
        inputs: request.inputs,
        outputs: request.outputs,
        warnings: request.warnings,
        callback_base: callback_base.clone(),
        relay_url: request.finish_webhook.as_ref().map(ToString::to_string),
        idempotency,
    });
    match begun.await? {
        Begun::New(job) => {
            drop(job);
            send(context, id, engine_body, &address).await
        }
        Begun::Again(job) => send_stored(context, job, &callback_base).await,
        Begun::Replay(job) if job.status == JobStatus::Rejected => Err(Problem::EngineRejected {
            job_id: job.id,
            engine_status: job.engine_status,
            engine_body: job.engine_response,
        }),
        Begun::Replay(job) => Ok(Submitted::Replay(job)),
        Begun::InFlight => Err(Problem::IdempotencyInFlight),
        Begun::Mismatch => Err(Problem::IdempotencyMismatch),
        Begun::Erased(_) => Err(Problem::Gone),
    }
}

async fn public_url(context: &Context) -> Result<String, Problem> {
    let known = context.public_url.current().await;
    known.map_err(|unknown| Problem::PublicUrlUnknown(unknown.to_string()))
}

async fn send_stored(
    context: &Context,
    job: Box<Job>,
    callback_base: &str,
) -> Result<Submitted, Problem> {
    let id = job.id;
    let address = CallbackAddress::of(context, callback_base, id);
    let stored = job.request.as_deref().ok_or(Problem::Internal)?;
    let engine_body = engine_body_of_stored(stored, &address.url);
    drop(job);
    send(context, id, engine_body, &address).await
}

/// The address on which the Engine calls back for one job.
struct CallbackAddress {
    url: String,
    /// The signature in this address, and those that replaced keys made for the same job.
    signatures: Vec<String>,
}

impl CallbackAddress {
    fn of(context: &Context, callback_base: &str, id: JobId) -> Self {
        let keys = context.store.signing_keys();
        let signature = signature::sign(&keys.current.bytes, id);
        let url = format!("{callback_base}/callbacks/{id}/{signature}");
        Self { url, signatures: keys.signatures(id) }
    }

    /// Redacts the address in an Engine's answer, which may echo it: a reader could forge the
    /// callback.
    fn hide_in(&self, body: Option<Box<RawValue>>) -> Option<Box<RawValue>> {
        let body = body?;
        if !self.signatures.iter().any(|signature| body.get().contains(signature)) {
            return Some(body);
        }
        let text = body.get().to_owned();
        let hidden = self.signatures.iter().fold(text, |text, one| text.replace(one, "[redacted]"));
        Some(RawValue::from_string(hidden).expect("plain text within a string keeps it JSON"))
    }
}

async fn send(
    context: &Context,
    id: JobId,
    body: Vec<u8>,
    address: &CallbackAddress,
) -> Result<Submitted, Problem> {
    let (answer, refusal) = match context.engine.submit(body).await {
        Ok(accepted) => (accepted_answer(accepted, address), None),
        Err(error) => {
            let (answer, problem) = refused_answer(id, &error, address);
            (answer, Some((problem, error)))
        }
    };
    // The caller may be asked to retry only if the Engine certainly did not take the job.
    let fate = refusal.as_ref().map_or(JobStatus::Unconfirmed, |(_, error)| error.fate());
    let job = match record(context, id, answer).await {
        Ok(Lookup::Found(job)) => Box::new(job),
        Ok(Lookup::Erased) => return Err(Problem::Gone),
        Ok(Lookup::Missing) => return Err(Problem::Internal),
        Err(error) if fate == JobStatus::Unsent => return Err(error.into()),
        Err(_) => return Err(Problem::AnswerNotRecorded { job_id: id, fate }),
    };
    match refusal {
        // A callback came before the answer, so the Engine has taken the job.
        _ if job.status.is_finished() => {
            tracing::info!(job.id = %id, "the job finished before the Engine answered");
            Ok(Submitted::Now(job))
        }
        Some((problem, error)) => {
            tracing::warn!(job.id = %id, code = problem.code(), "{}", error.of_submission());
            Err(problem)
        }
        None => {
            tracing::info!(job.id = %id, "job submitted");
            Ok(Submitted::Now(job))
        }
    }
}

/// Records the answer, retrying for about a minute while the database refuses.
async fn record(
    context: &Context,
    id: JobId,
    answer: EngineAnswer,
) -> Result<Lookup<Job>, StoreError> {
    let mut attempt = 1;
    loop {
        let recorded = context.store.record_answer(id, answer.clone(), context.clock.now()).await;
        match recorded {
            Ok(found) => return Ok(found),
            Err(error) if attempt == RECORD_ATTEMPTS => {
                tracing::error!(job.id = %id, %error, "the Engine's answer is not on record");
                return Err(error);
            }
            Err(_) => context.clock.sleep(RECORD_PAUSE).await,
        }
        attempt += 1;
    }
}

fn accepted_answer(accepted: Accepted, address: &CallbackAddress) -> EngineAnswer {
    let mut warnings = Vec::new();
    if accepted.engine_job_id.is_none() {
        warnings.push(
            "The Engine's reply holds no job id that engine.job_id_pointers leads to; the job \
             cannot be looked up there, only its callback brings the result."
                .to_owned(),
        );
    }
    warnings.extend(accepted.left_out.warning("the Engine's reply"));
    if accepted.is_too_large {
        warnings.push(format!(
            "The Engine's reply has more than {MAX_REPLY_BYTES} bytes: it was neither read nor \
             kept."
        ));
    }
    EngineAnswer::Accepted {
        engine_status: accepted.engine_status,
        response: address.hide_in(accepted.response),
        engine_job_id: accepted.engine_job_id,
        uploads: accepted.uploads,
        warnings,
    }
}

/// The record and the answer for a failure, according to the contract's table.
fn refused_answer(
    job_id: JobId,
    error: &EngineError,
    address: &CallbackAddress,
) -> (EngineAnswer, Problem) {
    let detail = error.of_submission();
    let problem = Problem::of_engine(job_id, error, detail.clone());
    let (engine_status, reason) = (error.engine_status(), problem.code());
    match (error, problem) {
        (EngineError::Rejected { engine_status, response }, _) => {
            let (engine_status, response) = (*engine_status, address.hide_in(response.clone()));
            let answer = EngineAnswer::Rejected { engine_status, response: response.clone() };
            let engine_status = Some(engine_status);
            (answer, Problem::EngineRejected { job_id, engine_status, engine_body: response })
        }
        (_, problem) if error.fate() == JobStatus::Unsent => {
            (EngineAnswer::Unsent { engine_status, reason, detail }, problem)
        }
        (_, problem) => (EngineAnswer::Unconfirmed { engine_status, reason, detail }, problem),
    }
}
