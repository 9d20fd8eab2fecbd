//! Writes server-sent events.
//!
//! Used by everything that streams events. Invariants: an empty line ends an event and appears
//! nowhere else, so a client that takes every block for an event reads no empty event; only an
//! event that a client can resume after has an `id`.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::timeout;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A one-line comment. Many clients would take an empty line after it for an event without data.
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n");

/// An event that clients resume after.
pub(super) fn numbered(id: i64, kind: &str, data: &str) -> Bytes {
    Bytes::from(format!("id: {id}\n{}", block(kind, data)))
}

/// An event about the stream itself: it does not change the client's last id.
pub(super) fn unnumbered(kind: &str, data: &str) -> Bytes {
    Bytes::from(block(kind, data))
}

/// `kind` must be one line.
fn block(kind: &str, data: &str) -> String {
    let data: String = data.split(['\n', '\r']).map(|line| format!("data: {line}\n")).collect();
    format!("event: {kind}\n{data}\n")
}

/// An answer that streams these events, with a heartbeat after each silence of this length.
pub(super) fn respond(
    events: impl Stream<Item = Bytes> + Send + 'static,
    heartbeat: Duration,
) -> Response {
    let pieces = stream::unfold(Box::pin(events), move |mut events| async move {
        let piece = match timeout(heartbeat, pin!(events.next())).await {
            Ok(event) => event?,
            Err(_) => HEARTBEAT,
        };
        Some((Ok::<_, Infallible>(piece), events))
    });
    ([(CONTENT_TYPE, EVENT_STREAM)], Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_in_the_data_ends_no_event() {
        let bytes = numbered(7, "job.finished", "{\"a\":\n\r1}");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert_eq!(text, "id: 7\nevent: job.finished\ndata: {\"a\":\ndata: \ndata: 1}\n\n");
        assert_eq!(unnumbered("caught-up", "{}"), "event: caught-up\ndata: {}\n\n");
    }
}
