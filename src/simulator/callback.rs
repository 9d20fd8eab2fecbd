//! The Engine's callback to `finishWebhook`: when, how often and in which shape it is sent.
//!
//! Called when a job finishes, and by `control` and tests to send a callback again. Invariant:
//! every attempt that has ended is in the log, with exactly the bytes that were sent.

use std::{convert::Infallible, io::Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{future::join_all, stream};
use jiff::Timestamp;
use reqwest::header;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{Conflict, Options, Simulator, hex, result::add_field};

/// One attempt to deliver a callback.
#[derive(Clone, Debug)]
pub struct SentCallback {
    pub engine_job_id: String,
    pub url: String,
    /// The exact body, before gzip if that was asked for.
    pub body: Bytes,
    /// SHA-256 of `body` in lower-case hexadecimal.
    pub sha256: String,
    /// The receiver's status; `None` if it did not answer.
    pub status: Option<u16>,
    pub sent_at: Timestamp,
}

impl SentCallback {
    /// Whether the receiver answered 2xx.
    pub fn answered(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

impl Simulator {
    /// Sends the callback of a finished job now, re-signed under `resign_repeats` if it was sent
    /// before. Returns the receiver's status, if it answered.
    pub async fn send_callback(&self, engine_job_id: &str) -> Option<u16> {
        let options = self.options();
        let job = self.job(engine_job_id)?;
        let mut body = job.result.clone()?;
        let sent_before = |sent: &SentCallback| sent.engine_job_id == engine_job_id;
        if options.resign_repeats && self.state().callbacks.iter().any(sent_before) {
            body = self.render(&job, &options);
        }
        self.send(engine_job_id, &job.callback_url?, body).await
    }

    /// Delivers a finished job's callback, with all the faults that the options set.
    pub(super) async fn deliver(&self, engine_job_id: &str) {
        let job = self.job(engine_job_id).filter(|job| job.callback_url.is_some());
        if job.is_none() || self.strikes(|options| &mut options.drop_callbacks) {
            return;
        }
        sleep(self.options().delay_callbacks).await;
        if self.strikes(|options| &mut options.reorder_callbacks) {
            self.change(|state| state.held.push(engine_job_id.to_owned()));
            return;
        }
        self.send_all(engine_job_id).await;
        let held = self.change(|state| std::mem::take(&mut state.held));
        for engine_job_id in held {
            self.send_all(&engine_job_id).await;
        }
    }

    /// Sends the callback and its repeats.
    async fn send_all(&self, engine_job_id: &str) {
        let options = self.options();
        let Some(bodies) = self.bodies(engine_job_id, &options) else {
            return;
        };
        let attempts = bodies.into_iter().map(|body| self.send_with_retries(engine_job_id, body));
        if options.repeat_concurrently {
            join_all(attempts).await;
            return;
        }
        for attempt in attempts {
            attempt.await;
        }
    }

    fn bodies(&self, engine_job_id: &str, options: &Options) -> Option<Vec<Bytes>> {
        let job = self.job(engine_job_id)?;
        let first = job.result.clone()?;
        let repeat = |_| match options.resign_repeats {
            true => self.render(&job, options),
            false => first.clone(),
        };
        let mut bodies = vec![first.clone()];
        bodies.extend((0..options.repeat_callbacks).map(repeat));
        if options.conflicting_repeat != Conflict::None {
            bodies.push(self.render_conflict(&job, options));
        }
        Some(bodies)
    }

    async fn send_with_retries(&self, engine_job_id: &str, body: Bytes) {
        let Some(url) = self.job(engine_job_id).and_then(|job| job.callback_url) else {
            return;
        };
        let mut retries = self.options().callback_retries;
        loop {
            let status = self.send(engine_job_id, &url, body.clone()).await;
            let taken = status.is_some_and(|status| (200..300).contains(&status));
            if taken || retries == 0 {
                return;
            }
            retries -= 1;
            sleep(self.options().callback_retry_wait).await;
        }
    }

    async fn send(&self, engine_job_id: &str, url: &str, body: Bytes) -> Option<u16> {
        let body = self.spoil(body);
        let sent_at = Timestamp::now();
        let status = self.post(url, body.clone()).await;
        let callback = SentCallback {
            engine_job_id: engine_job_id.to_owned(),
            url: url.to_owned(),
            sha256: hex(&Sha256::digest(&body)),
            body,
            status,
            sent_at,
        };
        self.change(|state| {
            if callback.answered() {
                state.write_log(callback.log_line());
            }
            state.callbacks.push(callback);
        });
        status
    }

    async fn post(&self, url: &str, body: Bytes) -> Option<u16> {
        let options = self.options();
        let mut request = self.shared.client.post(url);
        request = request.header(header::CONTENT_TYPE, "application/json");
        let mut body = body;
        if options.gzip_callbacks {
            body = gzip(&body);
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let request = match options.chunked_callbacks {
            true => {
                request.body(reqwest::Body::wrap_stream(stream::iter([Ok::<_, Infallible>(body)])))
            }
            false => request.body(body),
        };
        match request.send().await {
            Ok(answer) => Some(answer.status().as_u16()),
            Err(error) => {
                let error = error.without_url();
                tracing::debug!(%error, "a callback was not answered");
                None
            }
        }
    }

    /// The body to send: the result, or the result after a fault.
    fn spoil(&self, body: Bytes) -> Bytes {
        if self.strikes(|options| &mut options.empty_callbacks) {
            return Bytes::new();
        }
        if self.strikes(|options| &mut options.malformed_callbacks) {
            return body.slice(..body.len() / 2);
        }
        if self.strikes(|options| &mut options.callbacks_without_success) {
            return without_success(&body);
        }
        if self.strikes(|options| &mut options.invalid_utf8_callbacks) {
            return with_invalid_utf8(&body);
        }
        body
    }
}

fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory takes every byte").into()
}

fn without_success(body: &[u8]) -> Bytes {
    let mut result: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(result) = result.as_object_mut() {
        result.remove("success");
    }
    result.to_string().into()
}

fn with_invalid_utf8(body: &[u8]) -> Bytes {
    let mut text = String::from_utf8_lossy(body).into_owned();
    add_field(&mut text, "note", "\"?\"");
    let mut bytes = text.into_bytes();
    let note = bytes.len() - 3;
    bytes[note] = 0xff;
    bytes.into()
}
