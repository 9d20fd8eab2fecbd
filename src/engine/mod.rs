//! The client of the Relu Engine.
//!
//! Called by the HTTP layer. Errors are named after what the caller can do about them. Invariant: a
//! submission that may have been accepted is never sent a second time.

mod error;
mod files;
mod poll;
mod token;
mod wire;

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use self::token::Tokens;
pub use self::{
    error::EngineError,
    files::{FileHead, NotifyError, UploadError},
    poll::Polled,
    token::TokenFault,
};
use crate::{
    clock::{self, Clock},
    config::{EngineConfig, LeastRate},
    domain::{bounds::MAX_REPLY_BYTES, pace::Pace, result::LeftOut},
    outbound::{self, Outbound, Trouble},
};

/// At most this many looked-up results larger than [`SMALL_RESULT_BYTES`] are in memory at a time,
/// until they are stored.
const LARGE_RESULTS: usize = 2;
const SMALL_RESULT_BYTES: u64 = 256 * 1024;

/// Pauses between the attempts of one call: short at first, because most faults are short.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A job that the Engine accepted.
#[derive(Debug)]
pub struct Accepted {
    pub engine_status: u16,
    /// The body of the reply; as a JSON string if it is not JSON; `None` if it is empty.
    pub response: Option<Box<RawValue>>,
    pub engine_job_id: Option<String>,
    pub uploads: Vec<InputLinks>,
    /// Entries of the reply that exceed a bound and are not among the uploads.
    pub left_out: LeftOut,
    /// The reply has more than [`MAX_REPLY_BYTES`] and was not read.
    pub is_too_large: bool,
}

/// An input by name: its upload address, its notify address.
pub type InputLinks = (String, Option<String>, Option<String>);

/// A looked-up result that keeps its semaphore permit until its last owner drops it.
struct Placed {
    body: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Placed {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The client of the Engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    config: EngineConfig,
    outbound: Outbound,
    tokens: Tokens,
    clock: Clock,
    /// The limit of a result; the same as for a callback.
    max_result_bytes: usize,
    large_results: Arc<Semaphore>,
    /// The slowest accepted rate of a storage that receives an upload.
    pace: Pace,
}

impl Engine {
    /// `max_result_bytes` is the limit of a looked-up result.
    pub fn new(
        config: EngineConfig,
        outbound: Outbound,
        clock: Clock,
        max_result_bytes: usize,
    ) -> Self {
        let tokens = Tokens::new(config.auth.clone(), outbound.clone(), clock.clone());
        let large_results = Arc::new(Semaphore::new(LARGE_RESULTS));
        let least = LeastRate::default();
        let pace = Pace::new(least.bytes_per_second, least.patience);
        Self { config, outbound, tokens, clock, max_result_bytes, large_results, pace }
    }

    /// The same, with another minimum rate for storages that receive an upload.
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Fetches a token without using it; returns how long it would be valid. Each fetch counts
    /// against the tenant's quota.
    ///
    /// # Errors
    /// [`TokenFault`]: the reason why there is no token.
    pub async fn prove_token(&self) -> Result<Duration, TokenFault> {
        self.tokens.prove().await
    }

    /// Submits a job. Repeats the call only if it was certainly not taken, within the retry budget.
    ///
    /// # Errors
    /// [`EngineError`]; its [`EngineError::fate`] says whether the job may be submitted again.
    pub async fn submit(&self, body: Vec<u8>) -> Result<Accepted, EngineError> {
        let body = Bytes::from(body);
        self.within_budget(|| self.submit_once(&body)).await
    }

    /// Repeats a call while it was certainly not taken and the retry budget allows it.
    async fn within_budget<T, F>(&self, call: impl Fn() -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let deadline = clock::add(self.clock.now(), self.config.retry_budget);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match call().await {
                Ok(taken) => return Ok(taken),
                Err(error) => error,
            };
            let Some(wait) = error.repeat_after(pause) else { return Err(error) };
            if clock::add(self.clock.now(), wait) > deadline {
                return Err(error);
            }
            self.clock.sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn submit_once(&self, body: &Bytes) -> Result<Accepted, EngineError> {
        let has_begun = Arc::new(AtomicBool::new(false));
        let response = self.authorized(|token| {
            has_begun.store(false, Ordering::Release);
            self.request(Method::POST, self.config.job_url(), token)
                .header(CONTENT_TYPE, "application/json")
                .header(CONTENT_LENGTH, body.len())
                .body(noting(body.clone(), has_begun.clone()))
        });
        match response.await {
            Ok(response) => self.read_answer(response).await,
            Err(error) if has_begun.load(Ordering::Acquire) => Err(error),
            Err(error) => Err(error.before_the_first_byte(self.config.timeout)),
        }
    }

    /// Asks for a job's result, once.
    ///
    /// # Errors
    /// [`EngineError`]. Nothing was changed; the caller may ask again later.
    pub async fn fetch_result(&self, engine_job_id: &str) -> Result<Polled, EngineError> {
        let url = self.config.result_url(engine_job_id);
        let response =
            self.authorized(|token| self.request(Method::GET, url.clone(), token)).await?;
        if poll::is_running_status(response.status(), self.config.running) {
            return Ok(Polled::Running);
        }
        let response = self.expect_success(response).await?;
        let engine_status = Some(response.status().as_u16());
        let is_small = response.content_length().is_some_and(|bytes| bytes <= SMALL_RESULT_BYTES);
        let place = match is_small {
            true => None,
            false => self.large_results.clone().acquire_owned().await.ok(),
        };
        let body = outbound::read_capped(response, self.max_result_bytes).await;
        let body = body.map_err(|error| match error {
            outbound::ReadError::TimedOut => EngineError::TimedOut,
            outbound::ReadError::TooLarge => {
                EngineError::Lost { engine_status, cause: "its answer is too large" }
            }
            outbound::ReadError::Lost => {
                EngineError::Lost { engine_status, cause: "its answer broke off" }
            }
        })?;
        let body = Bytes::from_owner(Placed { body, _place: place });
        Ok(poll::read(body, self.config.running))
    }

    /// Sends a request with a token; a token that is not accepted is renewed once.
    async fn authorized(
        &self,
        request: impl Fn(Option<&str>) -> RequestBuilder,
    ) -> Result<Response, EngineError> {
        let token = self.tokens.bearer().await.map_err(EngineError::NoToken)?;
        let response = self.send(request(token.as_deref())).await?;
        if !is_auth(response.status()) || token.is_none() {
            return Ok(response);
        }
        let token = self.tokens.renew(token).await.map_err(EngineError::NoToken)?;
        self.send(request(token.as_deref())).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        request.send().await.map_err(|error| self.fault_of(&error))
    }

    /// Nothing was sent on a connection that was never established, even if it timed out.
    fn fault_of(&self, error: &reqwest::Error) -> EngineError {
        let trouble = || Trouble::of(error, &self.outbound, self.config.timeout);
        match (error.is_connect() || error.is_builder(), error.is_timeout()) {
            (true, _) => EngineError::Unreachable(trouble()),
            (false, true) => EngineError::TimedOut,
            (false, false) => {
                EngineError::Lost { engine_status: None, cause: outbound::describe(error) }
            }
        }
    }

    fn request(&self, method: Method, url: Url, token: Option<&str>) -> RequestBuilder {
        let request = self.outbound.configured().request(method, url).timeout(self.config.timeout);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn read_answer(&self, response: Response) -> Result<Accepted, EngineError> {
        let response = self.expect_success(response).await?;
        let engine_status = response.status().as_u16();
        match outbound::read_capped(response, MAX_REPLY_BYTES).await {
            Ok(body) => Ok(wire::accepted(engine_status, &body, &self.config.job_id_pointers)),
            // Accepted, as the 2xx says; the rest of the reply is not needed.
            Err(outbound::ReadError::TooLarge) => {
                let accepted = wire::accepted(engine_status, b"", &self.config.job_id_pointers);
                Ok(Accepted { is_too_large: true, ..accepted })
            }
            Err(outbound::ReadError::TimedOut) => Err(EngineError::TimedOut),
            Err(outbound::ReadError::Lost) => Err(EngineError::Lost {
                engine_status: Some(engine_status),
                cause: "its answer broke off",
            }),
        }
    }

    /// The response if it is a 2xx, else the error for its status.
    async fn expect_success(&self, response: Response) -> Result<Response, EngineError> {
        let status = response.status();
        let engine_status = status.as_u16();
        let retry_after = retry_after(&response, &self.clock);
        match status {
            _ if status.is_success() => Ok(response),
            _ if is_auth(status) => Err(EngineError::Auth { engine_status }),
            StatusCode::TOO_MANY_REQUESTS => Err(EngineError::Busy { engine_status, retry_after }),
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
                Err(EngineError::Busy { engine_status, retry_after })
            }
            _ if status.is_redirection() => Err(EngineError::Redirected { engine_status }),
            _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                let body = outbound::read_capped(response, MAX_REPLY_BYTES).await;
                let response = wire::response(&body.unwrap_or_default());
                Err(EngineError::Rejected { engine_status, response })
            }
            _ => {
                let cause = "it answered with an error";
                Err(EngineError::Lost { engine_status: Some(engine_status), cause })
            }
        }
    }
}

/// The body of a submission that notes when its first byte is requested: by then the connection is
/// established and the head is being sent.
fn noting(body: Bytes, has_begun: Arc<AtomicBool>) -> Body {
    Body::wrap_stream(stream::once(async move {
        has_begun.store(true, Ordering::Release);
        Ok::<Bytes, Infallible>(body)
    }))
}

impl EngineError {
    /// The same failure for a request of which nothing was sent: certainly not taken.
    fn before_the_first_byte(self, limit: Duration) -> Self {
        match self {
            Self::TimedOut => Self::Unreachable(Trouble::Slow(limit)),
            Self::Lost { engine_status: None, .. } => Self::Unreachable(Trouble::Lost),
            other => other,
        }
    }
}

fn is_auth(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn retry_after(response: &Response, clock: &Clock) -> Option<Duration> {
    clock::retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?, clock.now())
}
