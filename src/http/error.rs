//! Every error that our API answers with: RFC 9457 problems from one closed list.
//!
//! Returned by handlers, rendered only here. Invariant: a problem holds nothing internal, no
//! secret, no callback signature and no signed link.

use std::time::Duration;

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;

use crate::{
    api::{self, ProblemCode},
    config::Scope,
    domain::{
        ids::{JobId, NotAnId},
        job::JobStatus,
        page::BadCursor,
        request::{Refusal, Violation},
        storage::StorageRefusal,
        upload::NoUpload,
    },
    engine::EngineError,
    erasure::EraseError,
    outbound::Refused,
    store::StoreError,
};

/// `Retry-After`, in seconds, when this service is busy.
const BUSY_SECONDS: u64 = 1;

/// `Retry-After`, in seconds, when the Engine is busy and named no time.
const ENGINE_BUSY_SECONDS: u64 = 30;

/// One variant per code of the contract.
#[derive(Debug)]
pub enum Problem {
    /// The body is not JSON.
    MalformedJson(String),
    /// No API key, or not one of ours.
    Unauthorized,
    /// Too many wrong API keys came from the caller's address.
    TooManyFailures { retry_after: Duration },
    /// Without keys configured, a request that another site may have sent.
    ForbiddenOrigin(&'static str),
    /// The key lacks a scope.
    ForbiddenScope(Scope),
    /// Nothing exists at this address.
    NotFound,
    /// No file is available, with the reason.
    NoFile(String),
    /// The address does not support this method, with advice.
    MethodNotAllowed(&'static str),
    /// The body or the head did not arrive in time.
    RequestTimeout,
    /// The job has no input of that name.
    UnknownInput,
    /// There is nothing to upload, with the reason.
    InputProvided(&'static str),
    /// The input's link has expired, with the storage's answer if it was asked.
    LinkExpired(Option<StorageRefusal>),
    /// The first submission with this idempotency key is still in progress.
    IdempotencyInFlight,
    /// The job cannot be looked up: the Engine's id for it is not known.
    NoEngineId,
    /// The job was erased.
    Gone,
    /// The callback address is no longer valid.
    AddressEnded,
    /// The body is larger than this limit in bytes.
    PayloadTooLarge(usize),
    /// No byte of the range is in the file, whose length this is.
    RangeNotSatisfiable(u64),
    /// The body's media type is not supported, with advice.
    UnsupportedMediaType(&'static str),
    /// The body or the query holds invalid values.
    ValidationFailed(Vec<Violation>),
    /// The idempotency key was used with another body.
    IdempotencyMismatch,
    /// The request's head is too large.
    HeadersTooLarge,
    /// The Engine refused the job.
    EngineRejected { job_id: JobId, engine_status: Option<u16>, engine_body: Option<Box<RawValue>> },
    /// The Engine does not accept our token, or there is none.
    EngineAuth { job_id: JobId, engine_status: Option<u16>, detail: String },
    /// The Engine cannot be reached, or failed.
    EngineUnavailable { job_id: JobId, engine_status: Option<u16>, detail: String },
    /// The Engine did not answer in time.
    EngineTimeout { job_id: JobId, detail: String },
    /// The Engine, or its token endpoint, asks to come back later.
    EngineBusy {
        job_id: JobId,
        engine_status: Option<u16>,
        retry_after: Option<Duration>,
        detail: String,
    },
    /// The Engine has answered, but the database refuses to record its answer.
    AnswerNotRecorded { job_id: JobId, fate: JobStatus },
    /// An address from the Engine is not one that this service follows.
    UrlRefused(String),
    /// The input is not at the Engine's storage, with the storage's answer if there was one.
    UploadFailed { detail: String, storage: Option<StorageRefusal> },
    /// The input is at the storage, but the Engine was not notified.
    NotifyFailed { engine_status: Option<u16>, detail: String },
    /// No address is known on which the Engine could call back.
    PublicUrlUnknown(String),
    /// The service is at one of its limits.
    Overloaded,
    /// The database refuses.
    StorageUnavailable,
    /// The store of copies refuses.
    FileStoreUnavailable,
    /// A bug in this service; the log has it under the request id.
    Internal,
}

impl Problem {
    /// A violation of one query parameter or field.
    pub fn invalid(pointer: impl Into<String>, detail: impl ToString) -> Self {
        let violation = Violation::new(pointer, detail.to_string());
        Self::ValidationFailed(vec![violation])
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.listed().as_str()
    }

    /// The code's row in the contract's table.
    fn listed(&self) -> ProblemCode {
        use ProblemCode as C;
        match self {
            Self::MalformedJson(_) => C::MalformedJson,
            Self::Unauthorized => C::Unauthorized,
            Self::TooManyFailures { .. } => C::TooManyFailures,
            Self::ForbiddenOrigin(_) => C::ForbiddenOrigin,
            Self::ForbiddenScope(_) => C::ForbiddenScope,
            Self::NotFound | Self::NoFile(_) => C::NotFound,
            Self::MethodNotAllowed(_) => C::MethodNotAllowed,
            Self::RequestTimeout => C::RequestTimeout,
            Self::UnknownInput => C::UnknownInput,
            Self::InputProvided(_) => C::InputProvided,
            Self::LinkExpired(_) => C::LinkExpired,
            Self::IdempotencyInFlight => C::IdempotencyInFlight,
            Self::NoEngineId => C::NoEngineId,
            Self::Gone | Self::AddressEnded => C::Gone,
            Self::PayloadTooLarge(_) => C::PayloadTooLarge,
            Self::RangeNotSatisfiable(_) => C::RangeNotSatisfiable,
            Self::UnsupportedMediaType(_) => C::UnsupportedMediaType,
            Self::ValidationFailed(_) => C::ValidationFailed,
            Self::IdempotencyMismatch => C::IdempotencyMismatch,
            Self::HeadersTooLarge => C::HeadersTooLarge,
            Self::EngineRejected { .. } => C::EngineRejected,
            Self::EngineAuth { .. } => C::EngineAuth,
            Self::EngineUnavailable { .. } => C::EngineUnavailable,
            Self::EngineTimeout { .. } => C::EngineTimeout,
            Self::EngineBusy { .. } => C::EngineBusy,
            Self::UrlRefused(_) => C::UrlRefused,
            Self::UploadFailed { .. } => C::UploadFailed,
            Self::NotifyFailed { .. } => C::NotifyFailed,
            Self::PublicUrlUnknown(_) => C::PublicUrlUnknown,
            Self::Overloaded => C::Overloaded,
            Self::StorageUnavailable | Self::AnswerNotRecorded { .. } => C::StorageUnavailable,
            Self::FileStoreUnavailable => C::FileStoreUnavailable,
            Self::Internal => C::Internal,
        }
    }

    /// The problem's title, for people.
    pub(super) fn title(&self) -> &'static str {
        self.listed().title()
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.listed().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What to do about the problem, for people.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::MalformedJson(reason) => format!("expected one JSON text: {reason}"),
            Self::Unauthorized => {
                "send one of the service's keys: Authorization: Bearer KEY".into()
            }
            Self::TooManyFailures { .. } => {
                "they came from your address; a right key is let in at any time".into()
            }
            Self::ForbiddenOrigin(reason) => (*reason).into(),
            Self::ForbiddenScope(scope) => format!("it needs the scope {}", scope.as_str()),
            Self::NotFound => "check the address and the id".into(),
            Self::NoFile(reason) => reason.clone(),
            Self::MethodNotAllowed(advice) | Self::UnsupportedMediaType(advice) => (*advice).into(),
            Self::RequestTimeout => {
                "its head or body did not come in time; the connection is closed".into()
            }
            Self::UnknownInput => "see `inputs` of the job for their names".into(),
            Self::InputProvided(reason) => (*reason).into(),
            Self::LinkExpired(said) => format!(
                "the Engine's storage no longer takes the file ({}); only a new job brings a new \
                 link",
                said.as_ref()
                    .map_or_else(|| "its link is past its time".into(), ToString::to_string)
            ),
            Self::UrlRefused(reason) => format!(
                "{reason}; outbound.allow_private and outbound.allow_http in the settings say \
                 which are followed"
            ),
            Self::UploadFailed { detail, .. } => detail.clone(),
            Self::NotifyFailed { detail, .. } => {
                format!("{detail}; the input stays uploaded: POST to its notify address here")
            }
            Self::IdempotencyInFlight => "ask again in a moment, with the same key".into(),
            Self::NoEngineId => "without it only the job's callback brings the result".into(),
            Self::Gone => "the job and everything received for it were erased".into(),
            Self::AddressEnded => "the job finished more than 7 days ago; nothing is kept".into(),
            Self::PayloadTooLarge(limit) => format!("the limit is {limit} bytes"),
            Self::RangeNotSatisfiable(bytes) => format!("the file has {bytes} bytes"),
            Self::ValidationFailed(violations) => match violations.as_slice() {
                [one] if one.pointer.is_empty() => one.detail.clone(),
                [one] => format!("{}: {}", one.pointer, one.detail),
                _ => format!("{} things are wrong; see errors", violations.len()),
            },
            Self::IdempotencyMismatch => {
                "an Idempotency-Key stands for one body; use another key for another job".into()
            }
            Self::HeadersTooLarge => {
                "the limits are 16 KiB for the address and all headers, and 100 headers".into()
            }
            Self::EngineRejected { .. } => {
                "it will be refused again as it is; engineBody says what the Engine said".into()
            }
            Self::EngineAuth { detail, .. }
            | Self::EngineUnavailable { detail, .. }
            | Self::EngineTimeout { detail, .. }
            | Self::EngineBusy { detail, .. } => detail.clone(),
            Self::AnswerNotRecorded { fate, .. } => {
                let outlook = fate.outlook().unwrap_or_default();
                format!("the Engine has answered, and its answer is not on record; {outlook}")
            }
            Self::PublicUrlUnknown(reason) => format!("nothing was stored or sent: {reason}"),
            Self::Overloaded | Self::StorageUnavailable | Self::FileStoreUnavailable => {
                "ask again in a moment".into()
            }
            Self::Internal => "the log has it under the x-request-id of this answer".into(),
        }
    }

    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures { retry_after } => {
                // Rounded up: a caller that comes too early is refused again.
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
            }
            Self::EngineBusy { retry_after, .. } => {
                Some(retry_after.map_or(ENGINE_BUSY_SECONDS, whole_seconds))
            }
            Self::Overloaded
            | Self::StorageUnavailable
            | Self::FileStoreUnavailable
            | Self::IdempotencyInFlight => Some(BUSY_SECONDS),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, title) = (self.status(), self.code(), self.title());
        let detail = self.detail();
        let retry_after = self.retry_after_seconds();
        let further = match self {
            Self::Unauthorized => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::RangeNotSatisfiable(bytes) => {
                let range = HeaderValue::try_from(format!("bytes */{bytes}"));
                range.ok().map(|range| (CONTENT_RANGE, range))
            }
            _ => None,
        };
        let storage = match &self {
            Self::LinkExpired(storage) | Self::UploadFailed { storage, .. } => storage.clone(),
            _ => None,
        };
        let (job_id, engine_status, engine_body, errors) = match self {
            Self::EngineRejected { job_id, engine_status, engine_body } => {
                (Some(job_id), engine_status, engine_body, Vec::new())
            }
            Self::EngineAuth { job_id, engine_status, .. }
            | Self::EngineUnavailable { job_id, engine_status, .. }
            | Self::EngineBusy { job_id, engine_status, .. } => {
                (Some(job_id), engine_status, None, Vec::new())
            }
            Self::EngineTimeout { job_id, .. } | Self::AnswerNotRecorded { job_id, .. } => {
                (Some(job_id), None, None, Vec::new())
            }
            Self::NotifyFailed { engine_status, .. } => (None, engine_status, None, Vec::new()),
            Self::ValidationFailed(violations) => (None, None, None, violations),
            _ => (None, None, None, Vec::new()),
        };
        let body = api::Problem {
            kind: format!("urn:finishline:problem:{code}"),
            title: title.into(),
            status: status.as_u16(),
            detail,
            code: code.into(),
            errors: errors
                .into_iter()
                .map(|one| api::FieldError { pointer: one.pointer, detail: one.detail })
                .collect(),
            job_id: job_id.map(|id| id.to_string()),
            engine_status,
            engine_body,
            storage_status: storage.as_ref().map(|said| said.status),
            storage_code: storage.as_ref().and_then(|said| said.code.clone()),
            storage_message: storage.and_then(|said| said.message),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.extend(further);
        response
    }
}

/// Rounded up: a caller that comes a moment too early is refused again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

impl Problem {
    /// Maps an Engine failure to a problem, by the contract's table. `detail` states the
    /// consequence.
    pub(super) fn of_engine(job_id: JobId, error: &EngineError, detail: String) -> Self {
        let engine_status = error.engine_status();
        match error {
            EngineError::Rejected { response, .. } => {
                Self::EngineRejected { job_id, engine_status, engine_body: response.clone() }
            }
            EngineError::Busy { retry_after, .. } => {
                let retry_after = *retry_after;
                Self::EngineBusy { job_id, engine_status, retry_after, detail }
            }
            EngineError::NoToken(fault) if fault.is_busy() => {
                let retry_after = fault.retry_after();
                Self::EngineBusy { job_id, engine_status, retry_after, detail }
            }
            EngineError::Auth { .. } | EngineError::NoToken(_) => {
                Self::EngineAuth { job_id, engine_status, detail }
            }
            EngineError::Unreachable(_)
            | EngineError::Redirected { .. }
            | EngineError::Lost { .. } => Self::EngineUnavailable { job_id, engine_status, detail },
            EngineError::TimedOut => Self::EngineTimeout { job_id, detail },
        }
    }

    /// Maps an Engine failure during a look-up to a problem.
    pub(super) fn of_look_up(job_id: JobId, error: &EngineError) -> Self {
        Self::of_engine(job_id, error, error.of_look_up())
    }
}

impl From<NoUpload> for Problem {
    fn from(reason: NoUpload) -> Self {
        match reason {
            NoUpload::Unknown => Self::UnknownInput,
            NoUpload::Provided => Self::InputProvided(
                "the job names a downloadUrl for it, from which the Engine fetches it",
            ),
            NoUpload::Notified => Self::InputProvided(
                "it is uploaded and the Engine has been told: other bytes need a new job",
            ),
            NoUpload::NoAddress(status) => Self::invalid(
                "",
                format!("the job is {status}, and the Engine has given no address for the input"),
            ),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => Self::Overloaded,
            StoreError::Unavailable(reason) => {
                tracing::error!(reason, "the database refuses");
                Self::StorageUnavailable
            }
        }
    }
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Store(error) => error.into(),
            EraseError::Files(_) | EraseError::NoFileStore => {
                tracing::error!(%error, "copies of erased jobs are not deleted yet");
                Self::FileStoreUnavailable
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(reason) => Self::MalformedJson(reason),
            Refusal::Invalid(violations) => Self::ValidationFailed(violations),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::UrlRefused(refused.to_string())
    }
}

impl From<BadCursor> for Problem {
    fn from(error: BadCursor) -> Self {
        Self::invalid("/cursor", error)
    }
}

impl From<NotAnId> for Problem {
    fn from(_: NotAnId) -> Self {
        Self::NotFound
    }
}
