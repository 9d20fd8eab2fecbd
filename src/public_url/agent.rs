//! The API of ngrok's agent: the tunnels it lists, and how it can fail.
//!
//! Invariant: an agent that answers is never reported as absent; the reason names its answer, in
//! our own words.

use std::time::Duration;

use reqwest::{Response, header::CONTENT_TYPE};
use serde_json::Value;
use url::{Host, Url};

use super::tunnel::Tunnel;
use crate::outbound::{self, Outbound, Trouble};

/// The agent is on this machine or next to it.
const TIMEOUT: Duration = Duration::from_secs(2);

const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The reason why there is no public URL; the text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unknown {
    #[error(
        "no ngrok agent answers at {agent} ({trouble}): run `ngrok http {port}`, or set \
         callbacks.public_url"
    )]
    NoAgent { agent: String, port: u16, trouble: Trouble },
    #[error(
        "what answers at {agent} is no ngrok agent, it answers {said}: let callbacks.ngrok_api \
         lead to the agent of `ngrok http {port}`, or set callbacks.public_url"
    )]
    NotAnAgent { agent: String, port: u16, said: String },
    #[error(
        "no ngrok tunnel leads to port {port} ({seen}): run `ngrok http {port}`, or set \
         callbacks.public_url"
    )]
    NoTunnel {
        port: u16,
        /// The tunnels that the agent lists, and why each does not fit.
        seen: String,
    },
}

impl Unknown {
    /// The port that a tunnel must lead to.
    pub fn port(&self) -> u16 {
        match self {
            Self::NoAgent { port, .. }
            | Self::NotAnAgent { port, .. }
            | Self::NoTunnel { port, .. } => *port,
        }
    }
}

pub(super) struct Agent {
    /// The URL of its API.
    pub url: Url,
    /// The actual port of the callbacks listener.
    pub port: u16,
    pub outbound: Outbound,
}

impl Agent {
    /// Whether "localhost" means this machine to the agent.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => false,
        }
    }

    /// The tunnels that it lists.
    ///
    /// # Errors
    /// There is no agent, or the answer is not an agent's.
    pub(super) async fn tunnels(&self) -> Result<Vec<Tunnel>, Unknown> {
        let agent = || outbound::redact(self.url.as_str());
        let mut url = self.url.clone();
        url.set_path("/api/tunnels");
        let request = self.outbound.configured().get(url).timeout(TIMEOUT);
        let not_an_agent = |said| Unknown::NotAnAgent { agent: agent(), port: self.port, said };
        let response = request.send().await.map_err(|error| {
            match Trouble::of(&error, &self.outbound, TIMEOUT) {
                Trouble::Lost => not_an_agent("what is not HTTP, or nothing at all".into()),
                trouble @ Trouble::Tls(_) => not_an_agent(trouble.to_string()),
                trouble => Unknown::NoAgent { agent: agent(), port: self.port, trouble },
            }
        })?;
        read(response).await.map_err(not_an_agent)
    }
}

/// The tunnels in an answer, or a description of what it is instead.
async fn read(response: Response) -> Result<Vec<Tunnel>, String> {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_html = kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("html"));
    let code = status.as_u16();
    if status.is_redirection() {
        return Err(format!("a redirect (status {code})"));
    }
    let body = outbound::read_capped(response, MAX_ANSWER_BYTES).await;
    let Ok(body) = body else {
        return Err(format!("more than 1 MiB, or less than it announced (status {code})"));
    };
    let text = body.trim_ascii();
    if is_html || text.starts_with(b"<") {
        return Err(format!("a web page (HTML, status {code})"));
    }
    if !status.is_success() {
        return Err(format!("status {code}"));
    }
    if text.is_empty() {
        return Err(format!("an empty body (status {code})"));
    }
    let Ok(answer) = serde_json::from_slice::<Value>(text) else {
        return Err(format!("what is not JSON (status {code})"));
    };
    match &answer["tunnels"] {
        Value::Array(tunnels) => Ok(tunnels.iter().map(Tunnel::of).collect()),
        _ => Err(format!("JSON without a list of tunnels (status {code})")),
    }
}
