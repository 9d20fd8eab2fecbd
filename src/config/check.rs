//! Checks settings against each other. Called by `load` for combinations that prevent a start, and
//! by the commands, through `Config::warnings`, for those that an operator should know about.
//!
//! Invariant: an API that can be reached from another machine requires a key.

use std::collections::HashSet;
use std::net::SocketAddr;

use toml::Value;

use super::error::ConfigError;
use super::mistake;
use super::value::webhook_key;
use super::{ApiListen, Config, PublicUrlSetting, ReconcileAfter};

/// The minimum that Standard Webhooks sets for a signing secret.
const WEBHOOK_SECRET_BYTES: usize = 24;

/// Refuses combinations that prevent a start.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let keys = config.api.keys.iter().map(|key| key.name.as_str());
    unique_names("api.keys", keys)?;
    let targets = config.relay.targets.iter().map(|target| target.name.as_str());
    unique_names("relay.targets", targets)?;
    unique_keys(config)?;
    enough_memory(config)?;
    mistake::refuse(config)?;
    open_to_this_machine_only(config)
}

fn unique_names<'a>(list: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(ConfigError::invalid(
                &format!("{list}[{index}].name"),
                &Value::String(name.to_owned()),
                "is the name of an earlier one too: give each its own",
            ));
        }
    }
    Ok(())
}

/// With two names for one key it would be unclear which scopes apply.
fn unique_keys(config: &Config) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for (index, key) in config.api.keys.iter().enumerate() {
        if !seen.insert(key.digest) {
            return Err(ConfigError::Mismatch(format!(
                "api.keys[{index}] ({:?}) has the same key as an earlier one: give each its own",
                key.name
            )));
        }
    }
    Ok(())
}

/// A body larger than the memory limit would always be refused.
fn enough_memory(config: &Config) -> Result<(), ConfigError> {
    if config.callbacks.memory >= config.callbacks.max_body {
        return Ok(());
    }
    Err(ConfigError::Mismatch(
        "callbacks.memory is smaller than callbacks.max_body, so the largest callbacks would never \
         be taken: make it at least as large"
            .to_owned(),
    ))
}

/// An open API must listen on this machine only, on a listener that is not reachable from outside.
fn open_to_this_machine_only(config: &Config) -> Result<(), ConfigError> {
    if !config.api.open_on_loopback {
        return Ok(());
    }
    let (listen, danger) = match config.api.listen {
        ApiListen::Same => (
            "same".to_owned(),
            "shares the callbacks listener, which the internet reaches: \
             leave open_on_loopback out, or give the api an address of its own on 127.0.0.1",
        ),
        ApiListen::Address(address) if config.merged() => (
            address.to_string(),
            "is the callbacks listener too, which the internet reaches: \
             leave open_on_loopback out, or give the api another port",
        ),
        ApiListen::Address(address) if !address.ip().to_canonical().is_loopback() => (
            address.to_string(),
            "is reachable from other machines: leave open_on_loopback out, or listen on 127.0.0.1",
        ),
        ApiListen::Address(_) => return Ok(()),
    };
    Err(ConfigError::Mismatch(format!(
        "api.open_on_loopback is true, but api.listen = \"{listen}\" {danger}"
    )))
}

/// The warning about an API that listens on `address`, if other machines can reach it and nothing
/// says that a proxy provides TLS; the service itself speaks plain HTTP.
pub(super) fn plain_listener(config: &Config, address: SocketAddr) -> Option<String> {
    let callbacks_have_tls = match &config.callbacks.public_url {
        PublicUrlSetting::Ngrok => true,
        PublicUrlSetting::Fixed(url) => url.scheme() == "https",
    };
    let has_tls = match &config.api.public_url {
        Some(url) => url.scheme() == "https",
        None => config.merged() && callbacks_have_tls,
    };
    if has_tls || address.ip().to_canonical().is_loopback() {
        return None;
    }
    Some(format!(
        "the api listens on {address}, which other machines reach by plain http: keys and results \
         can be read on their way unless a proxy with TLS stands in front; if one does, \
         api.public_url = \"https://…\" says so"
    ))
}

/// Warnings about combinations that are allowed but may be mistakes; one line each.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |line: String| warnings.push(line);

    if let PublicUrlSetting::Fixed(url) = &config.callbacks.public_url
        && url.scheme() == "http"
    {
        warn(format!(
            "callbacks.public_url = \"{url}\" is plain http: \
             results and callback signatures can be read on their way; use https"
        ));
    }
    let api = &config.api;
    if api.is_open() {
        warn(
            "api.open_on_loopback = true: every user and every program of this machine can submit, \
             read and erase jobs without a key"
                .to_owned(),
        );
    } else if api.open_on_loopback {
        warn(
            "api.open_on_loopback has no effect beside api.keys: a key is asked for; leave one of \
             the two out"
                .to_owned(),
        );
    }
    let listen = match api.listen {
        ApiListen::Same => config.callbacks.listen,
        ApiListen::Address(address) => address,
    };
    if let Some(line) = plain_listener(config, listen) {
        warn(line);
    }
    let auth = &config.engine.auth;
    if auth.token_url.is_some() && (auth.client_id.is_empty() || auth.client_secret.is_none()) {
        warn(
            "engine.auth.client_id or engine.auth.client_secret is empty, so no token can be \
             had and no job submitted: set both, or empty engine.auth.token_url"
                .to_owned(),
        );
    }
    if config.callbacks.memory < config.callbacks.max_body.saturating_mul(2) {
        warn(
            "callbacks.memory is smaller than twice callbacks.max_body, so the largest packed \
             callbacks find no room for being unpacked: make it larger"
                .to_owned(),
        );
    }
    if config.spool.size != 0 && config.spool.size < config.callbacks.max_body as u64 {
        warn(
            "spool.size is smaller than callbacks.max_body, so the largest callbacks \
             find no room in it: make it larger"
                .to_owned(),
        );
    }
    if let ReconcileAfter::Fixed(after) = config.reconcile.after
        && config.reconcile.give_up <= after
    {
        warn(
            "reconcile.give_up is not longer than reconcile.after, so no job is looked up \
             before it is given up: make it longer"
                .to_owned(),
        );
    }
    let relay = &config.relay;
    if relay.secret.is_none() && !relay.allowed_hosts.is_empty() {
        warn(
            "relay.secret is empty, so relays to a job's own finishWebhook go unsigned: \
             set one, so that receivers can tell them from forged ones"
                .to_owned(),
        );
    }
    for (index, target) in relay.targets.iter().enumerate() {
        if target.secrets.is_empty() {
            warn(format!(
                "relay.targets[{index}] ({:?}) has no secret, so its relays go unsigned: set one",
                target.name
            ));
        }
    }
    let secrets = relay.targets.iter().flat_map(|target| &target.secrets);
    if secrets.chain(&relay.secret).any(|secret| webhook_key(secret).len() < WEBHOOK_SECRET_BYTES) {
        warn(format!(
            "a secret under relay has fewer than {WEBHOOK_SECRET_BYTES} bytes and can be guessed: \
             make one with `echo whsec_$(openssl rand -base64 24)`"
        ));
    }
    warnings.extend(mistake::warnings(config));
    warnings
}
