//! An authorization request (RFC 6749 §4.1.1, with PKCE), as a client sends it.

use accord::text::id::{ClientId, ScopeName, TenantId};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

/// The most bytes of `state`.
const MAX_STATE: usize = 4096;
/// Characters of 256 bits in base64url.
const SHA256: usize = 43;

/// The parameters of an authorization request, valid in themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The URI that the response goes to.
    pub redirect_uri: String,
    /// The scopes requested, all different; empty means all of the client's.
    pub scopes: Vec<ScopeName>,
    /// The partner's `state`, percent-encoded, so that any bytes return as they came; may be empty.
    pub state_parameter: String,
    /// PKCE challenge, method S256.
    pub code_challenge: String,
    /// The resource requested; may be empty (RFC 8707).
    pub resource: String,
    /// The thumbprint of the key that the code is bound to (RFC 9449 §10).
    pub dpop_jkt: Option<String>,
}

/// An authorization request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The client.
    pub client_id: ClientId,
    /// What it asks for.
    pub parameters: Parameters,
    /// Whether the client has pushed it (RFC 9126).
    pub pushed: bool,
}

/// Returns the `state` of a query or form as it came (RFC 6749 §4.1.2.1); empty without one, the first if it is repeated.
/// What is percent-encoded stays so, and what a query can't hold gets encoded.
pub fn state_of(encoded: &[u8]) -> String {
    let is_state = |pair: &&[u8]| {
        let mut decoded = form_urlencoded::parse(pair);
        decoded
            .next()
            .is_some_and(|(name, value)| name == "state" && !value.is_empty())
    };
    let pair = encoded.split(|byte| *byte == b'&').find(is_state);
    let mut parts = pair.unwrap_or_default().splitn(2, |byte| *byte == b'=');
    let value = parts.nth(1).unwrap_or_default();
    let mut state = String::with_capacity(value.len());
    for (at, byte) in value.iter().enumerate() {
        let escape = value.get(at + 1..at + 3).unwrap_or_default();
        let is_escape = escape.len() == 2 && escape.iter().all(u8::is_ascii_hexdigit);
        match byte {
            b'%' if is_escape => state.push('%'),
            b'+' | b'-' | b'.' | b'_' => state.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => state.push(char::from(*byte)),
            byte => state.push_str(&format!("%{byte:02X}")),
        }
    }
    state
}

impl Parameters {
    /// Returns the parameters that break a rule of their own, each with the rule. `state` comes first.
    pub fn broken_rules(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let is_key = self.dpop_jkt.as_deref().is_none_or(is_sha256);
        let rules = [
            (is_state(&self.state_parameter), "state", STATE_RULE),
            (is_sha256(&self.code_challenge), "code_challenge", CHALLENGE_RULE),
            (is_key, "dpop_jkt", KEY_RULE),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        broken.map(|(_, name, rule)| (name, rule))
    }
}

const STATE_RULE: &str = "must have at most 4096 bytes";
const CHALLENGE_RULE: &str = "must be a PKCE challenge of method S256: 43 base64url characters";
const KEY_RULE: &str = "must be the thumbprint of a key: 43 base64url characters";

/// Returns whether a percent-encoded `state` is not too long. The empty one can be one.
fn is_state(encoded: &str) -> bool {
    encoded.len() - 2 * encoded.matches('%').count() <= MAX_STATE
}

/// Returns whether a text can be a PKCE challenge of method S256 (RFC 7636 §4.2), or the thumbprint of a key
/// (RFC 7638 §3): a SHA-256 in base64url.
fn is_sha256(text: &str) -> bool {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.len() == SHA256 && text.bytes().all(base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_returns_byte_for_byte() {
        for (query, state) in [
            ("a=b", ""),
            ("state=&state=x", "x"),
            ("a=state&state=x&state=y", "x"),
            ("st%61te=x", "x"),
            ("state=%ff%00%0d%0A%e2%80%ae", "%ff%00%0d%0A%e2%80%ae"),
            ("state=a%20b+c", "a%20b+c"),
            ("state=100%&b", "100%25"),
            ("state=%4", "%254"),
            ("state=a=b?c/~", "a%3Db%3Fc%2F%7E"),
            ("state=für", "f%C3%BCr"),
        ] {
            assert_eq!(state_of(query.as_bytes()), state, "{query}");
        }
        let longest = "%ff".repeat(MAX_STATE);
        assert!(is_state("") && is_state(&longest) && !is_state(&format!("{longest}a")));
    }

    #[test]
    fn a_parameter_that_breaks_a_rule_is_named() {
        let good = Parameters {
            redirect_uri: String::new(),
            scopes: Vec::new(),
            state_parameter: "x".repeat(MAX_STATE),
            code_challenge: "-".repeat(SHA256),
            resource: String::new(),
            dpop_jkt: Some("_".repeat(SHA256)),
        };
        let broken = |parameters: &Parameters| {
            parameters
                .broken_rules()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert!(broken(&good).is_empty());
        let bad = Parameters {
            state_parameter: "x".repeat(MAX_STATE + 1),
            code_challenge: "=".repeat(SHA256),
            dpop_jkt: Some(String::new()),
            ..good
        };
        assert_eq!(broken(&bad), ["state", "code_challenge", "dpop_jkt"]);
    }

    #[test]
    fn a_state_of_bytes_that_are_no_text_returns_too() {
        assert_eq!(state_of(b"a=\xff&state=\xfe\xff"), "%FE%FF");
    }
}
