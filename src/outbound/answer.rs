//! Makes the outcome of a request safe to pass on: failures in words that reveal nothing, URLs
//! without their secrets, bodies with an upper limit. Called through `outbound`.
//!
//! Invariant: no credential of a URL and no more than the allowed bytes leave this module.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use url::{Position, Url};

use super::{Refused, trouble::is_caused_by};

/// The reason why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It has more bytes than allowed; the rest was not read.
    #[error("the answer is too large")]
    TooLarge,
    /// The connection ended before the body did.
    #[error("connection lost")]
    Lost,
    /// The request's timeout passed before the end of the body.
    #[error("timed out")]
    TimedOut,
}

/// What happened to a request, for messages. A closed port, an unknown name, a failed handshake and
/// a connection that is never answered get the same words: a caller must not learn what listens in
/// the network. Contains no part of the URL.
pub fn describe(error: &reqwest::Error) -> &'static str {
    if is_refused(error) {
        "its address is not allowed"
    } else if error.is_connect() {
        "not reachable"
    } else if error.is_timeout() {
        "timed out"
    } else if error.is_builder() {
        "the request could not be made"
    } else if error.is_status() {
        "answered with an error"
    } else if error.is_decode() {
        "its answer is unreadable"
    } else {
        "connection lost"
    }
}

/// Whether the guard refused the addresses of the host. In that case nothing was sent.
pub fn is_refused(error: &reqwest::Error) -> bool {
    is_caused_by::<Refused>(error)
}

/// A URL for logs: without user name, password, query and fragment.
pub fn redact(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => {
            format!(
                "{}{}",
                &url[..Position::BeforeUsername],
                &url[Position::BeforeHost..Position::AfterPath]
            )
        }
        Ok(url) => format!("{}:…", url.scheme()),
        Err(_) => "unreadable address".to_owned(),
    }
}

/// Reads a body of at most `max_bytes`. Uses no more memory than that and one chunk.
///
/// # Errors
/// [`ReadError`], by what the caller can do.
pub async fn read_capped(mut response: Response, max_bytes: usize) -> Result<Bytes, ReadError> {
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(ReadError::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ReadError::from(&error))? {
        if chunk.len() > max_bytes - body.len() {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads what arrives of a body within `patience`, up to `max_bytes`: for error pages, which are
/// worth reading but not worth waiting for.
pub async fn read_beginning(mut response: Response, max_bytes: usize, patience: Duration) -> Bytes {
    let mut body = BytesMut::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = max_bytes - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == max_bytes {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(patience, reading).await;
    body.freeze()
}

impl From<&reqwest::Error> for ReadError {
    fn from(error: &reqwest::Error) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Lost }
    }
}
