//! Identifies the other end of a connection, and keeps a row for each.
//!
//! Invariant: the number of rows is bounded. Addresses can be forged without end, so the peers that
//! find no row of their own share one.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use axum::extract::ConnectInfo;
use jiff::Timestamp;

/// Most peers with a row of their own.
const MAX_ROWS: usize = 4_096;

/// Minimum milliseconds between two sweeps of a full table, since a sweep checks every row.
const SWEEP_PAUSE_MILLIS: i64 = 1_000;

/// The bits of an IPv6 address that a provider assigns to one customer, who chooses the rest.
const CUSTOMER_BITS: u128 = u128::MAX << 64;

/// The other end of a connection: an IPv4 address, or the /64 of an IPv6 address. Behind a reverse
/// proxy it is the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    /// The peer of a request; requests without a connection (in tests) share one.
    pub(super) fn of(extensions: &axum::http::Extensions) -> Self {
        let connection = extensions.get::<ConnectInfo<SocketAddr>>();
        let address = connection.map(|ConnectInfo(address)| address.ip());
        Self::from(address.unwrap_or(IpAddr::from([0, 0, 0, 0])))
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                std::net::Ipv6Addr::from_bits(address.to_bits() & CUSTOMER_BITS).into()
            }
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(formatter),
            IpAddr::V6(address) => write!(formatter, "{address}/64"),
        }
    }
}

/// The record of a peer.
pub(super) trait Row: Default {
    /// Returns whether forgetting the row would change nothing.
    fn is_stale(&self, now: Timestamp) -> bool;
}

/// A row for each peer, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Peers<R> {
    rows: HashMap<Peer, R>,
    /// The row of all peers that found no row of their own.
    shared: R,
    swept_at: Option<Timestamp>,
}

impl<R: Row> Peers<R> {
    /// The peer's row: a new one if there is room, otherwise the shared one.
    pub(super) fn row(&mut self, peer: Peer, now: Timestamp) -> &mut R {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&peer) {
            self.sweep(now);
            if self.rows.len() >= MAX_ROWS {
                return &mut self.shared;
            }
        }
        self.rows.entry(peer).or_default()
    }

    fn sweep(&mut self, now: Timestamp) {
        let since = self.swept_at.map(|at| now.as_millisecond() - at.as_millisecond());
        if since.is_some_and(|millis| (0..SWEEP_PAUSE_MILLIS).contains(&millis)) {
            return;
        }
        self.swept_at = Some(now);
        self.rows.retain(|_, row| !row.is_stale(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(u32, Option<Timestamp>);

    impl Row for Count {
        fn is_stale(&self, now: Timestamp) -> bool {
            self.1.is_none_or(|at| at < now)
        }
    }

    fn peer(text: &str) -> Peer {
        Peer::from(text.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn a_customer_with_a_network_of_addresses_is_one_peer() {
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.7"), peer("192.0.2.7"));
        assert_ne!(peer("192.0.2.7"), peer("192.0.2.8"));
        assert_eq!(peer("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn made_up_addresses_share_one_row_once_the_table_is_full() {
        let now = Timestamp::UNIX_EPOCH;
        let mut peers = Peers::<Count>::default();
        let known = peer("192.0.2.7");
        peers.row(known, now).1 = Some(now);
        for number in 0..100_000_u128 {
            let address = std::net::Ipv6Addr::from_bits((0x2001 << 112) | (number << 64));
            let row = peers.row(Peer::from(IpAddr::from(address)), now);
            (row.0, row.1) = (row.0 + 1, Some(now));
        }
        assert_eq!(peers.rows.len(), MAX_ROWS);
        assert_eq!(peers.shared.0, 100_000 - (MAX_ROWS as u32 - 1));
        assert!(peers.rows.contains_key(&known), "who was there first keeps their row");
        let later = now + jiff::SignedDuration::from_secs(60);
        peers.row(peer("198.51.100.1"), later);
        assert!(peers.rows.len() < 3, "rows that say nothing any more are given up");
    }
}
