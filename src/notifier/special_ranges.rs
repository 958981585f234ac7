//! Which addresses are not of the public internet, as IANA's registries of special-purpose addresses say.
//!
//! `registries/` has the two registries as IANA publishes them (CSV, as of 2026-07-18). To renew them, put the files of the same names from
//! <https://www.iana.org/assignments/iana-ipv4-special-registry/> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry/> in their place; the tests read every row.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

const REGISTRIES: [&str; 2] = [
    include_str!("registries/iana-ipv4-special-registry-1.csv"),
    include_str!("registries/iana-ipv6-special-registry-1.csv"),
];

/// What the registries do not say: the only unicast space that is given to anybody, addresses of groups, and public
/// addresses that a cloud answers inside its machines.
const GLOBAL_UNICAST: &str = "2000::/3";
const BEYOND_THE_REGISTRIES: [&str; 2] = [
    "224.0.0.0/4",
    // Azure's WireServer: metadata, certificates and name service of the machine that asks.
    "168.63.129.16/32",
];

static BLOCKED: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let special = REGISTRIES.into_iter().flat_map(rows).filter(|row| !row.is_global).flat_map(|row| row.blocks);
    special.chain(BEYOND_THE_REGISTRIES.into_iter().map(str::to_owned)).filter_map(|block| block.parse().ok()).collect()
});
static UNICAST: LazyLock<Option<IpNet>> = LazyLock::new(|| GLOBAL_UNICAST.parse().ok());

/// Tells whether an address is not of the public internet, or carries another address inside.
///
/// A block that IANA does not call globally reachable is blocked with every block inside of it.
pub(super) fn is_blocked(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let reachable = match address {
        IpAddr::V4(_) => true,
        // IPv4 inside of IPv6 (SIIT, NAT64, IPv4-compatible), multicast, site-local and what is given to nobody are outside.
        IpAddr::V6(inner) => UNICAST.is_some_and(|net| net.contains(&address)) && !is_isatap(inner),
    };
    !reachable || BLOCKED.iter().any(|net| net.contains(&address))
}

/// Tells whether the lower half of an address is an IPv4 address that a tunnel leads to (RFC 5214 §6.1).
fn is_isatap(address: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = address.segments();
    high & 0xfdff == 0 && low == 0x5efe
}

struct Row {
    blocks: Vec<String>,
    is_global: bool,
}

/// Reads a registry's rows: the address blocks without their footnotes, and whether they are globally reachable.
fn rows(csv: &str) -> Vec<Row> {
    let records = records(csv);
    let records = records.iter().skip(1).filter(|fields| fields.len() > 1);
    let row = |fields: &Vec<String>| Row {
        blocks: fields[0].split(',').filter_map(|block| Some(block.split_whitespace().next()?.to_owned())).collect(),
        is_global: fields.get(8).is_some_and(|reachable| reachable == "True"),
    };
    records.map(row).collect()
}

/// Splits CSV into fields (RFC 4180): quotes hold commas, line breaks and doubled quotes.
fn records(csv: &str) -> Vec<Vec<String>> {
    let mut records = vec![vec![String::new()]];
    let mut quoted = false;
    let mut chars = csv.chars().filter(|c| *c != '\r').peekable();
    while let Some(c) = chars.next() {
        let Some(record) = records.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                push(record, '"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(String::new()),
            '\n' if !quoted => records.push(vec![String::new()]),
            _ => push(record, c),
        }
    }
    records
}

fn push(record: &mut [String], c: char) {
    if let Some(field) = record.last_mut() {
        field.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn is_special(text: &str) -> bool {
        is_blocked(text.parse().unwrap())
    }

    #[test]
    fn every_row_of_the_registries_is_read_and_blocked_unless_it_is_global() {
        for (csv, blocks) in REGISTRIES.into_iter().zip([26, 25]) {
            let rows = rows(csv);
            let lines = csv.lines().filter(|line| !line.starts_with(' ')).count();
            assert_eq!(rows.len() + 1, lines, "a row is lost");
            assert_eq!(rows.iter().map(|row| row.blocks.len()).sum::<usize>(), blocks);
            for row in rows {
                for block in &row.blocks {
                    let net: IpNet = block.parse().unwrap_or_else(|_| panic!("{block} is no block"));
                    assert!(row.is_global || (is_blocked(net.network()) && is_blocked(net.broadcast())), "{block}");
                }
            }
        }
    }

    #[test]
    fn what_the_registries_do_not_say_is_known() {
        for special in
            ["168.63.129.16", "224.0.0.1", "239.255.255.255", "ff02::1", "fec0::1", "4000::1", "::ffff:0:a00:1"]
        {
            assert!(is_special(special), "{special}");
        }
        for public in
            ["168.63.129.15", "168.63.129.17", "93.184.216.34", "2606:2800:220:1::1", "192.31.196.1", "::ffff:1.1.1.1"]
        {
            assert!(!is_special(public), "{public}");
        }
    }

    proptest! {
        /// No address of IPv4 comes through in any form that IPv6 has for it, public or not; mapped is the same address.
        #[test]
        fn an_address_inside_another_is_blocked(octets in any::<[u8; 4]>(), site in 0x2003u16..0x3ff0) {
            let inner = Ipv4Addr::from(octets);
            let [high, low] = [u16::from_be_bytes([octets[0], octets[1]]), u16::from_be_bytes([octets[2], octets[3]])];
            for carried in [
                [0, 0, 0, 0, 0xffff, 0, high, low],
                [0, 0, 0, 0, 0, 0, high, low],
                [0x64, 0xff9b, 0, 0, 0, 0, high, low],
                [0x64, 0xff9b, 1, 0, 0, 0, high, low],
                [0x2002, high, low, 0, 0, 0, 0, 1],
                [0x2001, 0, high, low, 0, 0, 0, 1],
                [0xfe80, 0, 0, 0, 0, 0x5efe, high, low],
                [site, 1, 2, 3, 0, 0x5efe, high, low],
                [site, 1, 2, 3, 0x200, 0x5efe, high, low],
            ] {
                let carried = Ipv6Addr::from(carried);
                prop_assert!(is_blocked(carried.into()), "{carried}");
            }
            prop_assert_eq!(is_blocked(inner.to_ipv6_mapped().into()), is_blocked(inner.into()));
        }
    }
}
