//! Refusals: every 4xx and 5xx of the simulator.
//!
//! Returned by all handlers. The body is always `{"error": "…"}`.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{AppendHeaders, IntoResponse, Response},
};
use serde_json::json;

/// Why a request was not served; rendered as `{"error": "…"}`.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), headers: Vec::new() }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no such {what}"))
    }

    /// Adds a header, if there is one and it can be sent.
    pub(super) fn add_header(&mut self, name: HeaderName, value: Option<String>) {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            self.headers.push((name, value));
        }
    }

    /// A status that an option sets.
    pub(super) fn by_option(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, format!("the simulator was told to answer {status}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, AppendHeaders(self.headers), Json(json!({"error": self.reason})))
            .into_response()
    }
}
