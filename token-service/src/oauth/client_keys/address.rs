//! The addresses that keys may be fetched from: without a rule for others, those of the public Internet alone, so that nobody
//! reaches the deployment's own network through a client's URL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use accord::text::network::AllowedNetworks;

/// Networks of IPv4 that are not globally reachable (IANA's registry of special-purpose addresses, RFC 6890), are for
/// multicast, or lead elsewhere: the address of each with the length of its prefix.
const SPECIAL_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];
/// The same of IPv6, within the global unicast addresses `2000::/3`. 6to4 and Teredo hold an address of IPv4.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
/// What a translator to IPv4 puts before the address that it calls (NAT64, RFC 6052 §2.1).
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Returns whether keys may be fetched from this address. `others` are the networks that may be called too; if it is
/// empty, none. For a NAT64 address, the embedded IPv4 address decides, even if `others` holds the prefix.
pub(super) fn is_allowed(address: IpAddr, others: &AllowedNetworks) -> bool {
    let address = match address.to_canonical() {
        IpAddr::V6(address) if address.segments().starts_with(&TRANSLATED) => {
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() as u32))
        }
        address => address,
    };
    is_global(address) || others.contains(address)
}

fn is_global(address: IpAddr) -> bool {
    let holds_v4 = |network: &(Ipv4Addr, u32), address: Ipv4Addr| {
        (network.0.to_bits() ^ address.to_bits()).leading_zeros() >= network.1
    };
    let holds_v6 = |network: &(Ipv6Addr, u32), address: Ipv6Addr| {
        (network.0.to_bits() ^ address.to_bits()).leading_zeros() >= network.1
    };
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| holds_v4(network, address)),
        IpAddr::V6(address) => {
            holds_v6(&GLOBAL_UNICAST, address) && !SPECIAL_V6.iter().any(|network| holds_v6(network, address))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_public_internet_is_global() {
        for text in [
            "1.1.1.1",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2606:4700::1",
            "2001:200::1",
            "2003::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(
                is_allowed(text.parse().unwrap(), &AllowedNetworks::default()),
                "{text}"
            );
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::10.1.2.3",
            "64:ff9b:0:0:0:1:101:101",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(
                !is_allowed(text.parse().unwrap(), &AllowedNetworks::default()),
                "{text}"
            );
        }
    }

    #[test]
    fn other_networks_are_allowed_by_name() {
        let others = AllowedNetworks::parse(&["10.1.0.0/16".to_owned()]).unwrap();
        for (text, is) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("1.1.1.1", true),
            ("64:ff9b::10.1.2.3", true),
            ("64:ff9b::10.2.0.1", false),
        ] {
            assert_eq!(is_allowed(text.parse().unwrap(), &others), is, "{text}");
        }
        let translator = AllowedNetworks::parse(&["64:ff9b::/96".to_owned()]).unwrap();
        assert!(!is_allowed("64:ff9b::10.1.2.3".parse().unwrap(), &translator));
    }
}
