//! The value types of settings: secrets, keys, choices. Used by everything that reads a section.
//!
//! Invariant: no `Debug` output of these types holds a secret.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{KEY_FILE, form, place};

/// A text that must not be printed; not empty.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself, for the code that sends it or signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Where the API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiListen {
    /// On the callbacks listener.
    Same,
    /// On its own listener. The port may be 0 (any free one).
    Address(SocketAddr),
}

impl ApiListen {
    /// Whether a listener is on another interface than the settings say.
    pub fn is_elsewhere(self, listener: SocketAddr) -> bool {
        matches!(self, Self::Address(address) if address.ip() != listener.ip())
    }
}

/// The public address of the callbacks listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicUrlSetting {
    /// Ask the local ngrok agent.
    Ngrok,
    /// An http(s) URL, possibly with a path prefix (with or without a trailing slash); no user,
    /// query or fragment.
    Fixed(Url),
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit jobs, upload and notify inputs.
    Submit,
    /// Read jobs, results, events, metrics.
    Read,
    /// Refresh jobs, send relays again.
    Operate,
    /// Erase jobs.
    Erase,
}

impl Scope {
    /// Every scope; the default of a key.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Operate, Self::Erase];

    /// The name in the settings and in problems.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Erase => "erase",
        }
    }
}

/// How to recognise a polled job that is still running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunningSetting {
    /// Any of: status 202; status 404; no `success` in the body; `success: false` without outputs
    /// and without an error.
    Auto,
    /// Only status 202.
    Status202,
    /// Only status 404.
    Status404,
    /// Status 200 without `success` in the body.
    NoSuccess,
    /// Status 200 with `success: false`, regardless of other fields.
    SuccessFalse,
}

/// When a job without a callback is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileAfter {
    Fixed(Duration),
    /// Learned from the run times of finished jobs.
    Auto,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One API key: its owner and what it may do. The key itself is not kept.
#[derive(Clone, Deserialize)]
#[serde(try_from = "ApiKeyEntry")]
pub struct ApiKeyConfig {
    /// Unique, not empty; used in logs and as the owner of an `Idempotency-Key`.
    pub name: String,
    /// SHA-256 of the key's bytes.
    pub digest: [u8; 32],
    /// Never empty, no duplicates, in the order of [`Scope::ALL`].
    pub scopes: Vec<Scope>,
}

impl ApiKeyConfig {
    /// The key that the service generated, with every scope.
    pub fn of_key_file(key: &str) -> Self {
        let digest = Sha256::digest(key).into();
        Self { name: KEY_FILE.to_owned(), digest, scopes: Scope::ALL.to_vec() }
    }
}

impl fmt::Debug for ApiKeyConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiKeyConfig")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a key: write it like { name = \"backend\", key = \"…\" }"
)]
struct ApiKeyEntry {
    #[serde(deserialize_with = "form::one::<form::Name, _>")]
    name: String,
    #[serde(default, deserialize_with = "form::present::<form::ApiKey, _>")]
    key: Option<[u8; 32]>,
    #[serde(default, deserialize_with = "form::present::<form::KeyDigest, _>")]
    key_sha256: Option<[u8; 32]>,
    #[serde(default, deserialize_with = "form::present_list::<form::ScopeName, _>")]
    scopes: Option<Vec<Scope>>,
}

impl TryFrom<ApiKeyEntry> for ApiKeyConfig {
    type Error = &'static str;

    fn try_from(entry: ApiKeyEntry) -> Result<Self, Self::Error> {
        let digest = match (entry.key, entry.key_sha256) {
            (Some(digest), None) | (None, Some(digest)) => digest,
            (Some(_), Some(_)) => return Err("has both key and key_sha256: leave one out"),
            (None, None) => return Err("has neither key nor key_sha256: give one of them"),
        };
        let mut scopes = entry.scopes.unwrap_or_else(|| Scope::ALL.to_vec());
        if scopes.is_empty() {
            return Err("has an empty list of scopes, so it may do nothing: \
                        name some, or leave scopes out for all");
        }
        scopes.sort_unstable();
        scopes.dedup();
        Ok(Self { name: entry.name, digest, scopes })
    }
}

/// An address that gets every result.
#[derive(Clone, Deserialize)]
#[serde(try_from = "RelayTargetEntry")]
pub struct RelayTarget {
    /// Unique, not empty; stored with each relay.
    pub name: String,
    /// http or https, trusted as written. Its path or query may be a credential.
    pub url: Url,
    /// Each `whsec_` + standard base64; each one signs, and the first is the newest. Empty:
    /// unsigned.
    pub secrets: Vec<Secret>,
}

impl fmt::Debug for RelayTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RelayTarget")
            .field("name", &self.name)
            .field("host", &self.url.host_str())
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a target: write it like { name = \"app\", url = \"https://…\", secret = \"whsec_…\" }"
)]
struct RelayTargetEntry {
    #[serde(deserialize_with = "form::one::<form::Name, _>")]
    name: String,
    #[serde(deserialize_with = "form::one::<place::HttpUrl, _>")]
    url: Url,
    #[serde(default, deserialize_with = "form::optional::<form::WebhookSecret, _>")]
    secret: Option<Secret>,
    #[serde(default, deserialize_with = "form::list::<form::WebhookSecret, _>")]
    secrets: Vec<Secret>,
}

impl TryFrom<RelayTargetEntry> for RelayTarget {
    type Error = &'static str;

    fn try_from(entry: RelayTargetEntry) -> Result<Self, Self::Error> {
        let secrets = match entry.secret {
            Some(_) if !entry.secrets.is_empty() => {
                return Err("has both secret and secrets: leave one out");
            }
            Some(secret) => vec![secret],
            None => entry.secrets,
        };
        Ok(Self { name: entry.name, url: entry.url, secrets })
    }
}

/// The key bytes of a webhook secret that was checked at load.
pub(super) fn webhook_key(secret: &Secret) -> Vec<u8> {
    form::WebhookSecret::key(secret.expose()).unwrap_or_default()
}

/// Derives the webhook secret of one host from the common one.
pub(super) fn secret_of_host(secret: &Secret, host: &str) -> Secret {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let mac = Hmac::<Sha256>::new_from_slice(&webhook_key(secret));
    let mac = mac.expect("HMAC takes a key of any length").chain_update(host);
    Secret::new(&format!("whsec_{}", STANDARD.encode(mac.finalize().into_bytes())))
}
