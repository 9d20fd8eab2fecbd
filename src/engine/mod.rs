//! The Relu Engine, as its caller sees it.
//!
//! Called by the HTTP layer. Errors are named after what the caller can do about them. The
//! invariant: a submission that may have been taken is never sent a second time.

mod token;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::value::RawValue;
use url::Url;

use self::token::Tokens;
use crate::{
    clock::{self, Clock},
    config::EngineConfig,
    outbound::{self, Outbound},
};

/// A reply to a submission holds some links; more than this is not one.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Pauses between the attempts of one submission: short at first, since most faults are.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a busy Engine is given when it names no time itself, between attempts of one call.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// A job the Engine took.
#[derive(Debug)]
pub struct Accepted {
    pub engine_status: u16,
    /// The body of the reply; a JSON string if it is no JSON; `None` if it is empty.
    pub response: Option<Box<RawValue>>,
    pub engine_job_id: Option<String>,
    /// Per input: name, upload address, notify address.
    pub uploads: Vec<(String, Option<String>, Option<String>)>,
}

/// Why a submission was not answered with 2xx.
#[derive(Debug)]
pub enum SubmitError {
    /// The Engine refused the job; sending it again is no use.
    Rejected { engine_status: u16, response: Option<Box<RawValue>> },
    /// No token, or one that the Engine does not accept. Not taken.
    Auth { engine_status: Option<u16> },
    /// The Engine asks to come back later. Not taken.
    Busy { engine_status: u16, retry_after: Option<Duration> },
    /// The Engine could not be reached. Not taken.
    Unreachable { engine_status: Option<u16>, cause: &'static str },
    /// It failed, or the connection was lost: the job may be running.
    Lost { engine_status: Option<u16>, cause: &'static str },
    /// No answer in time: the job may be running.
    TimedOut,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    config: EngineConfig,
    outbound: Outbound,
    tokens: Tokens,
    clock: Clock,
}

impl Engine {
    pub fn new(config: EngineConfig, outbound: Outbound, clock: Clock) -> Self {
        let tokens = Tokens::new(config.auth.clone(), outbound.clone(), clock.clone());
        Self { config, outbound, tokens, clock }
    }

    /// Fetches a token for real, without using it; answers how long it would be good, or why there
    /// is none. Each fetch counts against the tenant's quota.
    pub async fn prove_token(&self) -> Result<Duration, &'static str> {
        self.tokens.prove().await
    }

    /// Posts a job body. Repeats only what was certainly not taken, within the retry budget.
    pub async fn submit(&self, body: Vec<u8>) -> Result<Accepted, SubmitError> {
        let body = Bytes::from(body);
        let deadline = clock::add(self.clock.now(), self.config.retry_budget);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.submit_once(&body).await {
                Ok(accepted) => return Ok(accepted),
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

    /// One submission; an unaccepted token is renewed once.
    async fn submit_once(&self, body: &Bytes) -> Result<Accepted, SubmitError> {
        let no_token = |_| SubmitError::Auth { engine_status: None };
        let token = self.tokens.bearer().await.map_err(no_token)?;
        let mut response = self.post_job(body, token.as_deref()).await?;
        if is_auth(response.status()) && token.is_some() {
            let token = self.tokens.renew(token).await.map_err(no_token)?;
            response = self.post_job(body, token.as_deref()).await?;
        }
        self.read_answer(response).await
    }

    async fn post_job(&self, body: &Bytes, token: Option<&str>) -> Result<Response, SubmitError> {
        let request = self.request(Method::POST, self.config.job_url(), token);
        let request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        request.send().await.map_err(|error| {
            let cause = outbound::describe(&error);
            // A connection that never stood carried nothing; its time-out says so too.
            match (error.is_connect(), error.is_timeout()) {
                (true, _) => SubmitError::Unreachable { engine_status: None, cause },
                (false, true) => SubmitError::TimedOut,
                (false, false) => SubmitError::Lost { engine_status: None, cause },
            }
        })
    }

    fn request(&self, method: Method, url: Url, token: Option<&str>) -> reqwest::RequestBuilder {
        let request = self.outbound.configured().request(method, url).timeout(self.config.timeout);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn read_answer(&self, response: Response) -> Result<Accepted, SubmitError> {
        let status = response.status();
        let engine_status = status.as_u16();
        let retry_after = retry_after(&response, &self.clock);
        match status {
            _ if status.is_success() => {}
            _ if is_auth(status) => {
                return Err(SubmitError::Auth { engine_status: Some(engine_status) });
            }
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(SubmitError::Busy { engine_status, retry_after });
            }
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
                return Err(SubmitError::Busy { engine_status, retry_after });
            }
            _ if status.is_redirection() => {
                let cause = "it answered with a redirect";
                return Err(SubmitError::Unreachable { engine_status: Some(engine_status), cause });
            }
            _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                let body = outbound::read_capped(response, MAX_REPLY_BYTES).await;
                let response = wire::response(&body.unwrap_or_default());
                return Err(SubmitError::Rejected { engine_status, response });
            }
            _ => {
                let cause = "it answered with an error";
                return Err(SubmitError::Lost { engine_status: Some(engine_status), cause });
            }
        }
        match outbound::read_capped(response, MAX_REPLY_BYTES).await {
            Ok(body) => Ok(wire::accepted(engine_status, &body, &self.config.job_id_pointers)),
            // Taken, as the 2xx says; what it says beside that is of no use to us.
            Err(outbound::ReadError::TooLarge) => {
                Ok(wire::accepted(engine_status, b"", &self.config.job_id_pointers))
            }
            Err(outbound::ReadError::TimedOut) => Err(SubmitError::TimedOut),
            Err(outbound::ReadError::Lost) => Err(SubmitError::Lost {
                engine_status: Some(engine_status),
                cause: "its answer broke off",
            }),
        }
    }
}

impl SubmitError {
    /// How long to wait before the same submission may be sent again; `None` if it may not.
    fn repeat_after(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(retry_after.unwrap_or(BUSY_PAUSE).max(pause)),
            // A redirect will stand there again.
            Self::Unreachable { engine_status: None, .. } => Some(pause),
            _ => None,
        }
    }
}

fn is_auth(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// `Retry-After` in either of its forms (RFC 9110, section 10.2.3).
fn retry_after(response: &Response, clock: &Clock) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let wait = date.duration_since(clock.now());
    Some(Duration::try_from(wait).unwrap_or_default())
}
