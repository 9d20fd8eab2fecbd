//! The Engine's access token: fetched once for all waiting callers, cached, renewed early.
//!
//! Called by `engine` for every request. Each token counts against the tenant's quota. Invariant:
//! only one fetch runs at a time, and its outcome serves everyone who waited for it; an endpoint
//! that refuses is left alone for a while; and a token is replaced only when it is about to expire
//! or the Engine refuses it.

mod answer;
mod fault;

use std::{
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use reqwest::Response;
use serde_json::json;
use tokio::sync::Mutex;

use self::answer::{Answer, Granted, MAX_ANSWER_BYTES};
pub use self::fault::TokenFault;
use crate::{
    clock::{self, Clock},
    config::AuthConfig,
    outbound::{self, Outbound, ReadError, Trouble},
    telemetry,
};

/// A token endpoint that takes longer is considered down.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Renewal begins this long before expiry, or a tenth of the life before it if that is shorter.
const EARLIEST: Duration = Duration::from_secs(300);

/// The wait after a failed early renewal: the token is still valid.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// How long an endpoint that refused is left alone, unless it gives a time itself, and the longest
/// time that it may give.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Access to the token. Cheap to clone; clones share the token.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Shared>);

struct Shared {
    config: AuthConfig,
    outbound: Outbound,
    clock: Clock,
    current: SyncMutex<Option<Token>>,
    /// Locked by the caller that fetches; holds the last failure.
    fetching: Mutex<Option<Failure>>,
    /// The number of completed fetches.
    fetches: AtomicU64,
}

#[derive(Clone)]
struct Token {
    value: Arc<str>,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// A fetch that failed.
struct Failure {
    fault: TokenFault,
    at: Timestamp,
}

impl Failure {
    /// The fault, while its endpoint is left alone.
    fn in_force(&self, now: Timestamp) -> Option<TokenFault> {
        if !self.fault.is_refusal() {
            return None;
        }
        let pause = self.fault.retry_after().unwrap_or(REFUSAL_PAUSE);
        let passed = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        (passed < pause).then(|| self.fault.clone().after(passed))
    }
}

impl Tokens {
    pub(super) fn new(config: AuthConfig, outbound: Outbound, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            config,
            outbound,
            clock,
            current: SyncMutex::new(None),
            fetching: Mutex::new(None),
            fetches: AtomicU64::new(0),
        }))
    }

    /// A token to send; `None` if the settings configure none.
    pub(super) async fn bearer(&self) -> Result<Option<Arc<str>>, TokenFault> {
        if self.0.config.token_url.is_none() {
            return Ok(None);
        }
        let now = self.0.clock.now();
        match self.current() {
            Some(token) if now < token.renew_at => Ok(Some(token.value)),
            Some(token) if now < token.expires_at => Ok(Some(self.renewed_early(token).await)),
            _ => self.fetched(None).await.map(Some),
        }
    }

    /// A token other than `refused`, which the Engine did not accept.
    pub(super) async fn renew(
        &self,
        refused: Option<Arc<str>>,
    ) -> Result<Option<Arc<str>>, TokenFault> {
        self.fetched(refused.as_deref()).await.map(Some)
    }

    /// Fetches a token only to check that it works; returns how long it would be valid.
    pub(super) async fn prove(&self) -> Result<Duration, TokenFault> {
        Ok(self.request().await?.life)
    }

    fn current(&self) -> Option<Token> {
        self.0.current.lock().expect("no one panics while holding it").clone()
    }

    /// One caller renews; the others use the token that is still valid.
    async fn renewed_early(&self, token: Token) -> Arc<str> {
        let Ok(mut last) = self.0.fetching.try_lock() else { return token.value };
        match self.fetch(&mut last).await {
            Ok(fresh) => fresh,
            Err(_) => {
                let renew_at = clock::add(self.0.clock.now(), RENEWAL_PAUSE).min(token.expires_at);
                self.set(Token { renew_at, ..token.clone() });
                token.value
            }
        }
    }

    /// The current token unless it is `refused` or has expired, else a fresh one. All who wait
    /// while another caller fetches share the outcome.
    async fn fetched(&self, refused: Option<&str>) -> Result<Arc<str>, TokenFault> {
        let seen = self.0.fetches.load(Ordering::Acquire);
        let mut last = self.0.fetching.lock().await;
        if let Some(token) = self.current()
            && self.0.clock.now() < token.expires_at
            && refused != Some(&*token.value)
        {
            return Ok(token.value);
        }
        if self.0.fetches.load(Ordering::Acquire) != seen
            && let Some(failure) = &*last
        {
            return Err(failure.fault.clone());
        }
        self.fetch(&mut last).await
    }

    async fn fetch(&self, last: &mut Option<Failure>) -> Result<Arc<str>, TokenFault> {
        let asked_at = self.0.clock.now();
        if let Some(fault) = last.as_ref().and_then(|failure| failure.in_force(asked_at)) {
            return Err(fault);
        }
        let fetched = self.request().await;
        let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
        telemetry::TOKEN_FETCHES.of([outcome.into()]).increment(1);
        self.0.fetches.fetch_add(1, Ordering::Release);
        match fetched {
            Ok(Granted { value, life }) => {
                *last = None;
                let token = Token {
                    value: value.into(),
                    renew_at: clock::add(asked_at, life - EARLIEST.min(life / 10)),
                    expires_at: clock::add(asked_at, life),
                };
                self.set(token.clone());
                Ok(token.value)
            }
            Err(fault) => {
                tracing::error!(advice = fault.advice(), "no token for the Engine: {fault}");
                *last = Some(Failure { fault: fault.clone(), at: self.0.clock.now() });
                Err(fault)
            }
        }
    }

    async fn request(&self) -> Result<Granted, TokenFault> {
        let config = &self.0.config;
        let url = config.token_url.clone().ok_or(TokenFault::Unset("engine.auth.token_url"))?;
        let secret = config.client_secret.as_ref();
        let secret = secret.ok_or(TokenFault::Unset("engine.auth.client_secret"))?;
        let body = json!({
            "grant_type": "client_credentials",
            "audience": config.audience,
            "client_id": config.client_id,
            "client_secret": secret.expose(),
        });
        let outbound = &self.0.outbound;
        let request = outbound.configured().post(url).timeout(TIMEOUT).json(&body);
        let response = request
            .send()
            .await
            .map_err(|error| TokenFault::Unreachable(Trouble::of(&error, outbound, TIMEOUT)))?;
        self.read(response, secret.expose()).await
    }

    async fn read(&self, response: Response, secret: &str) -> Result<Granted, TokenFault> {
        let status = response.status();
        let now = self.0.clock.now();
        let retry_after = super::retry_after(&response, &self.0.clock);
        let retry_after = retry_after.map(|wait| wait.min(LONGEST_PAUSE));
        let body = match outbound::read_capped(response, MAX_ANSWER_BYTES).await {
            Ok(body) => body,
            // The status is enough.
            Err(_) if !status.is_success() => Default::default(),
            Err(ReadError::TooLarge) => return Err(TokenFault::Unusable("more than 1 MiB")),
            Err(ReadError::Lost) => return Err(TokenFault::Unreachable(Trouble::Lost)),
            Err(ReadError::TimedOut) => {
                return Err(TokenFault::Unreachable(Trouble::Slow(TIMEOUT)));
            }
        };
        let answer = answer::read(&body, now);
        match answer {
            Answer::Token(granted) if status.is_success() => Ok(granted),
            Answer::Error(error) if error.code.is_some() || !status.is_success() => {
                // Parts of the request that it echoes are not passed on.
                let error = error.without(secret);
                Err(TokenFault::of_answer(status.as_u16(), retry_after, Some(error)))
            }
            _ if !status.is_success() => {
                Err(TokenFault::of_answer(status.as_u16(), retry_after, None))
            }
            Answer::Page => Err(TokenFault::Unusable("a web page")),
            Answer::Unsendable => Err(TokenFault::Unusable("a text that no header can carry")),
            Answer::Token(_) | Answer::Error(_) | Answer::Nothing => {
                Err(TokenFault::Unusable("something else"))
            }
        }
    }

    fn set(&self, token: Token) {
        *self.0.current.lock().expect("no one panics while holding it") = Some(token);
    }
}
