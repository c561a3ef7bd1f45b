//! Whether two URLs name the same endpoint (RFC 3986 §6.2), whatever their query and fragment (RFC 9449 §4.3 number 9).

/// Returns whether two URLs of HTTP are equal after the syntax-based and scheme-based normalisation of RFC 3986 §6.2.2 and
/// §6.2.3: letter case of scheme and host, default port, percent-encoding, dot segments, an empty path. Characters of a path that
/// must be encoded (§3.3), and that some libraries leave as they are, count as encoded. A slash at the end of a path is not ignored.
pub(super) fn is_same(left: &str, right: &str) -> bool {
    left == right || normalized(left).is_some_and(|url| normalized(right) == Some(url))
}

/// Returns the normal form, without query and fragment; `None` if this is no absolute URL of HTTP.
fn normalized(url: &str) -> Option<String> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => "443",
        "http" => "80",
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A colon within brackets belongs to an IPv6 address.
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[after_address..].find(':') {
        Some(at) => (
            &authority[..after_address + at],
            &authority[after_address + at + 1..],
        ),
        None => (authority, ""),
    };
    if host.is_empty() || host.contains('@') || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let host = percent_normalized(host, b":[]!$&'()*+,;=")?.to_ascii_lowercase();
    let path = without_dot_segments(&percent_normalized(path, b":/@!$&'()*+,;=")?);
    match port {
        "" => Some(format!("{scheme}://{host}{path}")),
        port if port == default_port => Some(format!("{scheme}://{host}{path}")),
        port => Some(format!("{scheme}://{host}:{port}{path}")),
    }
}

/// Decodes unreserved characters, and writes other encoded ones with capital letters (RFC 3986 §6.2.2.1, §6.2.2.2). Encodes what
/// is neither unreserved nor one of `delimiters`. Returns `None` for a `%` without two digits.
fn percent_normalized(text: &str, delimiters: &[u8]) -> Option<String> {
    let mut normal = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?].map(|digit| char::from(digit).to_digit(16));
                let [Some(high), Some(low)] = digits else {
                    return None;
                };
                let encoded = u8::try_from(high * 16 + low).ok()?;
                if is_unreserved(encoded) {
                    normal.push(char::from(encoded));
                } else {
                    normal.push_str(&format!("%{encoded:02X}"));
                }
            }
            byte if is_unreserved(byte) || delimiters.contains(&byte) => normal.push(char::from(byte)),
            byte => normal.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(normal)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Resolves the segments `.` and `..` of an absolute or empty path (RFC 3986 §5.2.4).
fn without_dot_segments(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        }
        if !matches!(segment, "." | "..") {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://auth.example/firm/oauth2/token";

    #[test]
    fn equal_urls_have_many_forms() {
        for same in [
            URL,
            "HTTPS://AUTH.Example/firm/oauth2/token",
            "https://auth.example:443/firm/oauth2/token",
            "https://auth.example:/firm/oauth2/token",
            "https://auth.example/firm/oauth2/token?a=b&c",
            "https://auth.example/firm/oauth2/token#top",
            "https://auth.example/firm/oauth2/token?a#b?c",
            "https://auth.example/firm/./oauth2/token",
            "https://auth.example/x/../firm/oauth2/token",
            "https://auth.example/../../firm/oauth2/token",
            "https://auth.example/x/%2E%2e/firm/oauth2/token",
            "https://auth.example/f%69rm/%6fauth2/toke%6E",
            "https://%61uth.example/firm/oauth2/token",
        ] {
            assert!(is_same(same, URL), "{same}");
        }
        for (left, right) in [
            ("https://a.example", "https://a.example/"),
            ("https://a.example/x%2fy%C3%a9", "https://a.example/x%2Fy%c3%A9"),
            ("http://[::1]:80/x", "http://[::1]/x"),
            ("http://[2001:DB8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
            ("https://a.example/x/.", "https://a.example/x/"),
            ("https://a.example/x/y/..", "https://a.example/x/"),
            ("https://a.example/a//../b", "https://a.example/a/b"),
            ("https://a.example/a|b", "https://a.example/a%7cb?c|d"),
            ("https://a.example/a|b?c=d", "https://a.example/a|b"),
            (
                r#"https://a.example/^"<{[`\ é]}>"#,
                "https://a.example/%5E%22%3C%7B%5B%60%5C%20%C3%A9%5D%7D%3E",
            ),
        ] {
            assert!(is_same(left, right), "{left} {right}");
        }
    }

    #[test]
    fn other_urls_differ() {
        for other in [
            "http://auth.example/firm/oauth2/token",
            "http://auth.example:443/firm/oauth2/token",
            "https://auth.example:8443/firm/oauth2/token",
            "https://auth.example:0443/firm/oauth2/token",
            "https://auth.example:44a/firm/oauth2/token",
            "https://auth.example/firm/oauth2/token/",
            "https://auth.example/firm//oauth2/token",
            "https://auth.example/FIRM/oauth2/token",
            "https://auth.example/firm/oauth2/par",
            "https://auth.example/firm%2Foauth2/token",
            "https://auth.example/firm/oauth2/token%3F",
            "https://auth.example/firm/oauth2/token%",
            "https://auth.example/firm/oauth2/token%2",
            "https://auth.example/firm/oauth2/token%+6",
            "https://auth.example/firm/oauth2/token|",
            "https://auth.example\\firm\\oauth2\\token",
            "https://auth.example/firm/oauth2/token ",
            " https://auth.example/firm/oauth2/token",
            "https:/auth.example/firm/oauth2/token",
            "https:///auth.example/firm/oauth2/token",
            "//auth.example/firm/oauth2/token",
            "/firm/oauth2/token",
            "https://user@auth.example/firm/oauth2/token",
            "https://auth.example@evil.example/firm/oauth2/token",
            "https://evil.example/firm/oauth2/token",
            "https://auth.example.evil/firm/oauth2/token",
            "https://auth.example./firm/oauth2/token",
            "https://\u{430}uth.example/firm/oauth2/token",
            "",
        ] {
            assert!(!is_same(other, URL), "{other}");
        }
    }

    proptest! {
        #[test]
        fn encoding_or_case_change_nothing(path in "[a-zA-Z0-9._~-]{1,12}", encode in 0usize..12, port: bool) {
            let url = format!("https://auth.example/t/{path}");
            let changed = path.char_indices().map(|(at, letter)| match at == encode {
                true => format!("%{:02x}", letter as u32),
                false => letter.to_string(),
            });
            let port = if port { ":443" } else { "" };
            let changed = format!("HTTPS://Auth.Example{port}/t/{}?q", changed.collect::<String>());
            prop_assert!(is_same(&changed, &url));
        }

        #[test]
        fn a_normal_form_is_its_own_normal_form(url in "https?://[a-zA-Z0-9.:\\[\\]%@]{0,12}(/[a-zA-Z0-9.%2eE/]{0,12})?") {
            if let Some(normal) = normalized(&url) {
                prop_assert_eq!(normalized(&normal), Some(normal.clone()));
            }
        }
    }
}
