//! Which hosts a foreign URL may name: the addresses and names that lead into the operator's own
//! machine or network, in every disguise.
//!
//! Called by the guard in `outbound`, for literal addresses and for each address that a name
//! resolves to. Invariant: an address counts as public only if no route known to this module ends
//! at a machine that the internet cannot reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of IPv4 addresses: its first address and its prefix length in bits (1 to 32).
type BlockV4 = (Ipv4Addr, u32);

/// A block of IPv6 addresses: its first address and its prefix length in bits (1 to 128).
type BlockV6 = (Ipv6Addr, u32);

/// All addresses that the IANA registry of special-purpose addresses keeps off the internet, and
/// the public addresses that clouds serve internally.
const FORBIDDEN_V4: [BlockV4; 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8), // this host; Linux connects 0.0.0.0 to loopback
    (Ipv4Addr::new(10, 0, 0, 0), 8), // private
    (Ipv4Addr::new(100, 64, 0, 0), 10), // carrier NAT; Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8), // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform endpoint, public in form only
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local; metadata of most clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12), // private
    (Ipv4Addr::new(192, 0, 0, 0), 24), // protocol assignments; Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24), // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24), // 6to4 relays, withdrawn
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private
    (Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4), // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4), // reserved; broadcast
];

/// The only IPv6 block in use for hosts on the internet. Outside it are loopback, unspecified,
/// IPv4-compatible and IPv4-translated addresses, 64:ff9b:1::/48, unique-local, link-local,
/// site-local and multicast.
const GLOBAL_UNICAST: BlockV6 = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// The special blocks inside [`GLOBAL_UNICAST`]. 6to4 and Teredo carry an IPv4 address and are
/// withdrawn or dying: they are refused entirely, because no web server uses them.
const FORBIDDEN_V6: [BlockV6; 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments; Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Blocks whose last 32 bits are the IPv4 address that is really reached. They are allowed for
/// public ones: a host with only IPv6 reaches every IPv4 server through NAT64.
const STANDS_FOR_V4: [BlockV6; 2] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), // IPv4-mapped
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), // NAT64
];

/// The fifth segment of an ISATAP address (without the bit that marks it as unique or not) and the
/// sixth; an IPv4 address follows.
const ISATAP_SEGMENTS: (u16, u16) = (0, 0x5efe);
const ISATAP_UNIQUE_BIT: u16 = 0x0200;

/// Whether `address` is on the public internet, including the IPv4 address that some forms carry.
/// NAT64 prefixes that a network chose itself cannot be known here.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether `name` always means this machine (RFC 6761). `name` is lower case and without trailing
/// dots.
pub(super) fn is_local_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !FORBIDDEN_V4
        .iter()
        .any(|(first, bits)| (address.to_bits() ^ first.to_bits()) >> (32 - bits) == 0)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within =
        |(first, bits): &BlockV6| (address.to_bits() ^ first.to_bits()) >> (128 - bits) == 0;
    if STANDS_FOR_V4.iter().any(within) {
        return is_public_v4(last_v4(address));
    }
    within(&GLOBAL_UNICAST)
        && !FORBIDDEN_V6.iter().any(within)
        && (!is_isatap(address) || is_public_v4(last_v4(address)))
}

fn is_isatap(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    (segments[4] & !ISATAP_UNIQUE_BIT, segments[5]) == ISATAP_SEGMENTS
}

/// The IPv4 address in the last 32 bits.
fn last_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}
