//! The relay: sends each result to each of its targets, signed, until it is accepted or given up.
//!
//! Invariants: an attempt starts only for an order that is on record and leased, so a crash repeats
//! attempts but loses none; a slow target does not delay another; a job's own target is called only
//! through the outbound guard.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use reqwest::{
    Method, RequestBuilder,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use standardwebhooks::Webhook;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use url::Url;

use super::{Step, Worker};
use crate::{
    clock::{self, Clock, Stopwatch},
    config::{RelayConfig, Secret},
    domain::relay::{
        AfterAttempt, Answered, Attempt, DueRelay, KEPT_ANSWER_BYTES, after_attempt, webhook_id,
    },
    outbound::{self, Outbound},
    store::{Lookup, Store},
};

/// Added to an attempt's time limit: after both, a lost lease expires.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// Bytes of results larger than [`SMALL_BYTES`] that are in flight at a time, to all targets
/// together.
const LARGE_BYTES: u32 = 16 * 1024 * 1024;
const SMALL_BYTES: usize = 256 * 1024;

/// See the module. Cheap to clone; clones share the attempts in progress.
#[derive(Clone)]
pub struct Relayer {
    pub config: RelayConfig,
    pub store: Arc<dyn Store>,
    pub outbound: Outbound,
    pub clock: Clock,
    /// Attempts under way.
    pub attempts: TaskTracker,
    under_way: Arc<Mutex<HashMap<String, u32>>>,
    /// Notified when an attempt ends: its target has room again.
    ended: Arc<Notify>,
    /// Limits the bytes of large results in flight.
    large: Arc<Semaphore>,
}

impl Relayer {
    /// A relayer with nothing under way.
    pub fn new(
        config: RelayConfig,
        store: Arc<dyn Store>,
        outbound: Outbound,
        clock: Clock,
    ) -> Self {
        Self {
            config,
            store,
            outbound,
            clock,
            attempts: TaskTracker::new(),
            under_way: Arc::default(),
            ended: Arc::default(),
            large: Arc::new(Semaphore::new(LARGE_BYTES as usize)),
        }
    }
}

#[async_trait]
impl Worker for Relayer {
    const NAME: &'static str = "relay";
    const IDLE_PAUSE: Duration = Duration::from_secs(1);
    const BUSY_PAUSE: Duration = Duration::ZERO;

    /// Starts the attempts that are due and have room; they run as tasks of their own.
    async fn step(&self) -> anyhow::Result<Step> {
        let now = self.clock.now();
        let lease_until = clock::add(now, self.config.timeout + LEASE_MARGIN);
        let under_way: Vec<(String, u32)> =
            self.locked().iter().map(|(target, count)| (target.clone(), *count)).collect();
        let concurrency = self.config.concurrency;
        let claimed = self.store.claim_relays(now, lease_until, under_way, concurrency).await?;
        let step = if claimed.is_empty() { Step::Idle } else { Step::Busy };
        for relay in claimed {
            *self.locked().entry(relay.target.clone()).or_default() += 1;
            let relayer = self.clone();
            self.attempts.spawn(async move {
                let target = relay.target.clone();
                if let Err(error) = relayer.attempt(relay).await {
                    let error = format!("{error:#}");
                    tracing::error!(target_name = target, error, "an attempt is not on record");
                }
                relayer.leave(&target);
            });
        }
        Ok(step)
    }

    async fn woken(&self) {
        self.ended.notified().await;
    }
}

impl Relayer {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.under_way.lock().expect("no one panics while holding it")
    }

    fn leave(&self, target: &str) {
        let mut under_way = self.locked();
        if let Some(count) = under_way.get_mut(target) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(target);
            }
        }
        drop(under_way);
        self.ended.notify_one();
    }

    async fn attempt(&self, relay: DueRelay) -> anyhow::Result<()> {
        // The job was erased meanwhile, and its orders with it.
        let Lookup::Found(Some(mut result)) = self.store.result(relay.job_id).await? else {
            return Ok(());
        };
        let mut _room = None;
        if result.body.len() > SMALL_BYTES {
            // The body is not held in memory while it waits for other large results.
            let bytes = u32::try_from(result.body.len()).unwrap_or(LARGE_BYTES).min(LARGE_BYTES);
            drop(result);
            let room = self.large.clone().acquire_many_owned(bytes);
            let Ok(room) = tokio::time::timeout(LEASE_MARGIN / 2, room).await else {
                // The lease expires, and the order is due again.
                return Ok(());
            };
            _room = Some(room.context("places for large results are never closed")?);
            result = match self.store.result(relay.job_id).await? {
                Lookup::Found(Some(result)) => result,
                _ => return Ok(()),
            };
        }
        let at = self.clock.now();
        let stopwatch = Stopwatch::start();
        let sent = match self.request(&relay, &result.body, at.as_second()) {
            Ok(request) => Sent::of(request.body(result.body), &self.clock).await,
            Err(reason) => Sent { error: Some(reason), ..Sent::default() },
        };
        let answered = Answered { status: sent.status, retry_after: sent.retry_after };
        let jitter: f64 = rand::random();
        let now = self.clock.now();
        let after = after_attempt(&self.config.schedule, relay.tries + 1, answered, jitter, now);
        if after == AfterAttempt::Dead {
            tracing::error!(
                job.id = %relay.job_id, target_name = relay.target, status = sent.status,
                "a result could not be passed on; POST /v1/relays/{}/resend orders it again",
                relay.id
            );
        }
        let attempt = Attempt {
            number: 0,
            at: now,
            millis: u64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(u64::MAX),
            status: sent.status,
            error: sent.error,
            answer: sent.answer,
        };
        self.store.record_attempt(relay.id, attempt, after).await.context("recording it")
    }

    /// The signed request, or why there can be none.
    fn request(
        &self,
        relay: &DueRelay,
        body: &[u8],
        timestamp: i64,
    ) -> Result<RequestBuilder, String> {
        let (request, secrets): (RequestBuilder, Vec<Secret>) = match &relay.url {
            Some(url) => {
                let url = Url::parse(url).map_err(|_| "its address cannot be read")?;
                let request = self.outbound.foreign(Method::POST, &url);
                let request = request.map_err(|refused| refused.to_string())?;
                let secret = url.host_str().and_then(|host| self.config.secret_of(host));
                (request, secret.into_iter().collect())
            }
            None => {
                let known = self.config.targets.iter().find(|one| one.name == relay.target);
                let target = known.ok_or("the settings name no such target any more")?;
                let request = self.outbound.configured().post(target.url.clone());
                (request, target.secrets.clone())
            }
        };
        let webhook_id = webhook_id(relay.job_id, relay.id);
        let signature = sign(&secrets, &webhook_id, timestamp, body)?;
        let request = request
            .timeout(self.config.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", webhook_id)
            .header("webhook-timestamp", timestamp)
            .header("finishline-job-id", relay.job_id.to_string());
        Ok(match signature {
            Some(signature) => request.header("webhook-signature", signature),
            None => request,
        })
    }
}

/// One signature per secret, so that a receiver can verify with either during a rotation.
fn sign(
    secrets: &[Secret],
    webhook_id: &str,
    timestamp: i64,
    body: &[u8],
) -> Result<Option<String>, String> {
    let signatures = secrets.iter().map(|secret| {
        let webhook = Webhook::new(secret.expose()).map_err(|_| "its secret cannot be read")?;
        webhook.sign(webhook_id, timestamp, body).map_err(|_| "it cannot be signed")
    });
    let signatures = signatures.collect::<Result<Vec<_>, &str>>()?;
    Ok((!signatures.is_empty()).then(|| signatures.join(" ")))
}

/// The outcome of sending a request.
#[derive(Default)]
struct Sent {
    status: Option<u16>,
    retry_after: Option<Duration>,
    error: Option<String>,
    answer: Vec<u8>,
}

impl Sent {
    async fn of(request: RequestBuilder, clock: &Clock) -> Self {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let error = Some(outbound::describe(&error).to_owned());
                return Self { error, ..Self::default() };
            }
        };
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after =
            retry_after.and_then(|value| clock::retry_after(value.to_str().ok()?, clock.now()));
        let status = Some(response.status().as_u16());
        let mut answer = Vec::new();
        // The status decides; of an answer that breaks off, the part received is kept.
        while let Ok(Some(piece)) = response.chunk().await {
            let room = KEPT_ANSWER_BYTES - answer.len();
            answer.extend_from_slice(&piece[..piece.len().min(room)]);
            if answer.len() == KEPT_ANSWER_BYTES {
                break;
            }
        }
        Self { status, retry_after, error: None, answer }
    }
}
