//! Networks in CIDR notation (RFC 4632, RFC 4291 §2.3), to which a client or a consent is limited.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::validation::{Violations, list_field};

/// The most networks of a client, and of a consent.
pub const MAX_NETWORKS: usize = 16;

/// The networks that calls may come from; none of them means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedNetworks(Vec<IpNet>);

impl AllowedNetworks {
    /// Parses networks such as `203.0.113.0/24`, `2001:db8::/32` and single addresses. IPv4-mapped IPv6 ones
    /// (`::ffff:203.0.113.0/120`) are those of IPv4.
    ///
    /// # Errors
    /// A violation of `allowed_networks` for each element that is no network, has bits behind its prefix, or lies in
    /// another one; and for more than [`MAX_NETWORKS`].
    pub fn parse(texts: &[String]) -> Result<Self, Violations> {
        let mut v = Violations::default();
        let mut networks: Vec<IpNet> = Vec::new();
        if texts.len() > MAX_NETWORKS {
            let rule = format!("must have at most {MAX_NETWORKS} elements");
            v.add("allowed_networks", rule);
        }
        for (index, text) in texts.iter().take(MAX_NETWORKS).enumerate() {
            let path = list_field("allowed_networks", index);
            let Some(network) = v.check(&path, network(text)) else {
                continue;
            };
            if networks
                .iter()
                .any(|other| other.contains(&network) || network.contains(other))
            {
                v.add(path, "must not overlap another network");
            }
            networks.push(network);
        }
        v.finish(|| Some(Self(networks)))
    }

    /// Returns whether calls may come from this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        self.allow_any() || self.contains(address)
    }

    /// Returns whether one of the networks contains this address. Without any, none does.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns whether calls may come from everywhere.
    pub fn allow_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether every address that these networks allow is allowed by `others`, too.
    pub fn are_within(&self, others: &Self) -> bool {
        let is_within = |network: &IpNet| others.0.iter().any(|other| other.contains(network));
        others.0.is_empty() || (!self.0.is_empty() && self.0.iter().all(is_within))
    }

    /// Returns these networks together with others: those that lie in another one are left out. Without any before, only the
    /// others remain.
    ///
    /// # Errors
    /// A violation of `allowed_networks` for more than [`MAX_NETWORKS`].
    pub fn joined(&self, added: &Self) -> Result<Self, Violations> {
        let lies_in = |network: &IpNet, list: &[IpNet]| list.iter().any(|other| other.contains(network));
        let is_wider = |network: &IpNet| added.0.iter().any(|new| new != network && new.contains(network));
        let old = self.0.iter().filter(|network| !is_wider(network));
        let new = added.0.iter().filter(|network| !lies_in(network, &self.0));
        let all: Vec<_> = old.chain(new).copied().collect();
        let mut v = Violations::default();
        if all.len() > MAX_NETWORKS {
            let rule = format!("must leave at most {MAX_NETWORKS} elements in all");
            v.add("allowed_networks", rule);
        }
        v.finish(|| Some(Self(all)))
    }

    /// Returns whether they contain every address of IPv4 and of IPv6. They still reject a call whose address is unknown, which
    /// passes if they [allow any](Self::allow_any).
    pub fn cover_every_address(&self) -> bool {
        let is_among = |version: fn(&IpNet) -> bool| {
            let mut whole = self.0.iter().filter(|network| network.prefix_len() == 0);
            whole.any(version)
        };
        is_among(|network| matches!(network, IpNet::V4(_)))
            && is_among(|network| matches!(network, IpNet::V6(_)))
    }

    /// Returns the networks as text, which [`parse`](Self::parse) reads.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(IpNet::to_string).collect()
    }
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    const FORM: &str = "must be a network such as 203.0.113.0/24 or 2001:db8::/32";
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| FORM)?),
    };
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => {
            v6.addr().to_ipv4_mapped().map(|v4| (v4, v6.prefix_len() - 96))
        }
        _ => None,
    };
    let network = match mapped {
        Some((address, prefix)) => IpNet::new(address.into(), prefix).map_err(|_| FORM)?,
        None => network,
    };
    if network != network.trunc() {
        return Err("must have no bits behind its prefix");
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(texts: &[&str]) -> Result<AllowedNetworks, String> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        AllowedNetworks::parse(&texts).map_err(|v| {
            v.iter()
                .map(|one| one.field.clone())
                .collect::<Vec<_>>()
                .join(" ")
        })
    }

    fn allow(networks: &AllowedNetworks, address: &str) -> bool {
        networks.allow(address.parse().unwrap())
    }

    #[test]
    fn networks_are_normalised() {
        let texts = [
            "203.0.113.0/24",
            "::ffff:198.51.100.0/120",
            "2001:DB8::/32",
            "192.0.2.1",
            "::ffff:192.0.2.2",
        ];
        let expected = [
            "203.0.113.0/24",
            "198.51.100.0/24",
            "2001:db8::/32",
            "192.0.2.1/32",
            "192.0.2.2/32",
        ];
        assert_eq!(networks(&texts).unwrap().to_texts(), expected);
    }

    #[test]
    fn what_is_no_network_is_rejected() {
        for text in [
            "",
            " 203.0.113.0/24",
            "203.0.113.0/33",
            "203.0.113/24",
            "203.0.113.1/24",
            "::ffff:203.0.113.1/120",
            "2001:db8::1/32",
            "2001:db8::/129",
            "a.example",
            "203.0.113.0-203.0.113.9",
            "203.0.113.0/255.255.255.0",
            "fe80::1%eth0",
        ] {
            assert_eq!(networks(&[text]).unwrap_err(), "allowed_networks[0]", "{text}");
        }
        for overlapping in [
            ["10.0.0.0/8", "10.1.0.0/16"],
            ["10.1.0.0/16", "10.0.0.0/8"],
            ["::/0", "2001:db8::/32"],
        ] {
            assert_eq!(networks(&overlapping).unwrap_err(), "allowed_networks[1]");
        }
        let many: Vec<_> = (0..17).map(|n| format!("10.{n}.0.0/16")).collect();
        assert!(AllowedNetworks::parse(&many[..16]).is_ok());
        assert!(AllowedNetworks::parse(&many).is_err());
    }

    #[test]
    fn an_address_is_compared_in_its_own_family() {
        let some = networks(&["203.0.113.0/24", "2001:db8::/32"]).unwrap();
        for address in [
            "203.0.113.0",
            "203.0.113.255",
            "::ffff:203.0.113.7",
            "2001:db8:1::1",
        ] {
            assert!(allow(&some, address), "{address}");
        }
        for address in [
            "203.0.114.0",
            "::ffff:203.0.114.0",
            "2001:db9::",
            "::203.0.113.7",
            "::1",
        ] {
            assert!(!allow(&some, address), "{address}");
        }
        let all_of_ipv4 = networks(&["0.0.0.0/0"]).unwrap();
        assert!(allow(&all_of_ipv4, "::ffff:1.2.3.4") && !allow(&all_of_ipv4, "2001:db8::1"));
        let none = AllowedNetworks::default();
        assert!(allow(&none, "2001:db8::1") && !none.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn added_networks_take_the_place_of_those_within_them() {
        let joined = |old: &[&str], new: &[&str]| {
            let joined = networks(old).unwrap().joined(&networks(new).unwrap());
            joined.unwrap().to_texts().join(" ")
        };
        assert_eq!(joined(&[], &["10.0.0.0/8"]), "10.0.0.0/8");
        assert_eq!(joined(&["10.0.0.0/8"], &[]), "10.0.0.0/8");
        assert_eq!(
            joined(&["10.1.0.0/16", "192.0.2.1"], &["10.0.0.0/8", "::/0"]),
            "192.0.2.1/32 10.0.0.0/8 ::/0"
        );
        assert_eq!(joined(&["10.0.0.0/8"], &["10.1.0.0/16"]), "10.0.0.0/8");
        assert_eq!(
            joined(&["10.0.0.0/8", "::/0"], &["10.0.0.0/8"]),
            "10.0.0.0/8 ::/0"
        );
        let cover_all = |texts: &[&str]| networks(texts).unwrap().cover_every_address();
        assert!(cover_all(&["0.0.0.0/0", "::/0"]));
        assert!(!cover_all(&["0.0.0.0/0"]) && !cover_all(&["0.0.0.0/1", "::/0"]) && !cover_all(&[]));
        let many: Vec<_> = (0..16).map(|n| format!("10.{n}.0.0/16")).collect();
        let many = AllowedNetworks::parse(&many).unwrap();
        assert!(many.joined(&networks(&["192.0.2.1"]).unwrap()).is_err());
        assert!(many.joined(&networks(&["10.0.0.0/8"]).unwrap()).is_ok());
    }

    #[test]
    fn networks_within_others_narrow_them() {
        let wide = networks(&["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        for (texts, within) in [
            (&["10.1.0.0/16"][..], true),
            (&["10.0.0.0/8", "2001:db8::/32"], true),
            (&["11.0.0.0/8"], false),
            (&["10.1.0.0/16", "192.0.2.0/24"], false),
            (&[], false),
        ] {
            assert_eq!(networks(texts).unwrap().are_within(&wide), within, "{texts:?}");
        }
        assert!(wide.are_within(&AllowedNetworks::default()));
    }
}
