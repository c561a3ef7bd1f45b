//! The address of a caller behind a gateway.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// The other end of the connection of a request, in its extensions. The listener puts it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// Returns the address that a call comes from: the last element of `X-Forwarded-For`, which the gateway in front wrote.
///
/// Skips empty elements (RFC 9110 §5.6.1). The caller wrote what comes before the last element; it can be any bytes.
pub fn forwarded_address(headers: &HeaderMap) -> Option<IpAddr> {
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let mut elements = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    parse(elements.find(|element| !element.trim_ascii().is_empty())?)
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append("x-forwarded-for", value);
        }
        forwarded_address(&headers).map(|address| address.to_string())
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
