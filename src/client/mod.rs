//! A typed client of our own API, for the command line and the tests.
//!
//! It speaks HTTP only and knows nothing of the service's internals. Every answer is either what
//! was requested or a [`ClientError`] that says what to do.

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

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for an answer: long enough for a wait of 60 s, or for a submission with all its tries
/// at the Engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// Shorter than the shortest usual keep-alive of servers: a request is lost if the server is just
/// closing the connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The code of a link that the service does not follow or give out; a retry does not help.
const URL_REFUSED: &str = "url-refused";

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a problem.
    #[error("{} ({}): {}", .0.title, .0.code, .0.detail)]
    Problem(Box<api::Problem>),
    /// The service cannot be reached.
    #[error("{0} does not answer")]
    Unreachable(Url),
    /// The connection was open and ended without an answer: the request may have been carried out.
    #[error("{0} broke off without an answer")]
    Lost(Url),
    /// Something answers, but not this service.
    #[error("{0} does not answer as a finishline does")]
    Foreign(Url),
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.status >= 500 && problem.code != URL_REFUSED,
            Self::Unreachable(_) | Self::Lost(_) | Self::Foreign(_) => true,
        }
    }

    /// Whether the service denies access: a wrong key, a missing scope, or too many requests.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Problem(problem) if matches!(problem.status, 401 | 403 | 429))
    }
}

/// An answer of the service: the original JSON and the parsed value.
#[derive(Debug)]
pub struct Answer<T> {
    pub status: u16,
    pub json: Bytes,
    pub value: T,
}

impl<T> Answer<T> {
    /// The same answer with its value converted.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { status: self.status, json: self.json, value: read(self.value) }
    }
}

/// The client; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// `base` is the API's address, such as `http://127.0.0.1:8086`.
    ///
    /// # Errors
    /// The HTTP client cannot be set up on this system.
    pub fn new(base: Url, key: Option<String>) -> Result<Self, reqwest::Error> {
        // Fails if a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        Ok(Self { http, base, key })
    }

    /// The API's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Submits a job body.
    ///
    /// # Errors
    /// The job was not accepted, or its fate is unknown ([`ClientError::Lost`]): submit again only
    /// with an idempotency key, or the job may be paid twice.
    pub async fn submit(
        &self,
        body: impl Into<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<api::JobView, ClientError> {
        Ok(self.submit_in_full(body, idempotency_key).await?.value)
    }

    /// As [`Self::submit`]; the status is 200 if the job was on record already.
    ///
    /// # Errors
    /// As [`Self::submit`].
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

    /// A job.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn job(&self, id: &str) -> Result<api::Job, ClientError> {
        Ok(self.get(&format!("/v1/jobs/{id}"), &[]).await?.value)
    }

    /// The job once it has finished, or in its current state after `patience` (at most 60 s).
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn wait(&self, id: &str, patience: Duration) -> Result<api::Job, ClientError> {
        let seconds = patience.as_secs().to_string();
        Ok(self.get(&format!("/v1/jobs/{id}"), &[("wait", seconds)]).await?.value)
    }

    /// The first page of a job's events.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn events(&self, id: &str) -> Result<api::Events, ClientError> {
        Ok(self.get(&format!("/v1/jobs/{id}/events"), &[]).await?.value)
    }

    /// The exact bytes of a job's result; `None` while there is none.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn result(&self, id: &str) -> Result<Option<Bytes>, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}/result"));
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(None);
        }
        response.bytes().await.map(Some).map_err(|_| ClientError::Unreachable(self.base.clone()))
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    /// Sends a POST request with a JSON body.
    ///
    /// # Errors
    /// The service refused the request or could not be reached. After [`ClientError::Lost`] it may
    /// have been carried out; otherwise retry if [`ClientError::is_passing`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        order: &impl Serialize,
    ) -> Result<Answer<T>, ClientError> {
        self.answer(self.request(Method::POST, path).json(order)).await
    }

    /// Sends a DELETE request.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
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

    /// The error for an answer that is not a success.
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
