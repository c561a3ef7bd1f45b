//! The rules for base URLs and redirect URIs. The functions return a valid URL unchanged.

use url::{Host, Url};

/// The longest accepted URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;
/// The longest base URL, in bytes. Every access token carries two: in `iss` and in `aud`.
pub const MAX_BASE_URL_BYTES: usize = 256;

const NO_QUERY: &str = "must not have a query";
/// The rule for the scheme of a URL.
const SCHEME_RULE: &str = "must use https (http on loopback hosts only)";

/// Parses a base URL: https, or http on a loopback host. It must be in normal form and have no query.
///
/// # Errors
/// Returns the rule that `value` breaks.
pub fn base_url(value: &str) -> Result<String, &'static str> {
    let url = check_url(value)?;
    // Before the normal form, in which a query follows a slash.
    if url.query().is_some() {
        return Err(NO_QUERY);
    }
    require_normal_form(value, &url)?;
    match value.len() > MAX_BASE_URL_BYTES {
        true => Err("must have at most 256 bytes"),
        false => Ok(value.to_owned()),
    }
}

/// Parses the URL of a server: a base URL without a path. Returns it without a trailing slash.
///
/// # Errors
/// Returns the rules that `text` breaks.
pub fn server_url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    // `base_url` names only the first rule that is broken.
    let url = Url::parse(text).ok();
    let rules = [
        base_url(text).err(),
        url.as_ref().and_then(Url::query).map(|_| NO_QUERY),
        url.filter(|url| !matches!(url.path(), "" | "/"))
            .map(|_| "must not have a path"),
    ];
    let mut broken: Vec<_> = rules.into_iter().flatten().collect();
    broken.dedup();
    match broken.is_empty() {
        true => Ok(text.to_owned()),
        false => Err(broken.join(", ")),
    }
}

/// Parses a redirect URI (RFC 6749 §3.1.2, RFC 9700 §2.1): https, or http on a loopback host. It must be in normal
/// form, because redirect URIs are compared byte for byte and every browser must read the same bytes alike.
///
/// # Errors
/// Returns the rule that `value` breaks.
pub fn redirect_uri(value: &str) -> Result<String, &'static str> {
    let url = check_url(value)?;
    require_normal_form(value, &url)?;
    if value.contains('*') {
        return Err("must not hold a wildcard");
    }
    // The client would get it twice, and might read the wrong one (RFC 6749 §4.1.2, RFC 9207).
    let of_response =
        |name: &str| matches!(name, "code" | "error" | "iss" | "state") || name.starts_with("error_");
    if url.query_pairs().any(|(name, _)| of_response(&name)) {
        return Err("must not hold a parameter of the response, such as code or state");
    }
    Ok(value.to_owned())
}

/// Parses the URL of a partner's key set: https, without user info and fragment.
///
/// # Errors
/// Returns the rule that `value` breaks.
pub fn key_set_url(value: &str) -> Result<String, &'static str> {
    const RULE: &str = "must use https";
    match check_url(value) {
        Ok(url) if url.scheme() == "https" => Ok(value.to_owned()),
        Ok(_) | Err(SCHEME_RULE) => Err(RULE),
        Err(rule) => Err(rule),
    }
}

/// Checks that the text of a URL is its normal form, except for the slash of an empty path.
fn require_normal_form(value: &str, url: &Url) -> Result<(), &'static str> {
    let is_normal = url.as_str() == value || url.as_str() == format!("{value}/");
    is_normal
        .then_some(())
        .ok_or("must be in normal form: lowercase host, no default port, no dot segments")
}

/// Parses a URL by the rules that all of them share.
fn check_url(value: &str) -> Result<Url, &'static str> {
    if value.is_empty() {
        return Err("must not be empty");
    }
    if value.len() > MAX_URL_BYTES {
        return Err("must have at most 2048 bytes");
    }
    if !value.bytes().all(|b| b.is_ascii_graphic()) || value.contains('\\') {
        return Err("must hold only printable ASCII and no backslash");
    }
    let url = Url::parse(value).map_err(|_| "must be an absolute URL")?;
    // The parser drops empty user info, adds missing slashes and decodes the host, so these checks read the text.
    let scheme_end = format!("{}://", url.scheme());
    let authority = value
        .strip_prefix(scheme_end.as_str())
        .ok_or("must begin with https://")?
        .split(['/', '?', '#'])
        .next()
        .unwrap_or_default();
    if authority.contains('@') {
        return Err("must not hold user info");
    }
    if value.contains('#') {
        return Err("must not have a fragment");
    }
    if authority.contains('%') {
        return Err("must not have an encoded host");
    }
    let host = url.host().ok_or("must have a host")?;
    if matches!(host, Host::Domain(name) if name.ends_with('.')) {
        return Err("must not have a host that ends with a dot");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&host) => Ok(url),
        _ => Err(SCHEME_RULE),
    }
}

/// Returns whether a host of a URL is this one.
pub fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_are_returned_byte_for_byte() {
        for good in [
            "https://app.example/callback",
            "https://app.example",
            "https://app.example/",
            "https://app.example:8443/a/b?x=1&y=%20",
            "https://app.example/cb?states=1&Code=2",
            "http://127.0.0.1:9000/callback",
            "http://localhost/cb",
            "http://[::1]:9000/cb",
        ] {
            assert_eq!(redirect_uri(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn invalid_redirect_uris_are_rejected() {
        let long = format!("https://app.example/{}", "a".repeat(2048));
        for bad in [
            "",
            "app.example/callback",
            "/callback",
            "//app.example/callback",
            "http://app.example/callback",
            "ftp://app.example/callback",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp://callback",
            "https:/app.example/cb",
            "https:app.example/cb",
            "https:///app.example/cb",
            "https://",
            "https://app.example/cb#",
            "https://app.example/cb#x",
            "https://app.example/cb?code=1",
            "https://app.example/cb?x=1&state",
            "https://app.example/cb?%69ss=https://other.example",
            "https://app.example/cb?error=",
            "https://*.example/cb",
            "https://app.example/*",
            "https://good.example@evil.example/cb",
            "https://user:pass@app.example/cb",
            "https://@app.example/cb",
            "https://:@app.example/cb",
            "https://app.example./cb",
            "https://APP.example/cb",
            "HTTPS://app.example/cb",
            "https://app.example:443/cb",
            "https://app.example/a/../cb",
            "https://app.example/./cb",
            "https://app.example/%2e%2e/cb",
            "https://app.example\\cb",
            "https://app.example\\@evil.example/cb",
            "https://app%2eexample/cb",
            "https://app.example/c b",
            "https://app.example/cb\n",
            " https://app.example/cb",
            "https://äpp.example/cb",
            "https://app.example/cä",
            "https://app.example:99999/cb",
            "https://app.example/cb?code=1",
            "https://app.example/cb?a=b&st%61te",
            "https://app.example/cb?iss=https%3A%2F%2Fevil.example",
            "https://[::1/cb",
            "http://localhost.evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://0x7f.1/cb",
            "http://2130706433/cb",
            "http://[::ffff:7f00:1]/cb",
            long.as_str(),
        ] {
            assert!(redirect_uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_sets_are_fetched_over_https_alone() {
        for good in [
            "https://partner.example/jwks.json",
            "https://partner.example:8443/keys?v=1",
        ] {
            assert_eq!(key_set_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "http://localhost/jwks.json",
            "http://partner.example/jwks.json",
            "https://user@partner.example/jwks.json",
            "https://partner.example/jwks.json#keys",
            "file:///etc/passwd",
            &format!("https://partner.example/{}", "a".repeat(MAX_URL_BYTES)),
        ] {
            assert!(key_set_url(bad).is_err(), "{bad}");
        }
        assert_eq!(key_set_url("http://partner.example/jwks"), Err("must use https"));
    }

    #[test]
    fn base_urls_have_neither_query_nor_fragment() {
        assert!(base_url("https://api.example/v1").is_ok());
        for bad in [
            "https://api.example/?a=1",
            "http://api.example/",
            "https://api.example/#",
            "https://u@api.example/",
            &format!("https://api.example/{}", "a".repeat(237)),
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        for bad in ["https://api.example?a=1", "https://api.example/?a=1"] {
            assert_eq!(base_url(bad), Err("must not have a query"), "{bad}");
        }
        assert!(base_url(&format!("https://api.example/{}", "a".repeat(236))).is_ok());
    }
}
