//! One probe: the request to the public URL and the meaning of its answer.
//!
//! Called by the doctor. Invariant: only a proof under our own key counts as an arrival; every
//! other answer is a fault, whatever its status.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::{Fault, Trouble, connection};
use crate::{
    domain::signature,
    outbound::{self, Outbound},
    public_url::Prove,
};

/// For the small and the large body together. A callback's sender may not wait longer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// For a body of the largest size, which may have to pass a slow upstream line.
const LARGEST_TIME_LIMIT: Duration = Duration::from_secs(60);

/// The size of the large body: above the default limits of proxies. nginx (`client_max_body_size
/// 1m`) refuses bodies larger than 1 MiB, and accepts exactly 1 MiB.
const LARGE_BYTES: usize = 1024 * 1024 + 64 * 1024;

/// The minimum size of the small body: the nonce and the JSON around it.
const SMALL_BYTES: usize = 128;

/// How much of an answer is read; a proof is far smaller, and the start of a page is enough.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// ngrok sets this header on every answer of its own.
const NGROK_HEADER: &str = "ngrok-error-code";

/// The code of ngrok's warning page for browsers.
const NGROK_WARNING: &str = "ERR_NGROK_6024";

/// The prefix of the problem types of every finishline.
const PROBLEM_PREFIX: &str = "urn:finishline:problem:";

/// Sends probes.
#[derive(Clone)]
pub struct Prober {
    pub outbound: Outbound,
    pub signing_key: [u8; 32],
    /// The largest body that this instance accepts, in bytes.
    pub max_body: usize,
}

#[async_trait]
impl Prove for Prober {
    async fn prove(&self, public_url: &str) -> Result<(), String> {
        let sent = self.send_all(public_url, &[SMALL_BYTES], TIME_LIMIT).await;
        sent.map(drop).map_err(|fault| fault.to_string())
    }
}

/// The fields of an answer that may come from a finishline.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    outcome: String,
    proof: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Prober {
    /// Sends a small and a large body to this public URL; returns the size of the larger one, in
    /// bytes, if both arrive here.
    ///
    /// # Errors
    /// What is wrong with the public URL.
    pub async fn probe(&self, public_url: &str) -> Result<usize, Fault> {
        let large = LARGE_BYTES.min(self.max_body).max(SMALL_BYTES);
        self.send_all(public_url, &[SMALL_BYTES, large], TIME_LIMIT).await
    }

    /// Sends a body of the largest size that this instance accepts; returns that size, in bytes, if
    /// it arrives here.
    ///
    /// # Errors
    /// What is wrong with the public URL.
    pub async fn probe_largest(&self, public_url: &str) -> Result<usize, Fault> {
        let largest = self.max_body.max(SMALL_BYTES);
        self.send_all(public_url, &[largest], LARGEST_TIME_LIMIT).await
    }

    async fn send_all(
        &self,
        public_url: &str,
        sizes: &[usize],
        limit: Duration,
    ) -> Result<usize, Fault> {
        let mut bytes = SMALL_BYTES;
        let all = async {
            for size in sizes {
                bytes = *size;
                self.send(public_url, bytes, limit).await?;
            }
            Ok(bytes)
        };
        let in_time = tokio::time::timeout(limit, all).await;
        let slow = |_| Err(Fault::NoAnswer { trouble: Trouble::Slow(limit), bytes });
        in_time.unwrap_or_else(slow)
    }

    async fn send(&self, public_url: &str, bytes: usize, limit: Duration) -> Result<(), Fault> {
        let no_answer = |trouble| Fault::NoAnswer { trouble, bytes };
        let id = signature::PROBE_ID;
        let signature = signature::sign(&self.signing_key, id);
        let url = Url::parse(&format!("{public_url}/callbacks/{id}/{signature}"))
            .map_err(|_| no_answer(Trouble::Name))?;
        connection::resolve(&url).await.map_err(no_answer)?;
        // Allocated once, however large: the request shares it.
        let body = Bytes::from(body(bytes));
        let request = self.outbound.configured().post(url).body(body.clone());
        let response = request.header(CONTENT_TYPE, "application/json").send().await;
        let response =
            response.map_err(|error| no_answer(Trouble::of(&error, &self.outbound, limit)))?;
        self.judge(response, &body).await
    }

    async fn judge(&self, response: Response, body: &[u8]) -> Result<(), Fault> {
        let code = response.status();
        let status = code.as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        match header(NGROK_HEADER) {
            Some(code) if code == NGROK_WARNING => return Err(Fault::NgrokWarning),
            Some(code) => return Err(Fault::Ngrok { code: plain(&code) }),
            None => {}
        }
        if code.is_redirection() {
            let to = header(LOCATION.as_str()).as_deref().and_then(origin);
            return Err(Fault::Redirect { status, to });
        }
        let is_html = header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.contains("html"));
        let text = outbound::read_capped(response, MAX_ANSWER_BYTES).await.unwrap_or_default();
        let answer: Answer = serde_json::from_slice(&text).unwrap_or_default();
        if answer.outcome == "probe" {
            let is_ours = signature::is_proof(&self.signing_key, body, &answer.proof);
            return if is_ours { Ok(()) } else { Err(Fault::OtherInstance) };
        }
        if let Some(code) = answer.kind.strip_prefix(PROBLEM_PREFIX) {
            return Err(match status {
                404 => Fault::OtherInstance,
                _ => Fault::Problem { status, code: plain(code) },
            });
        }
        let bytes = body.len();
        Err(match code {
            StatusCode::PAYLOAD_TOO_LARGE => Fault::TooLarge { bytes },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::Login { status },
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Fault::Gateway { status },
            _ if is_html || text.starts_with(b"<") => page(status, &text),
            _ => Fault::Unexpected { status },
        })
    }
}

/// A body of exactly this many bytes that is JSON, as callbacks are, and unique.
fn body(bytes: usize) -> String {
    let nonce: [u8; 16] = rand::random();
    let nonce = uuid::Uuid::from_bytes(nonce).simple().to_string();
    let mut body = json!({ "finishlineProbe": nonce }).to_string();
    let padding = bytes.saturating_sub(body.len());
    body.extend(std::iter::repeat_n(' ', padding));
    body
}

fn page(status: u16, text: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let is_ngrok_warning = text.contains(&NGROK_WARNING.to_ascii_lowercase())
        || (text.contains("ngrok") && text.contains("you are about to visit"));
    if is_ngrok_warning { Fault::NgrokWarning } else { Fault::Page { status } }
}

/// Scheme, host and port: the rest may repeat our signed path.
fn origin(location: &str) -> Option<String> {
    let origin = Url::parse(location).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

/// Makes a foreign word safe for a sentence of ours.
fn plain(text: &str) -> String {
    let is_plain =
        |character: &char| character.is_ascii_alphanumeric() || "-_".contains(*character);
    text.chars().filter(is_plain).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_the_size_asked_for_and_never_the_same() {
        for bytes in [SMALL_BYTES, LARGE_BYTES] {
            let sent = body(bytes);
            assert_eq!(sent.len(), bytes);
            assert!(serde_json::from_str::<serde_json::Value>(&sent).is_ok());
            assert_ne!(sent, body(bytes));
        }
    }

    #[test]
    fn a_redirect_is_named_without_the_signed_path() {
        let found = origin("https://hooks.example.com:444/callbacks/0/secret?x=1");
        assert_eq!(found.as_deref(), Some("https://hooks.example.com:444"));
        assert_eq!(origin("/callbacks/0/secret"), None);
    }
}
