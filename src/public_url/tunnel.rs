//! ngrok's tunnels: which may be ours, and why the others are not.
//!
//! Invariant: the description of a tunnel is short and has no character that controls a terminal.

use std::fmt;

use serde_json::Value;
use url::{Host, Url};

use crate::{outbound, printable};

/// The most tunnels that are tried, and that are named if none fits.
const MAX_CANDIDATES: usize = 8;
const MAX_NAMED: usize = 5;

/// Characters of an address that are shown.
const MAX_SHOWN: usize = 80;

/// A tunnel as the agent lists it; missing texts are empty.
pub(super) struct Tunnel {
    public_url: String,
    /// The end of the tunnel: `http://localhost:8085`, `localhost:8085` or `8085`.
    upstream: String,
}

impl Tunnel {
    pub(super) fn of(json: &Value) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        Self { public_url: text(&json["public_url"]), upstream: text(&json["config"]["addr"]) }
    }
}

/// A tunnel that leads to our port on some machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub url: Url,
    /// The end as the agent writes it.
    upstream: String,
    /// Whether the agent says that it ends at this machine.
    pub ends_here: bool,
}

/// The tunnels that an agent lists: those that may be ours, https first, and why the others are
/// not.
pub(super) struct Seen {
    pub candidates: Vec<Candidate>,
    reasons: Vec<String>,
}

impl Seen {
    pub(super) fn of(tunnels: &[Tunnel], port: u16, is_agent_here: bool) -> Self {
        let mut seen = Self { candidates: Vec::new(), reasons: Vec::new() };
        for tunnel in tunnels {
            match candidate(tunnel, port, is_agent_here) {
                Ok(candidate) if !seen.candidates.contains(&candidate) => {
                    seen.candidates.push(candidate);
                }
                Ok(_) => {}
                Err(reason) => seen.reasons.push(format!("{} {reason}", named(&tunnel.public_url))),
            }
        }
        seen.candidates.sort_by_key(|one| (one.url.scheme() != "https", !one.ends_here));
        seen.candidates.truncate(MAX_CANDIDATES);
        seen
    }

    /// Moves a candidate to those that do not fit.
    pub(super) fn refuse(&mut self, candidate: &Candidate, reason: &str) {
        let (url, end) = (named(candidate.url.as_str()), short(&candidate.upstream));
        let reason = printable::line(reason);
        let text = format!("{url} leads to {end}, but does not arrive here: {reason}");
        self.reasons.insert(0, text);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return write!(out, "the agent names none");
        }
        let named = self.reasons.iter().take(MAX_NAMED).map(String::as_str);
        write!(out, "{}", named.collect::<Vec<_>>().join("; "))?;
        match self.reasons.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(out, "; and {more} more"),
        }
    }
}

/// The tunnel if it may be ours, else the reason why it cannot be.
fn candidate(tunnel: &Tunnel, port: u16, is_agent_here: bool) -> Result<Candidate, String> {
    let url = Url::parse(&tunnel.public_url).map_err(|_| "has no public URL".to_owned())?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("is a {} endpoint, and callbacks come by http", short(url.scheme())));
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    if host == "internal" || host.ends_with(".internal") {
        return Err("is internal to ngrok, where no Engine reaches it".to_owned());
    }
    let upstream = &tunnel.upstream;
    let unclear = || format!("leads to {}, which is no http address", short(upstream));
    let end = end(upstream).ok_or_else(unclear)?;
    if end.port != port {
        return Err(format!("leads to port {} of {}", end.port, short(&end.host)));
    }
    Ok(Candidate {
        url,
        upstream: upstream.clone(),
        ends_here: is_agent_here && is_this_machine(&end.host),
    })
}

/// The end of a tunnel.
struct End {
    /// As written by [`Url`]: names in lower case, IPv6 in brackets.
    host: String,
    port: u16,
}

/// Parses a tunnel's end as ngrok does; a port alone means this machine.
fn end(upstream: &str) -> Option<End> {
    if let Ok(port) = upstream.parse() {
        return Some(End { host: "localhost".into(), port });
    }
    let url = match upstream.contains("://") {
        true => upstream.to_owned(),
        // ":8085" means this machine too.
        false if upstream.starts_with(':') => format!("http://localhost{upstream}"),
        false => format!("http://{upstream}"),
    };
    let url = Url::parse(&url).ok()?;
    let is_http = matches!(url.scheme(), "http" | "https");
    let host = url.host_str().filter(|_| is_http)?;
    Some(End { host: host.to_owned(), port: url.port_or_known_default()? })
}

fn is_this_machine(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || name == "localhost."
        }
        Ok(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Ok(Host::Ipv6(address)) => {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        }
        Err(_) => false,
    }
}

/// A public URL for messages: without user, password and query, which may hold a secret.
fn named(url: &str) -> String {
    match url.is_empty() {
        true => "one without a public URL".to_owned(),
        false => short(&outbound::redact(url)),
    }
}

fn short(text: &str) -> String {
    let mut start: String = text.chars().take(MAX_SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    printable::line(&start).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tunnel(public_url: &str, addr: &str) -> Tunnel {
        Tunnel::of(&json!({ "public_url": public_url, "config": { "addr": addr } }))
    }

    fn of(addr: &str) -> Result<Candidate, String> {
        candidate(&tunnel("https://a.ngrok.app", addr), 8085, true)
    }

    #[test]
    fn every_spelling_of_our_port_at_this_machine_is_understood() {
        for upstream in [
            "http://localhost:8085",
            "http://localhost:8085/",
            "localhost:8085",
            "LOCALHOST:8085",
            "8085",
            ":8085",
            "http://127.0.0.1:8085",
            "127.0.0.2:8085",
            "https://[::1]:8085/",
            "[::1]:8085",
            "0.0.0.0:8085",
            "[::]:8085",
            "[::ffff:127.0.0.1]:8085",
        ] {
            assert!(of(upstream).is_ok_and(|one| one.ends_here), "{upstream}");
            let far = candidate(&tunnel("https://a.ngrok.app", upstream), 8085, false);
            assert!(far.is_ok_and(|one| !one.ends_here), "the agent's own {upstream}");
        }
    }

    #[test]
    fn our_port_at_another_name_is_a_candidate_that_is_to_be_proved() {
        for upstream in [
            "http://host.docker.internal:8085",
            "host.docker.internal:8085",
            "finishline:8085",
            "172.17.0.2:8085",
            "http://10.0.0.9:8085",
            "[fd00::2]:8085",
        ] {
            assert!(of(upstream).is_ok_and(|one| !one.ends_here), "{upstream}");
        }
        let default = candidate(&tunnel("https://a.ngrok.app", "http://finishline"), 80, true);
        assert!(default.is_ok(), "http has a port of its own");
    }

    #[test]
    fn what_cannot_be_ours_is_none_and_says_why() {
        for (url, upstream, reason) in [
            ("https://a.ngrok.app", "http://localhost:80850", "no http address"),
            ("https://a.ngrok.app", "http://localhost:3000", "port 3000"),
            ("https://a.ngrok.app", "8086", "port 8086"),
            ("https://a.ngrok.app", "file:///x", "no http address"),
            ("https://a.ngrok.app", "tcp://localhost:8085", "no http address"),
            ("https://a.ngrok.app", "", "no http address"),
            ("https://a.internal", "localhost:8085", "internal to ngrok"),
            ("https://A.Internal.", "localhost:8085", "internal to ngrok"),
            ("http://x.y.internal:80", "localhost:8085", "internal to ngrok"),
            ("tcp://1.tcp.ngrok.io:12345", "localhost:8085", "tcp endpoint"),
            ("tls://a.ngrok.app", "localhost:8085", "tls endpoint"),
            ("", "localhost:8085", "no public URL"),
            ("nonsense", "localhost:8085", "no public URL"),
        ] {
            let refused = candidate(&tunnel(url, upstream), 8085, true);
            let refused = refused.expect_err(url);
            assert!(refused.contains(reason), "{url} to {upstream}: {refused}");
        }
    }

    #[test]
    fn https_comes_first_and_what_ends_here_before_the_rest() {
        let tunnels = [
            tunnel("http://near.ngrok.app", "8085"),
            tunnel("https://far.ngrok.app", "finishline:8085"),
            tunnel("https://near.ngrok.app", "8085"),
            tunnel("https://near.ngrok.app", "8085"),
        ];
        let seen = Seen::of(&tunnels, 8085, true);
        let urls: Vec<&str> = seen.candidates.iter().map(|one| one.url.as_str()).collect();
        let expected =
            ["https://near.ngrok.app/", "https://far.ngrok.app/", "http://near.ngrok.app/"];
        assert_eq!(urls, expected);
    }

    #[test]
    fn however_much_an_agent_says_the_sentence_is_short_and_plain() {
        let long = format!("https://{}.ngrok.app", "x".repeat(60));
        let upstream = format!("\u{1b}[31mhttp://{}\n:1", "y".repeat(10_000));
        let tunnels: Vec<Tunnel> = (0..1_000).map(|_| tunnel(&long, &upstream)).collect();
        let text = Seen::of(&tunnels, 8085, true).to_string();
        assert!(text.len() < 1_500 && text.ends_with("and 995 more"), "{text}");
        assert!(!text.chars().any(char::is_control), "{text}");
        assert_eq!(Seen::of(&[], 8085, true).to_string(), "the agent names none");
        let odd = Tunnel::of(&json!(null));
        assert!(Seen::of(&[odd], 8085, true).to_string().contains("without a public URL"));
    }
}
