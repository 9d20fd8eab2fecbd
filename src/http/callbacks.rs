//! Receiving: `POST /callbacks/{job}/{signature}` and `POST /inbox/{secret}`.
//!
//! Called by the Engine, and by anyone who found the address. Invariants: a forged address is
//! refused before a byte is read or a row is touched; the 2xx is sent only after the body is on
//! disk; a sender that hangs up cancels nothing.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::{
    Context,
    address_places::AddressPlace,
    error::Problem,
    extract::{BodyError, Segments, read_body},
    failures::{Attempt, Failure},
    gzip,
    parameters::{CallbackPath, InboxPath},
    probe,
    refusals::{CALLBACK, Refusals, STORE},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::{
        callback_address::Standing,
        delivery::{Outcome, SPOOLED},
        header::Redaction,
        ids::{DeliveryId, JobId},
        json,
        result::{self, Reading},
        signature,
        signing_keys::KeyNumber,
    },
    store::{Addressee, Arrival, Lookup, Receipt, StoreError, intake::Taken},
    telemetry,
};

/// The routes, as they appear in the log.
const CALLBACKS: &str = "/callbacks/{job}/{signature}";
const INBOX: &str = "/inbox/{secret}";

/// How long the address check may take before the body is read anyway.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// Larger bodies are unpacked, digested and parsed on a blocking thread.
const SLOW_BYTES: usize = 256 * 1024;

/// Takes in the callback of the job that the address proves.
#[utoipa::path(
    operation_id = "receiveCallback",
    post, path = "/callbacks/{job}/{signature}", tag = "callbacks",
    description = "Receives the Engine's finish webhook. The 2xx is sent only after the body is on \
        disk. Any `Content-Type`, with or without `Content-Length`; gzip is unpacked.",
    params(CallbackPath),
    request_body(content = schema::EngineResult, description = "The Engine's job result"),
    responses(
        (status = 200, body = api::Received, description = "On disk: in the database, or `spooled` until it takes writes again"),
        Refusals<{ CALLBACK }>,
    ),
)]
pub async fn receive(
    State(context): State<Context>,
    address: Result<Segments<(String, String)>, Problem>,
    ConnectInfo(sender): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let address = proven(&context, address, sender)?;
    refuse_at_once(&context, &address).await?;
    let place = context.limits.address(address.id).await?;
    let limit = context.config.callbacks.max_body;
    let job = (address.id != signature::PROBE_ID).then_some(address.id);
    let body = match read_body(&context.limits, &headers, body, limit).await {
        Ok(body) if job.is_none() => {
            return Ok(probe::answer(&context.store.signing_key(), &body));
        }
        Ok(body) => body,
        Err(error) => return Err(refused(&context, job, error).await),
    };
    let addressed = Addressed { address: Some(address), place: Some(place), sender, headers };
    keep(context, addressed, body).await
}

/// Answers those who look before they send; changes nothing.
#[utoipa::path(
    operation_id = "probeCallback",
    get, path = "/callbacks/{job}/{signature}", tag = "callbacks",
    params(CallbackPath),
    responses(
        (status = 204, description = "A callback address of ours"),
        Refusals<{ STORE | Code::NotFound.bit() | Code::Gone.bit() }>,
    ),
)]
pub async fn probe(
    State(context): State<Context>,
    address: Result<Segments<(String, String)>, Problem>,
    ConnectInfo(sender): ConnectInfo<SocketAddr>,
) -> Result<StatusCode, Problem> {
    let address = proven(&context, address, sender)?;
    if address.id != signature::PROBE_ID {
        // While the database refuses, callbacks are accepted anyway.
        standing(&context, &address).await.unwrap_or(Ok(()))?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes in the result of a job that was submitted elsewhere.
#[utoipa::path(
    operation_id = "receiveInInbox",
    post, path = "/inbox/{secret}", tag = "callbacks",
    description = "Off until `callbacks.inbox_secret` is set. The job is made on arrival and found \
        again by the Engine's id in the body.",
    params(InboxPath),
    request_body(content = schema::EngineResult, description = "The Engine's job result"),
    responses(
        (status = 200, body = api::Received, description = "On disk"),
        Refusals<{ CALLBACK }>,
    ),
)]
pub async fn receive_in_inbox(
    State(context): State<Context>,
    given: Result<Segments<String>, Problem>,
    ConnectInfo(sender): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let secret = context.config.callbacks.inbox_secret.as_ref().ok_or(Problem::NotFound)?;
    // Compare digests: they have one length, so timing does not reveal the secret's.
    let is_known =
        |given: &str| bool::from(Sha256::digest(secret.expose()).ct_eq(&Sha256::digest(given)));
    if !given.is_ok_and(|Segments(given)| is_known(&given)) {
        return Err(unknown(&context, Failure::WrongInboxSecret, sender));
    }
    let limit = context.config.callbacks.max_body;
    let body = match read_body(&context.limits, &headers, body, limit).await {
        Ok(body) => body,
        Err(error) => return Err(refused(&context, None, error).await),
    };
    keep(context, Addressed { address: None, place: None, sender, headers }, body).await
}

/// The addressee of a body, and where the body came from.
struct Addressed {
    /// `None`: the inbox.
    address: Option<Address>,
    place: Option<AddressPlace>,
    sender: SocketAddr,
    headers: HeaderMap,
}

/// A callback address that one of our keys signed.
#[derive(Clone, Copy)]
struct Address {
    id: JobId,
    signer: KeyNumber,
}

/// The verified address. A forgery is logged and counted, and costs nothing else. The doctor's
/// probe is valid only with the current key.
fn proven(
    context: &Context,
    address: Result<Segments<(String, String)>, Problem>,
    sender: SocketAddr,
) -> Result<Address, Problem> {
    let keys = context.store.signing_keys();
    let genuine = address.ok().and_then(|Segments((job, given))| {
        let id: JobId = job.parse().ok()?;
        let signer = keys.signer(id, &given)?;
        let is_ours = id != signature::PROBE_ID || signer == keys.current.number;
        is_ours.then_some(Address { id, signer })
    });
    genuine.ok_or_else(|| unknown(context, Failure::ForgedCallback, sender))
}

/// Refuses a callback to an invalid address before a byte of the body is read. While the database
/// refuses, the arrival is judged when it is recorded. Readers that keep the database busy must not
/// keep a callback out, so the check has a time limit, except for addresses signed by a replaced
/// key.
async fn refuse_at_once(context: &Context, address: &Address) -> Result<(), Problem> {
    if address.id == signature::PROBE_ID {
        return Ok(());
    }
    let standing = standing(context, address);
    if address.signer != context.store.signing_keys().current.number {
        return standing.await.unwrap_or(Ok(()));
    }
    match timeout(LOOK_PATIENCE, standing).await {
        Ok(Ok(standing)) => standing,
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// Returns whether a callback to this address is accepted.
async fn standing(context: &Context, address: &Address) -> Result<Result<(), Problem>, StoreError> {
    let current = context.store.signing_keys().current.number;
    let standing = match context.store.callback_address(address.id).await? {
        Lookup::Found(record) => record.standing(address.signer, current, context.clock.now()),
        Lookup::Erased => return Ok(Err(Problem::Gone)),
        Lookup::Missing if address.signer == current => Standing::Valid,
        Lookup::Missing => Standing::NotOurs,
    };
    Ok(match standing {
        Standing::Valid => Ok(()),
        Standing::Ended => Err(Problem::AddressEnded),
        Standing::NotOurs => Err(Problem::NotFound),
    })
}

/// The answer to an address that is not ours; logs and counts the failure.
fn unknown(context: &Context, failure: Failure, sender: SocketAddr) -> Problem {
    let route = match failure {
        Failure::WrongInboxSecret => INBOX,
        _ => CALLBACKS,
    };
    let attempt = Attempt { failure, peer: sender.ip().into(), route };
    context.failures.of_address(attempt, context.clock.now());
    Problem::NotFound
}

/// Records the body in a task of the service, which finishes even if the sender hangs up.
async fn keep(
    context: Context,
    mut addressed: Addressed,
    body: Bytes,
) -> Result<Response, Problem> {
    let tasks = context.tasks.clone();
    let kept = tasks.spawn(async move {
        let limit = context.config.callbacks.max_body;
        let job = addressed.address.map(|address| address.id);
        let (_place, addressed) = (addressed.place.take(), addressed);
        let arrival = match read_arrival(&context, addressed, body).await {
            Ok(arrival) => arrival,
            Err(error) => return Err(refused(&context, job, error).await),
        };
        debug_assert!(arrival.body.len() <= limit);
        // Twice, because the spool's intake has a copy of what was parsed. A small body may expand
        // when parsed.
        let _room = match context.limits.bodies.room(arrival.reading.held_bytes() * 2) {
            Ok(room) => room,
            Err(full) => return Err(refused(&context, job, full.into()).await),
        };
        let reading = match &arrival.reading {
            Reading::Malformed(reason) => Some(reason.clone()),
            _ => None,
        };
        let _turn = match arrival.body.len() {
            SLOW_BYTES.. => context.limits.recording(arrival.body.len()).await,
            _ => None,
        };
        match context.intake.receive(arrival).await? {
            Taken::Stored(receipt) => answer(receipt, reading),
            Taken::Spooled => {
                count(SPOOLED);
                acknowledge(SPOOLED, reading)
            }
        }
    });
    kept.await.unwrap_or(Err(Problem::Internal))
}

fn answer(receipt: Receipt, malformed: Option<String>) -> Result<Response, Problem> {
    let (job_id, outcome) = match receipt {
        Receipt::Kept { job_id, outcome } => (job_id, outcome),
        Receipt::Erased => {
            count("gone");
            return Err(Problem::Gone);
        }
        Receipt::Ended => {
            count("ended");
            return Err(Problem::AddressEnded);
        }
        Receipt::Unproven => {
            count("unproven");
            return Err(Problem::NotFound);
        }
    };
    count(outcome.as_str());
    match outcome {
        Outcome::Stored => tracing::info!(job.id = %job_id, "result stored"),
        Outcome::Duplicate | Outcome::Refreshed => {
            tracing::info!(job.id = %job_id, outcome = outcome.as_str(), "callback came again");
        }
        Outcome::Conflict | Outcome::Unrecognised | Outcome::Malformed => {
            tracing::warn!(job.id = %job_id, outcome = outcome.as_str(), "callback needs a look");
        }
    }
    acknowledge(outcome.as_str(), malformed)
}

fn acknowledge(outcome: &str, malformed: Option<String>) -> Result<Response, Problem> {
    match malformed {
        Some(reason) => Err(Problem::MalformedJson(reason)),
        None => Ok(Json(api::Received { outcome: outcome.into() }).into_response()),
    }
}

/// Unpacks, digests and parses a body.
async fn read_arrival(
    context: &Context,
    addressed: Addressed,
    body: Bytes,
) -> Result<Arrival, BodyError> {
    let limit = context.config.callbacks.max_body;
    let id_pointers = context.config.engine.job_id_pointers.clone();
    let received_at = context.clock.now();
    // A body announced as gzip that is not gzip is read as it is. If it were recorded as malformed,
    // its repeats would count as duplicates of that.
    let is_gzip = gzip::is_packed(&addressed.headers, &body);
    let is_slow = is_gzip || body.len() > SLOW_BYTES;
    let unpacked = context.limits.bodies.body(limit);
    let headers = kept_headers(&addressed.headers, &redaction(context, addressed.address));
    let read = move || {
        let (body, broken) =
            match is_gzip.then(|| gzip::unpack(&body, unpacked, limit)).transpose()? {
                None => (body, None),
                Some(Ok(unpacked)) => (unpacked, None),
                Some(Err(reason)) => (body, Some(reason)),
            };
        let sha256: [u8; 32] = Sha256::digest(&body).into();
        let reading = match broken {
            Some(reason) => Reading::Malformed(reason),
            None => result::read(&body, &id_pointers),
        };
        let (addressee, engine_job_id) = match addressed.address {
            Some(address) => (Addressee::Job(address.id), None),
            None => {
                let id = engine_job_id(&body, &id_pointers);
                (Addressee::of_inbox(id.as_deref(), &sha256), id)
            }
        };
        let arrival = Arrival {
            delivery_id: DeliveryId::new(received_at),
            addressee,
            signer: addressed.address.map(|address| address.signer),
            received_at,
            source: addressed.sender.to_string(),
            headers,
            body,
            sha256,
            reading,
        };
        Ok::<_, BodyError>((arrival, engine_job_id))
    };
    let (mut arrival, engine_job_id) = if is_slow {
        let _place = context.limits.reading().await;
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
            std::panic::resume_unwind(error.into_panic());
        })?
    } else {
        read()?
    };
    if let Some(engine_job_id) = engine_job_id {
        // While the database refuses, the job is looked up when the spool is drained.
        let ours = context.store.job_of_engine(&engine_job_id).await.unwrap_or(None);
        arrival.addressee = ours.map_or(arrival.addressee, Addressee::Job);
    }
    Ok(arrival)
}

fn engine_job_id(body: &[u8], id_pointers: &[String]) -> Option<String> {
    result::engine_job_id(json::parse(body).ok()?, id_pointers)
}

/// Redacts headers: removes the secrets that would give access to the service.
fn redaction(context: &Context, address: Option<Address>) -> Redaction {
    let keys = context.store.signing_keys();
    let signatures = address.map(|address| keys.signatures(address.id)).unwrap_or_default();
    let inbox_secret = context.config.callbacks.inbox_secret.as_ref();
    Redaction::of(
        signatures.into_iter().chain(inbox_secret.map(|secret| secret.expose().to_owned())),
    )
}

fn kept_headers(headers: &HeaderMap, redaction: &Redaction) -> Vec<(String, String)> {
    let kept = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.as_str().to_owned(), redaction.kept(name.as_str(), &value))
    };
    headers.iter().map(kept).collect()
}

/// The answer to a body that was not accepted.
async fn refused(context: &Context, job: Option<JobId>, error: BodyError) -> Problem {
    let limit = context.config.callbacks.max_body;
    count(match error {
        BodyError::TooLarge => "oversize",
        BodyError::Lost => "lost",
        BodyError::TooSlow => "slow",
        BodyError::NoRoom => "overloaded",
    });
    if error != BodyError::TooLarge {
        return error.into_problem(limit);
    }
    if let Some(id) = job {
        tracing::warn!(job.id = %id, limit, "callback is larger than callbacks.max_body");
        match context.store.record_oversize(id, limit, context.clock.now()).await {
            Ok(Lookup::Erased) => return Problem::Gone,
            Ok(Lookup::Found(Standing::Ended)) => return Problem::AddressEnded,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
    Problem::PayloadTooLarge(limit)
}

fn count(outcome: &'static str) {
    telemetry::CALLBACKS.of([outcome.into()]).increment(1);
}
