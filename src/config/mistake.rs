//! Settings that are well-formed and probably wrong: an address with a part too many or too few, a
//! pause that is too short to be kept.
//!
//! Called by `check`. Settings that can only be wrong stop the load; those that may be intended are
//! warnings. Each message says what would be right.

use std::collections::HashSet;
use std::time::Duration;

use toml::Value;
use url::{Host, Url};

use super::error::ConfigError;
use super::{Config, PublicUrlSetting};

/// Routes that are added to the Engine's base URL.
const ENGINE_ROUTES: [&str; 2] = ["job", "generic-job"];

/// The pause of the erasure loop between two checks; a shorter setting would have no effect.
const SHORTEST_RETENTION: Duration = Duration::from_secs(30);

/// The same for the loop that looks jobs up.
const SHORTEST_RECONCILE: Duration = Duration::from_secs(5);

/// Refuses settings that can only be wrong.
pub(super) fn refuse(config: &Config) -> Result<(), ConfigError> {
    let engine = &config.engine;
    let last = last_segment(&engine.base_url);
    let is_route = match &engine.job_path {
        None => ENGINE_ROUTES.contains(&last),
        Some(route) => !last.is_empty() && route.trim_matches('/') == last,
    };
    if is_route {
        let right = without_last_segment(&engine.base_url);
        return Err(wrong(
            "engine.base_url",
            engine.base_url.as_str(),
            &format!("ends in the route, which is added to it: write \"{right}\""),
        ));
    }
    let agent = &config.callbacks.ngrok_api;
    if matches!(agent.path().trim_end_matches('/'), "/api" | "/api/tunnels") {
        let right = agent.origin().ascii_serialization();
        return Err(wrong(
            "callbacks.ngrok_api",
            agent.as_str(),
            &format!("ends in a route, which is added to it: write \"{right}\""),
        ));
    }
    too_short("retention.every", config.retention.every, SHORTEST_RETENTION)?;
    too_short("reconcile.every", config.reconcile.every, SHORTEST_RECONCILE)
}

fn too_short(key: &str, pause: Duration, shortest: Duration) -> Result<(), ConfigError> {
    if pause >= shortest {
        return Ok(());
    }
    let shortest = humantime::format_duration(shortest);
    let problem = format!("is too short: {shortest} is the least");
    Err(wrong(key, &humantime::format_duration(pause).to_string(), &problem))
}

fn wrong(key: &str, value: &str, problem: &str) -> ConfigError {
    ConfigError::invalid(key, &Value::String(value.to_owned()), problem)
}

/// Warnings about settings that may be intended; one line each.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let strays = config.stray_variables.iter().map(|stray| stray.warning());
    strays.chain(of_addresses(config)).chain(of_engine(config)).chain(of_relay(config)).collect()
}

fn of_addresses(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let callbacks = &config.callbacks;
    if let PublicUrlSetting::Fixed(url) = &callbacks.public_url {
        if matches!(last_segment(url), "callbacks" | "inbox") {
            let right = without_last_segment(url);
            warnings.push(format!(
                "callbacks.public_url = \"{url}\" ends in /{}, which is added to it: write \
                 \"{right}\", unless a proxy takes that part away",
                last_segment(url)
            ));
        }
        if callbacks.listen.port() == 0 {
            warnings.push(format!(
                "callbacks.listen = \"{}\" is another port after each start, and \
                 callbacks.public_url = \"{url}\" leads to one: name a port",
                callbacks.listen
            ));
        }
        if is_loopback(url) && !is_loopback(&config.engine.base_url) {
            warnings.push(format!(
                "callbacks.public_url = \"{url}\" is this machine's own address, where the Engine \
                 cannot call back: write the address that the internet reaches, or \"ngrok\""
            ));
        }
    }
    if let Some(url) = &config.api.public_url
        && matches!(last_segment(url), "v1" | "docs" | "jobs")
    {
        let right = without_last_segment(url);
        warnings.push(format!(
            "api.public_url = \"{url}\" ends in a route of the service: write \"{right}\", unless \
             a proxy takes that part away"
        ));
    }
    warnings
}

fn of_engine(config: &Config) -> Vec<String> {
    let (engine, mut warnings) = (&config.engine, Vec::new());
    if !is_version(last_segment(&engine.base_url)) {
        warnings.push(format!(
            "engine.base_url = \"{}\" names no version: write it like \
             \"https://eu.virtualpatientengine.com/24.06\"",
            engine.base_url
        ));
    }
    let segments: Vec<_> = engine.base_url.path().trim_matches('/').split('/').collect();
    if let [.., before, last] = segments.as_slice()
        && before == last
        && is_version(last)
    {
        warnings.push(format!(
            "engine.base_url = \"{}\" names its version twice: write \"{}\"",
            engine.base_url,
            without_last_segment(&engine.base_url)
        ));
    }
    let auth = &engine.auth;
    let named = [
        ("engine.base_url", Some(&engine.base_url)),
        ("engine.auth.token_url", auth.token_url.as_ref()),
    ];
    for (key, url) in named {
        if let Some(url) = url
            && url.scheme() == "http"
            && !is_loopback(url)
        {
            let origin = url.origin().ascii_serialization();
            warnings.push(format!(
                "{key} is plain http ({origin}): the credentials of the Engine can be read on \
                 their way; use https"
            ));
        }
    }
    match &auth.token_url {
        Some(url) if url.path() == "/" => warnings.push(format!(
            "engine.auth.token_url = \"{}\" has no path: issuers give tokens at an address like \
             \"https://issuer.example.com/oauth/token\"",
            url.origin().ascii_serialization()
        )),
        None if !auth.client_id.is_empty() || auth.client_secret.is_some() => warnings.push(
            "engine.auth.token_url is empty, so engine.auth.client_id and \
             engine.auth.client_secret have no effect: set it, or leave them out"
                .to_owned(),
        ),
        _ => {}
    }
    warnings
}

fn of_relay(config: &Config) -> Vec<String> {
    let (relay, mut warnings) = (&config.relay, Vec::new());
    let has_targets = !relay.targets.is_empty() || !relay.allowed_hosts.is_empty();
    if relay.schedule.is_empty() && has_targets {
        warnings.push(
            "relay.schedule is empty, so a result that is not taken at once is not sent again: \
             name the waits before further tries"
                .to_owned(),
        );
    }
    let mut seen = HashSet::new();
    for (index, target) in relay.targets.iter().enumerate() {
        if !seen.insert(&target.url) {
            warnings.push(format!(
                "relay.targets[{index}] ({:?}) has the address of an earlier one, which then gets \
                 each result twice: leave one out",
                target.name
            ));
        }
    }
    warnings
}

fn last_segment(url: &Url) -> &str {
    url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn without_last_segment(url: &Url) -> String {
    let mut url = url.clone();
    let path = url.path().trim_end_matches('/');
    let kept = path.rsplit_once('/').map_or("", |(kept, _)| kept).to_owned();
    url.set_path(&kept);
    url.as_str().trim_end_matches('/').to_owned()
}

/// `24.06`, `v2`, `v1.5`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix('v').unwrap_or(segment);
    number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && (segment.starts_with('v') || number.contains('.'))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}
