//! Authorization codes. A code is redeemed once, by its client, with the verifier of its authorization request.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId},
        opaque::sha256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use super::grant::Grant;

/// A code as it is stored.
#[derive(Clone, Debug)]
pub struct Code {
    /// SHA-256 of the code.
    pub digest: [u8; 32],
    /// The tenant.
    pub tenant_id: TenantId,
    /// The grant that its redemption activates.
    pub grant_id: GrantId,
    /// The client.
    pub client_id: ClientId,
    /// The redirect URI of the authorization request.
    pub redirect_uri: String,
    /// The PKCE challenge, method S256.
    pub code_challenge: String,
    /// The thumbprint of the key that it is bound to (RFC 9449 §10).
    pub dpop_jkt: Option<String>,
    /// When it expires; once it is redeemed, the end of its family.
    pub expires_at: UnixMillis,
    /// When its client first presented it.
    pub used_at: Option<UnixMillis>,
    /// The refresh family of its redemption.
    pub family_id: Option<FamilyId>,
}

impl Code {
    /// Returns whether redirect URI and verifier are those of the code's request, and the code has not expired
    /// (RFC 6749 §4.1.3, RFC 7636 §4.6).
    pub fn accepts(&self, redirect_uri: &str, code_verifier: &str, now: UnixMillis) -> bool {
        let challenge = URL_SAFE_NO_PAD.encode(sha256(code_verifier.as_bytes()));
        let verified: bool = challenge.as_bytes().ct_eq(self.code_challenge.as_bytes()).into();
        verified && is_verifier(code_verifier) && self.redirect_uri == redirect_uri && now < self.expires_at
    }

    /// Returns whether the code was used. The family of its grant says so too, if somebody has put back the code from before.
    pub fn is_used(&self, grant: &Grant) -> bool {
        self.used_at.is_some() || (self.family_id.is_none() && grant.family_id.is_some())
    }

    /// Compares the key of a call's DPoP proof with the one that the code is bound to (RFC 9449 §10).
    pub fn match_key(&self, proven: Option<&str>) -> KeyMatch {
        match (self.dpop_jkt.as_deref(), proven) {
            (None, _) => KeyMatch::Accepted,
            (Some(_), None) => KeyMatch::Missing,
            (Some(bound), Some(proven)) if bound == proven => KeyMatch::Accepted,
            (Some(_), Some(_)) => KeyMatch::Other,
        }
    }
}

/// How a code's key and that of a call's proof relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMatch {
    /// The code is bound to no key, or to that of the proof.
    Accepted,
    /// The code is bound to a key, and the call has no proof.
    Missing,
    /// The code is bound to another key.
    Other,
}

/// Returns whether a text can be a verifier: 43 to 128 unreserved characters (RFC 7636 §4.1).
fn is_verifier(text: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (43..=128).contains(&text.len()) && text.bytes().all(unreserved)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use accord::testing::{TEST_START, test_clock, test_random};

    use super::*;

    const URI: &str = "https://app.example/cb";

    fn code(verifier: &str) -> Code {
        let (clock, random) = (test_clock(), test_random());
        Code {
            digest: [0; 32],
            tenant_id: TenantId::parse("firm").unwrap_or_else(|_| unreachable!()),
            grant_id: GrantId::generate(&*clock, &*random),
            client_id: ClientId::generate(&*clock, &*random),
            redirect_uri: URI.into(),
            code_challenge: URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())),
            dpop_jkt: None,
            expires_at: TEST_START.plus(Duration::from_secs(60)),
            used_at: None,
            family_id: None,
        }
    }

    #[test]
    fn rejects_another_verifier_another_uri_and_an_expired_code() {
        let verifier = "v".repeat(43);
        let code = code(&verifier);
        assert!(code.accepts(URI, &verifier, TEST_START));
        assert!(!code.accepts(URI, &"w".repeat(43), TEST_START));
        assert!(!code.accepts("https://app.example/cb/", &verifier, TEST_START));
        assert!(!code.accepts(URI, &verifier, TEST_START.plus(Duration::from_secs(60))));
    }

    #[test]
    fn a_bound_code_needs_a_proof_of_its_key() {
        let free = code("v");
        let bound = Code {
            dpop_jkt: Some("one".into()),
            ..free.clone()
        };
        assert_eq!(free.match_key(None), KeyMatch::Accepted);
        assert_eq!(free.match_key(Some("one")), KeyMatch::Accepted);
        assert_eq!(bound.match_key(Some("one")), KeyMatch::Accepted);
        assert_eq!(bound.match_key(Some("two")), KeyMatch::Other);
        assert_eq!(bound.match_key(None), KeyMatch::Missing);
    }

    #[test]
    fn rejects_a_malformed_verifier_even_if_its_hash_matches() {
        for bad in [
            "",
            &"v".repeat(42),
            &"v".repeat(129),
            &format!("{}+", "v".repeat(43)),
        ] {
            assert!(!code(bad).accepts(URI, bad, TEST_START), "{bad}");
        }
        // The example of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let known = Code {
            code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".into(),
            ..code(verifier)
        };
        assert!(known.accepts(URI, verifier, TEST_START));
    }
}
