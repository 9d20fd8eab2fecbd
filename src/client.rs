//! A typed client of our own API, for the command line and the tests.
//!
//! It talks HTTP only and knows nothing of the service's inside. The invariant: what the service
//! answers is either what was asked for or a [`ClientError`] that says what to do.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::api;

/// Why there is no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a problem.
    #[error("{} ({}): {}", .0.title, .0.code, .0.detail)]
    Problem(Box<api::Problem>),
    /// The service cannot be reached.
    #[error("{0} does not answer")]
    Unreachable(Url),
    /// Something answers, but not this service.
    #[error("{0} does not answer as a finishline does")]
    Foreign(Url),
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
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, base, key })
    }

    /// Submits a job body.
    pub async fn submit(
        &self,
        body: impl Into<Bytes>,
        idempotency_key: Option<&str>,
    ) -> Result<api::Job, ClientError> {
        let request = self.request(Method::POST, "/v1/jobs");
        let mut request = request.header("content-type", "application/json").body(body.into());
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.json(request).await
    }

    /// The job as it stands.
    pub async fn job(&self, id: &str) -> Result<api::Job, ClientError> {
        self.json(self.request(Method::GET, &format!("/v1/jobs/{id}"))).await
    }

    /// The job once it has finished, or as it stands after `patience` (at most 60 s).
    pub async fn wait(&self, id: &str, patience: Duration) -> Result<api::Job, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}"));
        self.json(request.query(&[("wait", patience.as_secs())])).await
    }

    /// The job's timeline.
    pub async fn events(&self, id: &str) -> Result<api::Events, ClientError> {
        self.json(self.request(Method::GET, &format!("/v1/jobs/{id}/events"))).await
    }

    /// The exact bytes of a job's result; `None` while there is none.
    pub async fn result(&self, id: &str) -> Result<Option<Bytes>, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/jobs/{id}/result"));
        let response = self.send(request).await?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(None);
        }
        response.bytes().await.map(Some).map_err(|_| ClientError::Unreachable(self.base.clone()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(path);
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let unreachable = |_| ClientError::Unreachable(self.base.clone());
        let response = request.send().await.map_err(unreachable)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(unreachable)?;
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Foreign(self.base.clone()),
        })
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let body = self.send(request).await?.bytes().await;
        let body = body.map_err(|_| ClientError::Unreachable(self.base.clone()))?;
        serde_json::from_slice(&body).map_err(|_| ClientError::Foreign(self.base.clone()))
    }
}
