//! What the service answered, read to its end, with what every test asks of it.
//!
//! The invariant: a failed expectation shows the whole answer.

use bytes::Bytes;
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Sends a request and reads its answer.
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.expect("the whole answer") }
    }

    /// The answer itself, if it has that status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of text"))
    }

    /// The problem it is: of that status and code, and complete.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "expected {code}: {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let id = self.header("x-request-id");
        assert!(id.is_some_and(|id| !id.is_empty()), "every answer has an x-request-id");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for name in ["type", "title", "detail"] {
            let is_there = problem[name].as_str().is_some_and(|text| !text.is_empty());
            assert!(is_there, "a problem has {name}: {problem}");
        }
        problem
    }

    /// The pointers of a `validation-failed`.
    #[track_caller]
    pub fn invalid_at(&self) -> Vec<String> {
        let problem = self.problem(422, "validation-failed");
        let errors = problem["errors"].as_array().expect("errors");
        errors.iter().map(|one| super::text(&one["pointer"]).to_owned()).collect()
    }
}
