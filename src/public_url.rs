//! The public URL that the Engine calls back on: fixed by the settings, or asked of ngrok's agent.
//!
//! Asked before every submission, and by readiness. The invariant: an address that the agent no
//! longer names is never handed out, since a result sent there would be lost; so the agent is asked
//! each time, once for all who wait.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use crate::{
    clock::Stopwatch,
    config::{CallbacksConfig, PublicUrlSetting},
    outbound::{self, Outbound},
};

/// The agent is on this machine.
const TIMEOUT: Duration = Duration::from_secs(2);

const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Why there is no public URL; the text says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unknown {
    #[error(
        "no ngrok agent answers at {agent}: run `ngrok http {port}`, or set callbacks.public_url"
    )]
    NoAgent { agent: String, port: u16 },
    #[error(
        "no ngrok tunnel leads to port {port}: run `ngrok http {port}`, or set callbacks.public_url"
    )]
    NoTunnel { port: u16 },
}

impl Unknown {
    /// The port that a tunnel has to lead to.
    pub fn port(&self) -> u16 {
        match self {
            Self::NoAgent { port, .. } | Self::NoTunnel { port } => *port,
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct PublicUrl(Arc<Source>);

enum Source {
    Fixed(Url),
    Ngrok {
        /// The agent's API.
        agent: Url,
        /// Where the callbacks are really listened for.
        port: u16,
        outbound: Outbound,
        /// Held while asking, so that many submissions ask once.
        last: Mutex<Option<(Stopwatch, Result<Url, Unknown>)>>,
    },
}

impl PublicUrl {
    /// `port` is the one that callbacks are really listened for on.
    pub fn new(config: &CallbacksConfig, port: u16, outbound: Outbound) -> Self {
        Self(Arc::new(match &config.public_url {
            PublicUrlSetting::Fixed(url) => Source::Fixed(url.clone()),
            PublicUrlSetting::Ngrok => Source::Ngrok {
                agent: config.ngrok_api.clone(),
                port,
                outbound,
                last: Mutex::new(None),
            },
        }))
    }

    /// The public URL without a slash at its end, or why there is none.
    pub async fn current(&self) -> Result<String, Unknown> {
        let url = match &*self.0 {
            Source::Fixed(url) => url.clone(),
            Source::Ngrok { agent, port, outbound, last } => {
                let arrived = Stopwatch::start();
                let mut last = last.lock().await;
                match &*last {
                    // Asked while this caller waited: as good as asking again.
                    Some((asked, known)) if asked.elapsed() < arrived.elapsed() => known.clone()?,
                    _ => {
                        let asked = Stopwatch::start();
                        let known = ask(agent, *port, outbound).await;
                        *last = Some((asked, known.clone()));
                        known?
                    }
                }
            }
        };
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

#[derive(Deserialize)]
struct Tunnels {
    tunnels: Vec<Tunnel>,
}

#[derive(Clone, Deserialize)]
struct Tunnel {
    public_url: String,
    #[serde(default)]
    config: TunnelConfig,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct TunnelConfig {
    addr: String,
}

async fn ask(agent: &Url, port: u16, outbound: &Outbound) -> Result<Url, Unknown> {
    let no_agent = || Unknown::NoAgent { agent: outbound::redact(agent.as_str()), port };
    let mut url = agent.clone();
    url.set_path("/api/tunnels");
    let request = outbound.configured().get(url).timeout(TIMEOUT);
    let response = request.send().await.map_err(|_| no_agent())?;
    let body = outbound::read_capped(response, MAX_ANSWER_BYTES).await.map_err(|_| no_agent())?;
    let found: Tunnels = serde_json::from_slice(&body).map_err(|_| no_agent())?;
    choose(&found.tunnels, port).ok_or(Unknown::NoTunnel { port })
}

/// The tunnel that leads to our port, https before http.
fn choose(tunnels: &[Tunnel], port: u16) -> Option<Url> {
    let ours = tunnels.iter().filter(|tunnel| leads_to(&tunnel.config.addr, port));
    let urls: Vec<Url> = ours.filter_map(|tunnel| Url::parse(&tunnel.public_url).ok()).collect();
    let of = |scheme: &str| urls.iter().find(|url| url.scheme() == scheme).cloned();
    of("https").or_else(|| of("http"))
}

/// ngrok writes a tunnel's end as `http://localhost:8085`, `localhost:8085` or `8085`.
fn leads_to(address: &str, port: u16) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let (host, digits) = rest.rsplit_once(':').unwrap_or(("localhost", rest));
    let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0" | "");
    is_local && digits.parse() == Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(public_url: &str, addr: &str) -> Tunnel {
        Tunnel { public_url: public_url.into(), config: TunnelConfig { addr: addr.into() } }
    }

    #[test]
    fn the_tunnel_to_our_port_is_chosen_https_first() {
        let tunnels = [
            tunnel("https://other.ngrok.app", "http://localhost:3000"),
            tunnel("http://a.ngrok.app", "http://localhost:8085"),
            tunnel("https://a.ngrok.app", "http://localhost:8085"),
            tunnel("tcp://a.ngrok.app:1", "localhost:8086"),
        ];
        let chosen = |port| choose(&tunnels, port).map(|url| url.to_string());
        assert_eq!(chosen(8085).as_deref(), Some("https://a.ngrok.app/"));
        assert_eq!(chosen(8086), None);
        assert_eq!(chosen(80), None);
    }

    #[test]
    fn every_spelling_of_a_local_end_is_understood() {
        for address in [
            "http://localhost:8085",
            "localhost:8085",
            "8085",
            "http://127.0.0.1:8085",
            "https://[::1]:8085/",
        ] {
            assert!(leads_to(address, 8085), "{address}");
        }
        for address in ["http://localhost:80850", "http://10.0.0.9:8085", "file:///x", ""] {
            assert!(!leads_to(address, 8085), "{address}");
        }
    }
}
