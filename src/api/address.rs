//! Where a request comes from: the peer of its connection, or what proxies that are trusted say.
//!
//! A header says what its sender likes, so `X-Forwarded-For` is read from the right, and only as far as each address that
//! says something is a trusted proxy's.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Request};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The other end of a request's connection; every request of a listener has it as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(IpAddr);

impl Peer {
    /// Marks a request with the other end of its connection.
    pub(super) fn mark<B>(socket: SocketAddr, request: &mut Request<B>) {
        request.extensions_mut().insert(Self(socket.ip().to_canonical()));
    }
}

/// Returns the client's address of a request. IPv4 addresses that are written as IPv6 ones count as what they are.
pub(super) fn client_address(parts: &Parts, trusted: &[IpNet]) -> IpAddr {
    // Only a request that came over no listener has no peer.
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    behind_proxies(peer, &parts.headers, trusted)
}

/// The first address from the right that is no trusted proxy's; the last that is readable where none is.
fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_trusted(&nearest) {
            return nearest;
        }
        // What a trusted proxy passes on unread says nothing of the client, who is then the proxy.
        let Some(address) = std::str::from_utf8(hop).ok().and_then(|hop| written(hop.trim())) else { return nearest };
        nearest = address;
    }
    nearest
}

/// Reads an address, with or without a port.
fn written(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, lines: &[&str], expected: &str) {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let found = behind_proxies(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
    }

    #[test]
    fn a_header_counts_only_as_far_as_proxies_are_trusted() {
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &["198.51.100.7"], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.7"], "198.51.100.7");
        check("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.9.9.9"], "198.51.100.7");
        check("10.0.0.1", &["203.0.113.9", "198.51.100.7", "10.9.9.9"], "198.51.100.7");
        check("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1");
    }

    #[test]
    fn addresses_are_read_in_every_form_and_nothing_else_is() {
        check("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7");
        check("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7");
        check("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7");
        check("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7");
        check("fd00::1", &["198.51.100.7,fd00::2"], "198.51.100.7");
        for torn in ["unknown", "", "198.51.100.7 x", "_hidden", "198.51.100"] {
            check("10.0.0.1", &[torn], "10.0.0.1");
            check("10.0.0.1", &["198.51.100.7", torn, "10.3.3.3"], "10.3.3.3");
        }
    }
}
