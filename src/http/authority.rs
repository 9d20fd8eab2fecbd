//! Parses a host with its port, and a page's origin, as strictly as browsers write them.
//!
//! Used by `origin`, whose tests list the spellings. Invariant: a spelling that some parsers take
//! for this machine and others do not (`127.1`, `localhost.`, `user@localhost`) is not a valid host
//! here.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest host name, and longest label in it.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Digits of a port.
const MAX_PORT_DIGITS: usize = 5;

/// Returns whether a host and port name this machine; the port does not matter.
pub(super) fn is_loopback(authority: &str) -> bool {
    Authority::parse(authority).is_some_and(|authority| match authority.host {
        Host::Name(name) => name == "localhost",
        Host::V4(address) => address.is_loopback(),
        Host::V6(address) => address.is_loopback(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Host {
    /// In lower case.
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

/// A host and perhaps a port, as browsers write them: no user, no white space, no empty port.
pub(super) struct Authority {
    host: Host,
    port: Option<u16>,
}

impl Authority {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Host::V6(address.parse().ok()?), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (Host::parse(&text[..end])?, &text[end..])
            }
        };
        let port = match port {
            "" => None,
            port => Some(parse_port(port.strip_prefix(':')?)?),
        };
        Some(Self { host, port })
    }
}

impl Host {
    /// A name or a dotted quad. Numbers that some resolvers accept as an address are refused.
    fn parse(text: &str) -> Option<Self> {
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.starts_with(|first: char| first.is_ascii_digit()) {
            return text.parse().ok().map(Self::V4);
        }
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label =
            |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_sign);
        let is_name = text.len() <= MAX_NAME && text.split('.').all(is_label);
        is_name.then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_plain = (1..=MAX_PORT_DIGITS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

/// A page's origin, as browsers write it: no path, no slash at its end.
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    authority: Authority,
}

impl Origin {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Self { scheme, authority: Authority::parse(authority)? })
    }

    /// Returns whether requests of its pages to themselves carry this `Host`.
    pub(super) fn is_of(&self, host: &Authority) -> bool {
        let port = |authority: &Authority| authority.port.unwrap_or(self.scheme.port());
        self.authority.host == host.host && port(&self.authority) == port(host)
    }
}
