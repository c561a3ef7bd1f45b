//! The address of a caller, also behind a gateway.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::{
    rpc::auth::{Authorizer, ConnectionCaller},
    store::audit::CallerAddress,
};

/// The header in which gateways forward the addresses of callers.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection of a request, in its extensions. The listener puts it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// How a listener recognises the gateway in front of it, whose `X-Forwarded-For` counts. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::rpc) struct Gateways {
    /// Knows the workloads of kind gateway by their certificates.
    pub(in crate::rpc) authorizer: Authorizer,
    /// Whether the listener speaks TLS. Without it, it is on loopback.
    pub(in crate::rpc) has_tls: bool,
    /// How many gateways a call passes: the caller's address is the element in this place from the right. At least 1.
    pub(in crate::rpc) trusted_hops: usize,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum PeerKind {
    /// A gateway, by its certificate.
    Gateway,
    /// A process of this host, on a listener without TLS: a gateway if it forwards an address.
    Local,
    /// Anybody else. Whatever it forwards, the call is its own.
    Other,
    /// Unknown: its certificate has expired, or the registry could not be asked whether it is a gateway.
    Unknown,
}

impl PeerKind {
    /// Returns the kind of a peer with a certificate.
    pub(in crate::rpc) fn of(caller: &ConnectionCaller) -> Self {
        match caller.is_gateway() {
            Ok(true) => Self::Gateway,
            Ok(false) => Self::Other,
            Err(_) => Self::Unknown,
        }
    }
}

impl Gateways {
    /// Returns the kind of a peer without a certificate.
    pub(in crate::rpc) fn without_certificate(&self) -> PeerKind {
        match self.has_tls {
            true => PeerKind::Other,
            false => PeerKind::Local,
        }
    }

    /// Returns the address that a call comes from; `None` if that is not known. A gateway's own address is never taken for
    /// that of a caller.
    pub(in crate::rpc) fn address(
        &self,
        kind: PeerKind,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Option<CallerAddress> {
        let is_forwarded = match kind {
            PeerKind::Gateway => true,
            PeerKind::Local => headers.contains_key(X_FORWARDED_FOR),
            PeerKind::Other => false,
            PeerKind::Unknown => return None,
        };
        match is_forwarded {
            true => forwarded_address(headers, self.trusted_hops).map(CallerAddress::Forwarded),
            false => peer.map(CallerAddress::Peer),
        }
    }
}

/// Returns the address that a call is limited by. `found` is the answer of [`Gateways::address`].
///
/// While the registry can't be asked whether the peer is a gateway, the address that it forwards limits its callers, and counts
/// for nothing else.
pub(in crate::rpc) fn limited_address(
    kind: PeerKind,
    found: Option<CallerAddress>,
    headers: &HeaderMap,
    hops: usize,
) -> Option<IpAddr> {
    match kind {
        PeerKind::Unknown => forwarded_address(headers, hops),
        _ => found.and_then(CallerAddress::forwarded),
    }
}

/// Returns the element of `X-Forwarded-For` that the outermost of `hops` gateways wrote: the one in this place from the right.
///
/// Skips empty elements (RFC 9110 §5.6.1). The caller wrote what comes before it; it can be any bytes. Returns `None` for too few
/// elements.
pub(in crate::rpc) fn forwarded_address(headers: &HeaderMap, hops: usize) -> Option<IpAddr> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let elements = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    let mut elements = elements.filter(|element| !element.trim_ascii().is_empty());
    parse(elements.nth(hops.checked_sub(1)?)?)
}

/// Parses an address with or without port, brackets and quotes, as gateways write it.
fn parse(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bare.parse().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
#[path = "../tests/tls/gateways.rs"]
mod gateways;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(X_FORWARDED_FOR, value);
        }
        headers
    }

    fn address(values: &[&str]) -> Option<String> {
        address_of_hops(values, 1)
    }

    fn address_of_hops(values: &[&str], hops: usize) -> Option<String> {
        forwarded_address(&headers(values), hops).map(|address| address.to_string())
    }

    #[test]
    fn hops_are_counted_from_the_right_and_too_few_elements_name_nobody() {
        for values in [
            &["203.0.113.7, 192.0.2.1"][..],
            &["9.9.9.9, 203.0.113.7:51034", "192.0.2.1"],
            &["9.9.9.9", "203.0.113.7", "", "[2001:db8::1]:443"],
        ] {
            assert_eq!(
                address_of_hops(values, 2).as_deref(),
                Some("203.0.113.7"),
                "{values:?}"
            );
        }
        assert_eq!(address_of_hops(&["203.0.113.7"], 2), None);
        assert_eq!(address_of_hops(&["203.0.113.7, unknown, 192.0.2.1"], 2), None);
        assert_eq!(address_of_hops(&[], 1), None);
    }

    #[test]
    fn a_header_counts_on_the_connection_of_a_gateway_alone() {
        use PeerKind::{Gateway, Local, Other, Unknown};

        use crate::{
            rpc::auth::Permissions,
            testing::{NoCallers, test_clock},
        };

        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (caller, peer) = (ip("203.0.113.7"), ip("10.0.0.1"));
        let (forwarded, own) = (
            Some(CallerAddress::Forwarded(caller)),
            Some(CallerAddress::Peer(peer)),
        );
        for (has_tls, kind, values, expected) in [
            (true, Gateway, &["203.0.113.7"][..], forwarded),
            (true, Gateway, &[], None),
            (true, Gateway, &["203.0.113.7, unknown"], None),
            (true, Other, &["203.0.113.7"], own),
            (true, Other, &[], own),
            (true, Unknown, &["203.0.113.7"], None),
            (true, Unknown, &[], None),
            (false, Local, &["203.0.113.7"], forwarded),
            (false, Local, &["203.0.113.7, unknown"], None),
            (false, Local, &[""], None),
            (false, Local, &[], own),
        ] {
            let authorizer = Authorizer::new(
                Permissions::new(&[]),
                std::sync::Arc::new(NoCallers),
                test_clock(),
            );
            let gateways = Gateways {
                authorizer,
                has_tls,
                trusted_hops: 1,
            };
            let address = gateways.address(kind, Some(peer), &headers(values));
            assert_eq!(address, expected, "{kind:?} {values:?}");
            let limited = limited_address(kind, address, &headers(values), 1);
            let is_limited = values == ["203.0.113.7"] && kind != Other;
            assert_eq!(limited, is_limited.then_some(caller), "{kind:?} {values:?}");
            let expected = if has_tls { Other } else { Local };
            assert_eq!(gateways.without_certificate(), expected);
        }
    }

    #[test]
    fn the_gateway_wrote_the_last_forwarded_address() {
        for values in [
            &["203.0.113.7"][..],
            &["9.9.9.9, 203.0.113.7"],
            &["9.9.9.9", "203.0.113.7"],
            &["9.9.9.9,203.0.113.7:51034 "],
            &["\"203.0.113.7:51034\""],
            &["::ffff:203.0.113.7"],
            &["203.0.113.7, ,"],
            &["203.0.113.7", ""],
            // What the caller sent must not hide what the gateway added.
            &["\u{e9}, 203.0.113.7"],
            &["\"9.9.9.9, 203.0.113.7"],
        ] {
            assert_eq!(address(values).as_deref(), Some("203.0.113.7"), "{values:?}");
        }
        for value in [
            "2001:db8::1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
            "\"[2001:db8::1]:443\"",
            "2001:DB8:0::1",
        ] {
            assert_eq!(
                address(&["9.9.9.9", value]).as_deref(),
                Some("2001:db8::1"),
                "{value}"
            );
        }
    }

    #[test]
    fn only_the_last_forwarded_element_counts_even_if_it_is_no_address() {
        for last in [
            "unknown",
            "_hidden",
            "203.0.113.7:",
            "203.0.113.7:x",
            "203.0.113.07",
            "[203.0.113.7",
            "a.example",
            "1",
        ] {
            assert_eq!(address(&["9.9.9.9", last]), None, "{last}");
            assert_eq!(address(&[&format!("9.9.9.9, {last}")]), None, "{last}");
        }
        for values in [&[][..], &[""], &[" , "], &["", ""]] {
            assert_eq!(address(values), None, "{values:?}");
        }
    }
}
