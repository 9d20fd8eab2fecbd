//! The token endpoint (OAuth 2.0 client credentials) and the check of bearer tokens.
//!
//! Called by the router, and by every handler of the Engine's calls. Invariant: a token is valid
//! from its issue until it expires, is forgotten or is revoked, and never again.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Options, Refusal, Simulator, hex};

pub(super) struct Token {
    good_until: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    audience: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// `POST /oauth/token`
pub(super) async fn issue(
    State(simulator): State<Simulator>,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    simulator.change(|state| state.requests.tokens += 1);
    let options = simulator.options();
    sleep(options.token_delay).await;
    if simulator.strikes(|options| &mut options.refuse_tokens) {
        return Err(Refusal::by_option(options.token_status));
    }
    check_credentials(&body, &options)?;
    let token = hex(&rand::random::<[u8; 32]>());
    let life = match options.forget_tokens_after {
        early if early.is_zero() => options.token_life,
        early => early,
    };
    // A life that overflows the clock means no expiry.
    let good_until = Instant::now().checked_add(life);
    simulator.change(|state| {
        state.tokens.insert(token.clone(), Token { good_until });
        state.requests.tokens_issued += 1;
    });
    let expires_in = options.token_life.as_secs();
    Ok(Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": expires_in})))
}

fn check_credentials(body: &[u8], options: &Options) -> Result<(), Refusal> {
    let request: TokenRequest = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if request.grant_type != "client_credentials" {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported grant type"));
    }
    let allowed = |wanted: &Option<String>, given: &Option<String>| {
        wanted.is_none() || (given.is_some() && wanted == given)
    };
    if !allowed(&options.audience, &request.audience) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "no such audience"));
    }
    let known = allowed(&options.client_id, &request.client_id)
        && allowed(&options.client_secret, &request.client_secret);
    match known {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::UNAUTHORIZED, "access denied")),
    }
}

impl Simulator {
    /// Invalidates every token issued so far.
    pub fn forget_tokens(&self) {
        self.change(|state| state.tokens.clear());
    }

    /// Refuses a request without a valid bearer token, unless `require_token` is off.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.state().options.require_token || self.good_token(headers) {
            return Ok(());
        }
        self.change(|state| state.requests.unauthorized += 1);
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "a valid bearer token is needed"))
    }

    fn good_token(&self, headers: &HeaderMap) -> bool {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return false;
        };
        let now = Instant::now();
        let good = self
            .state()
            .tokens
            .get(token)
            .is_some_and(|known| known.good_until.is_none_or(|good_until| now < good_until));
        if good && self.strikes(|options| &mut options.revoke_tokens) {
            self.state().tokens.remove(token);
            return false;
        }
        good
    }
}
