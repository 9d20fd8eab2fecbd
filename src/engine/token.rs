//! The Engine's access token: fetched once for all who wait, kept, renewed early.
//!
//! Called by `engine` for every request. Each token counts against the tenant's quota, so the
//! invariants: one fetch at a time, whose outcome serves everyone who waited for it; and a token is
//! given up only when it expires or the Engine refuses it.

use std::{
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    clock::{self, Clock},
    config::AuthConfig,
    outbound::{self, Outbound},
    telemetry,
};

/// A token endpoint that takes longer is down.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer with a token is a few kilobytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Renewal begins this long before expiry, or at a tenth of a shorter life.
const EARLIEST: Duration = Duration::from_secs(300);

/// What a token is given when the endpoint names no life.
const UNNAMED_LIFE: Duration = Duration::from_secs(300);

/// After an early renewal that failed, the next attempt waits this long: the token is still good.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// No token is to be had; the reason stands in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoToken;

/// Cheap to clone; clones share the token.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Shared>);

struct Shared {
    config: AuthConfig,
    outbound: Outbound,
    clock: Clock,
    current: SyncMutex<Option<Token>>,
    /// Held by whoever fetches; inside, whether the last fetch failed.
    fetching: Mutex<Result<(), NoToken>>,
    /// Fetches that have ended.
    fetches: AtomicU64,
}

#[derive(Clone)]
struct Token {
    value: Arc<str>,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn new(config: AuthConfig, outbound: Outbound, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            config,
            outbound,
            clock,
            current: SyncMutex::new(None),
            fetching: Mutex::new(Ok(())),
            fetches: AtomicU64::new(0),
        }))
    }

    /// A token to send; `None` if the settings say that none is sent.
    pub(super) async fn bearer(&self) -> Result<Option<Arc<str>>, NoToken> {
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

    /// Another token than `refused`, which the Engine did not accept.
    pub(super) async fn renew(
        &self,
        refused: Option<Arc<str>>,
    ) -> Result<Option<Arc<str>>, NoToken> {
        self.fetched(refused.as_deref()).await.map(Some)
    }

    /// Fetches a token only to see whether one is to be had; answers how long it would be good.
    pub(super) async fn prove(&self) -> Result<Duration, &'static str> {
        let asked_at = self.0.clock.now();
        let token = self.request().await?;
        let life = token.expires_at.duration_since(asked_at);
        Ok(Duration::try_from(life).unwrap_or_default())
    }

    fn current(&self) -> Option<Token> {
        self.0.current.lock().expect("no one panics while holding it").clone()
    }

    /// One caller renews; the others go on with the token that is still good.
    async fn renewed_early(&self, token: Token) -> Arc<str> {
        let Ok(mut last) = self.0.fetching.try_lock() else { return token.value };
        match self.fetch(&mut last).await {
            Ok(fresh) => fresh,
            Err(NoToken) => {
                let renew_at = clock::add(self.0.clock.now(), RENEWAL_PAUSE).min(token.expires_at);
                self.set(Token { renew_at, ..token.clone() });
                token.value
            }
        }
    }

    /// The current token unless it is `refused` or has expired, else a fresh one. Whoever waits
    /// while another fetches shares the outcome.
    async fn fetched(&self, refused: Option<&str>) -> Result<Arc<str>, NoToken> {
        let seen = self.0.fetches.load(Ordering::Acquire);
        let mut last = self.0.fetching.lock().await;
        if let Some(token) = self.current()
            && self.0.clock.now() < token.expires_at
            && refused != Some(&*token.value)
        {
            return Ok(token.value);
        }
        if self.0.fetches.load(Ordering::Acquire) != seen {
            (*last)?;
        }
        self.fetch(&mut last).await
    }

    async fn fetch(&self, last: &mut Result<(), NoToken>) -> Result<Arc<str>, NoToken> {
        let fetched = self.request().await;
        let outcome = if fetched.is_ok() { "fetched" } else { "failed" };
        telemetry::TOKEN_FETCHES.of([outcome.into()]).increment(1);
        *last = fetched.as_ref().map(|_| ()).map_err(|_| NoToken);
        self.0.fetches.fetch_add(1, Ordering::Release);
        let token = fetched.map_err(|reason| {
            tracing::error!(reason, "no token from the Engine's token endpoint");
            NoToken
        })?;
        self.set(token.clone());
        Ok(token.value)
    }

    async fn request(&self) -> Result<Token, &'static str> {
        let config = &self.0.config;
        let url = config.token_url.clone().ok_or("no token endpoint is set")?;
        let secret = config.client_secret.as_ref().ok_or("engine.auth.client_secret is not set")?;
        let asked_at = self.0.clock.now();
        let body = json!({
            "grant_type": "client_credentials",
            "audience": config.audience,
            "client_id": config.client_id,
            "client_secret": secret.expose(),
        });
        let request = self.0.outbound.configured().post(url).timeout(TIMEOUT).json(&body);
        let response = request.send().await.map_err(|error| outbound::describe(&error))?;
        if !response.status().is_success() {
            return Err(match response.status().as_u16() {
                400 | 401 | 403 => "it refuses the client id or secret",
                429 => "it asks to come back later",
                _ => "it answered with an error",
            });
        }
        let body = outbound::read_capped(response, MAX_ANSWER_BYTES).await;
        let body = body.map_err(|_| "its answer broke off or is too large")?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| "its answer holds no access_token")?;
        let life = answer.expires_in.map_or(UNNAMED_LIFE, Duration::from_secs);
        Ok(Token {
            value: answer.access_token.into(),
            renew_at: clock::add(asked_at, life - EARLIEST.min(life / 10)),
            expires_at: clock::add(asked_at, life),
        })
    }

    fn set(&self, token: Token) {
        *self.0.current.lock().expect("no one panics while holding it") = Some(token);
    }
}
