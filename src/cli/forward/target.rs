//! Posts results to the target address until it accepts them.
//!
//! The bytes are the Engine's, with the same headers as a relay; a result that is skipped is
//! reported.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use standardwebhooks::Webhook;
use url::Url;

use crate::{
    cli::{
        Failure,
        connection::{Backoff, pause},
    },
    clock::Clock,
    outbound::{self, Outbound, Permissions},
};

/// Time limit for one delivery.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The status of a target that does not want a result again.
const GONE: u16 = 410;

/// See the module.
pub(super) struct Target {
    url: Url,
    outbound: Outbound,
    webhook: Option<Webhook>,
    /// Tries before a result is skipped; `None`: never skip.
    give_up: Option<u32>,
    clock: Clock,
}

/// One result.
pub(super) struct Message<'a> {
    pub(super) webhook_id: &'a str,
    pub(super) job_id: &'a str,
    pub(super) body: Bytes,
}

/// The outcome of a delivery.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) attempts: u32,
    /// Status of the last answer.
    pub(super) status: Option<u16>,
    /// Why it was not delivered; `None` if it was.
    pub(super) skipped: Option<String>,
}

impl Outcome {
    /// A result that was never sent.
    pub(super) fn skipped(reason: &str) -> Self {
        Self { attempts: 0, status: None, skipped: Some(reason.to_owned()) }
    }
}

impl Target {
    pub(super) fn new(
        url: Url,
        webhook: Option<Webhook>,
        give_up: Option<u32>,
    ) -> Result<Self, Failure> {
        let outbound = Outbound::new(Permissions::default(), &[])?;
        Ok(Self { url, outbound, webhook, give_up, clock: Clock::system() })
    }

    /// The address without its query, which may hold a secret.
    pub(super) fn shown(&self) -> String {
        crate::cli::table::link(self.url.as_str())
    }

    /// Posts until the target accepts or refuses it for good, or the tries are used up.
    pub(super) async fn deliver(&self, message: &Message<'_>) -> Outcome {
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (status, trouble) = match self.post(message).await {
                Ok(status @ 200..=299) => {
                    return Outcome { attempts, status: Some(status), skipped: None };
                }
                Ok(status) => (Some(status), format!("{} answers {status}", self.shown())),
                Err(error) => (None, format!("{}: {error}", self.shown())),
            };
            let skipped = match self.give_up {
                _ if status == Some(GONE) => Some("410: the target wants no more of it".to_owned()),
                Some(most) if attempts >= most => {
                    Some(format!("not taken in {attempts} tries; {trouble}"))
                }
                _ => None,
            };
            if skipped.is_some() {
                return Outcome { attempts, status, skipped };
            }
            pause(&mut backoff, &format!("job {}: {trouble}", message.job_id)).await;
        }
    }

    async fn post(&self, message: &Message<'_>) -> Result<u16, String> {
        let timestamp = self.clock.now().as_second();
        let mut request = self.outbound.configured().post(self.url.clone()).timeout(TIMEOUT);
        request = request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.webhook_id)
            .header("webhook-timestamp", timestamp)
            .header("finishline-job-id", message.job_id);
        if let Some(webhook) = &self.webhook {
            let signature = webhook.sign(message.webhook_id, timestamp, &message.body);
            let signature = signature.map_err(|_| "the result cannot be signed")?;
            request = request.header("webhook-signature", signature);
        }
        let sent = request.body(message.body.clone()).send().await;
        sent.map(|response| response.status().as_u16())
            .map_err(|error| outbound::describe(&error).to_owned())
    }
}
