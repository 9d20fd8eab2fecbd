//! What the service answered, read to its end, with what every test asks of it.
//!
//! The invariant: a failed expectation shows the whole answer.

use bytes::Bytes;
use reqwest::{
    RequestBuilder,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

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
        // A stream has no end to wait for.
        if headers.get("content-type").is_some_and(|kind| kind == "text/event-stream") {
            return Self { status, headers, body: Bytes::new() };
        }
        Self { status, headers, body: response.bytes().await.expect("the whole answer") }
    }

    /// Sends bytes as they are to `http://host:port` and reads until the other side closes; the
    /// request asks for that with `connection: close`.
    pub async fn of_bytes(origin: &str, request: &[u8]) -> Self {
        let address = origin.strip_prefix("http://").expect("an http address");
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // A service that has seen enough may close before everything is sent.
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let read = super::within(stream.read_to_end(&mut bytes)).await;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {read:?}, {bytes:?}"));
        let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            let name = name.parse::<HeaderName>().expect("a name");
            (name, value.parse::<HeaderValue>().expect("a value"))
        };
        Self {
            status: status.parse().expect("a number"),
            headers: lines.map(header).collect(),
            body: Bytes::copy_from_slice(&bytes[end + 4..]),
        }
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
