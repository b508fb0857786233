//! Addresses that a name must not lead to.
//!
//! An allowed name whose answer lies in one of these ranges would let whoever controls the name reach services of
//! the host and its neighbourhood (server-side request forgery, DNS rebinding). A row opens a range by naming it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use ipnet::IpNet;

/// Ranges from the IANA special-purpose registries (RFC 6890 and its updates), with what they are for.
static RESERVED: LazyLock<Vec<(IpNet, &'static str)>> = LazyLock::new(|| {
    [
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.169.254/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("::/96", "IPv4-compatible, loopback or unspecified"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "discard"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fd00:ec2::254/128", "cloud metadata"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    ]
    .into_iter()
    .map(|(net, what)| (net.parse().expect("the ranges above are well-formed"), what))
    .collect()
});

/// What an address is reserved for, if it is.
pub(crate) fn reserved(address: IpAddr) -> Option<&'static str> {
    RESERVED.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what)
}

/// Addresses of this host's interfaces in the network namespace of the calling thread.
pub(crate) fn own() -> io::Result<HashSet<IpAddr>> {
    let mut addresses = HashSet::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(storage) = interface.address else { continue };
        if let Some(v4) = storage.as_sockaddr_in() {
            addresses.insert(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = storage.as_sockaddr_in6() {
            addresses.insert(IpAddr::V6(v6.ip()));
        }
    }
    Ok(addresses)
}

/// Checks an address that a name led to. An error says what the address is.
pub(crate) fn check(address: IpAddr, opened: &[IpNet], own: &HashSet<IpAddr>) -> Result<(), String> {
    if opened.iter().any(|net| net.contains(&address)) {
        return Ok(());
    }
    match reserved(address) {
        Some(what) => Err(format!("{address} is a {what} address")),
        None if own.contains(&address) => Err(format!("{address} is an address of this host")),
        None => Ok(()),
    }
}

/// Checks an address that the client dialled itself and that each of these ranges has in it.
///
/// A range that is wholly reserved names what it opens; `0.0.0.0/0` does not open cloud metadata by the way.
pub(crate) fn check_literal(
    address: Ipv4Addr,
    ranges: &[IpNet],
    opened: &[IpNet],
    own: &HashSet<IpAddr>,
) -> Result<(), String> {
    let address = IpAddr::V4(address);
    let names_it = |range: &IpNet| {
        let single = range.prefix_len() == range.max_prefix_len();
        let inside = RESERVED.iter().any(|(net, _)| net.contains(range));
        single || inside && !own.contains(&address)
    };
    if ranges.iter().any(names_it) { Ok(()) } else { check(address, opened, own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_way_to_say_private_is_reserved() {
        for bad in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.7",
            "::1",
            "::",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:0:1::1",
            "fd00:ec2::254",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(reserved(ip(bad)).is_some(), "{bad}");
        }
        for good in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "8.8.8.8", "2606:4700::1", "2a00:1450:4001::1"] {
            assert_eq!(reserved(ip(good)), None, "{good}");
        }
    }

    #[test]
    fn a_row_opens_the_range_it_names_and_no_other() {
        let opened = ["10.0.0.0/8".parse().expect("a range")];
        let none = HashSet::new();
        assert!(check(ip("10.1.2.3"), &opened, &none).is_ok());
        assert!(check(ip("10.1.2.3"), &[], &none).is_err());
        assert!(check(ip("192.168.0.1"), &opened, &none).is_err());
    }

    #[test]
    fn the_hosts_own_public_address_is_refused_unless_named() {
        let own = HashSet::from([ip("9.9.9.9")]);
        assert!(check(ip("9.9.9.9"), &[], &own).is_err());
        assert!(check(ip("9.9.9.9"), &["9.9.9.9/32".parse().expect("a range")], &own).is_ok());
        assert!(check(ip("9.9.9.8"), &[], &own).is_ok());
    }

    #[test]
    fn a_wide_range_does_not_open_reserved_addresses_but_a_reserved_range_does() {
        let own = HashSet::from([ip("10.0.0.7")]);
        let range = |text: &str| [text.parse::<IpNet>().expect("a range")];
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        assert!(check_literal(metadata, &range("0.0.0.0/0"), &[], &own).is_err());
        assert!(check_literal(metadata, &range("169.254.169.254/32"), &[], &own).is_ok());
        assert!(check_literal(Ipv4Addr::new(10, 0, 0, 8), &range("10.0.0.0/8"), &[], &own).is_ok());
        assert!(check_literal(Ipv4Addr::new(10, 0, 0, 7), &range("10.0.0.0/8"), &[], &own).is_err());
        assert!(check_literal(Ipv4Addr::new(10, 0, 0, 7), &range("10.0.0.7/32"), &[], &own).is_ok());
        assert!(check_literal(Ipv4Addr::new(1, 1, 1, 1), &range("1.0.0.0/8"), &[], &own).is_ok());
        let both = [range("0.0.0.0/0"), range("10.0.0.8/32")].concat();
        assert!(check_literal(Ipv4Addr::new(10, 0, 0, 8), &both, &[], &own).is_ok(), "one of them is enough");
        assert!(check_literal(Ipv4Addr::new(10, 0, 0, 8), &[], &[], &own).is_err());
    }
}
