//! A typed client of our own API, for the command line and the tests.
//!
//! It talks HTTP only and knows nothing of the service's inside. The invariant: what the service
//! answers is either what was asked for or a [`ClientError`] that says what to do.

mod files;
mod follow;
mod sse;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

pub use self::{
    files::{Download, DownloadError, Partial, Source, Wanted},
    follow::{EventStream, Followed},
};
use crate::api;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take: a wait of 60 s, or a submission with all its tries at the Engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// Shorter than the shortest customary keep-alive of servers: a request on a connection that the
/// other side is just closing is lost.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The code of a link that the service does not follow or give: no later try changes that.
const URL_REFUSED: &str = "url-refused";

/// Why there is no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a problem.
    #[error("{} ({}): {}", .0.title, .0.code, .0.detail)]
    Problem(Box<api::Problem>),
    /// The service cannot be reached.
    #[error("{0} does not answer")]
    Unreachable(Url),
    /// The connection stood, and ended without an answer: what was asked for may have been done.
    #[error("{0} broke off without an answer")]
    Lost(Url),
    /// Something answers, but not this service.
    #[error("{0} does not answer as a finishline does")]
    Foreign(Url),
}

impl ClientError {
    /// Whether the same request may well be answered a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.status >= 500 && problem.code != URL_REFUSED,
            Self::Unreachable(_) | Self::Lost(_) | Self::Foreign(_) => true,
        }
    }

    /// Whether the service does not let the caller in.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Problem(problem) if matches!(problem.status, 401 | 403 | 429))
    }
}

/// What the service answered, as it came and as it reads.
#[derive(Debug)]
pub struct Answer<T> {
    pub status: u16,
    pub json: Bytes,
    pub value: T,
}

impl<T> Answer<T> {
    /// The same answer, read as something else.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { status: self.status, json: self.json, value: read(self.value) }
    }
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// `base` is the API's address, such as `http://127.0.0.1:8086`.
    pub fn new(base: Url, key: Option<String>) -> Result<Self, reqwest::Error> {
        // Whoever comes first installs it; the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        Ok(Self { http, base, key })
    }

    /// Where the service is asked.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Submits a job body.
    pub async fn submit(
        &self,
        body: impl Into<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<api::JobView, ClientError> {
        Ok(self.submit_in_full(body, idempotency_key).await?.value)
    }

    /// As [`Self::submit`]; the status is 200 if the job was on record already.
    pub async fn submit_in_full(
        &self,
        body: impl Into<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<Answer<api::JobView>, ClientError> {
        let request = self.request(Method::POST, "/v1/jobs");
        let mut request = request.header("content-type", "application/json").body(body.into());
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.answer(request).await
    }

    pub async fn job(&self, id: &str) -> Result<api::Job, ClientError> {
        Ok(self.get(&format!("/v1/jobs/{id}"), &[]).await?.value)
    }

    /// The job once it has finished, or as it stands after `patience` (at most 60 s).
    pub async fn wait(&self, id: &str, patience: Duration) -> Result<api::Job, ClientError> {
        let seconds = patience.as_secs().to_string();
        Ok(self.get(&format!("/v1/jobs/{id}"), &[("wait", seconds)]).await?.value)
    }

    pub async fn events(&self, id: &str) -> Result<api::Events, ClientError> {
        Ok(self.get(&format!("/v1/jobs/{id}/events"), &[]).await?.value)
    }

    /// The exact bytes of a job's result; `None` while there is none.
    pub async fn result(&self, id: &str) -> Result<Option<Bytes>, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}/result"));
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(None);
        }
        response.bytes().await.map(Some).map_err(|_| ClientError::Unreachable(self.base.clone()))
    }

    /// Asks for what stands at a path.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    /// Gives an order.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl Serialize,
    ) -> Result<Answer<T>, ClientError> {
        self.answer(self.request(Method::POST, path).json(order)).await
    }

    /// Erases what stands at a path.
    pub async fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        self.answer(self.request(Method::DELETE, path).query(query)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let no_answer = |error: reqwest::Error| match error.is_connect() {
            true => ClientError::Unreachable(self.base.clone()),
            false => ClientError::Lost(self.base.clone()),
        };
        let response = request.send().await.map_err(no_answer)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response).await),
        }
    }

    /// What an answer means that is not what was asked for.
    async fn refusal(&self, response: Response) -> ClientError {
        let Ok(body) = response.bytes().await else {
            return ClientError::Unreachable(self.base.clone());
        };
        match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Foreign(self.base.clone()),
        }
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Answer<T>, ClientError> {
        self.read(self.send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<Answer<T>, ClientError> {
        let status = response.status().as_u16();
        let json = response.bytes().await;
        let json = json.map_err(|_| ClientError::Unreachable(self.base.clone()))?;
        let value = serde_json::from_slice(&json);
        let value = value.map_err(|_| ClientError::Foreign(self.base.clone()))?;
        Ok(Answer { status, json, value })
    }
}
