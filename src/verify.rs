//! Offline verification of access tokens (RFC 9068 §4): signature, type, issuer, audience, tenant and
//! time. Whether a token was revoked is not decided here.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};

/// The `typ` header of access tokens (RFC 9068 §2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The longest access token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The claims of an access token (RFC 9068 §2.2, and Accord's own).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The Tenant Authority URL.
    pub iss: String,
    /// The tenant's Cloud API URL.
    pub aud: String,
    /// The id of the user that the call runs as: the designated user, for client credentials too.
    pub sub: String,
    /// The client.
    pub client_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// The grant.
    pub grant_id: String,
    /// The refresh family; absent with client credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_id: Option<String>,
    /// The scopes, separated by spaces (RFC 8693 §4.2).
    pub scope: String,
    /// The token's id.
    pub jti: String,
    /// When it was issued, in seconds since 1970.
    pub iat: u32,
    /// When it ends, in seconds since 1970.
    pub exp: u32,
    /// `<epoch>.<registry seq>.<token seq>`: the feed positions that it was checked at.
    pub rev: String,
}

impl AccessTokenClaims {
    /// Checks target and time of genuine claims, at `now_secs` (seconds since 1970).
    ///
    /// # Errors
    /// [`VerifyError::WrongTarget`], [`VerifyError::Expired`].
    pub fn check(&self, expected: &Expected<'_>, now_secs: i64) -> Result<(), VerifyError> {
        let target_matches = self.iss == expected.issuer
            && self.aud == expected.audience
            && self.tenant_id == expected.tenant_id;
        if !target_matches {
            return Err(VerifyError::WrongTarget);
        }
        if i64::from(self.exp) <= now_secs {
            return Err(VerifyError::Expired);
        }
        Ok(())
    }
}

/// What a token must name, exactly, to count at a resource server.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The Tenant Authority URL.
    pub issuer: &'a str,
    /// The tenant's Cloud API URL.
    pub audience: &'a str,
    /// The tenant.
    pub tenant_id: &'a str,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a JWT of this profile: wrong type, algorithm, or missing claims.
    #[error("not an access token")]
    Malformed,
    /// No key of the set has the token's `kid`; a newer set may.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("wrong signature")]
    Signature,
    /// Issuer, audience or tenant are not the ones expected.
    #[error("for another tenant or audience")]
    WrongTarget,
    /// The token has ended.
    #[error("expired")]
    Expired,
}

/// The public keys of an authority, by key id (RFC 7517 §5).
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, DecodingKey>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<JwksKey>,
}

#[derive(Deserialize)]
struct JwksKey {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    kid: String,
}

impl KeySet {
    /// Reads a JWKS document; keys of other kinds than Ed25519 are passed over (RFC 7517 §5).
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] when it is not a JWKS.
    pub fn from_json(document: &[u8]) -> Result<Self, VerifyError> {
        let document: JwksDocument = serde_json::from_slice(document).map_err(|_| VerifyError::Malformed)?;
        let mut set = Self::default();
        for key in document.keys {
            if key.kty == "OKP" && key.crv == "Ed25519" && !key.kid.is_empty() {
                set.insert_ed25519(&key.kid, &key.x)?;
            }
        }
        Ok(set)
    }

    /// Adds an Ed25519 key given as base64url (RFC 8037 §2).
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] when `x` is not base64url.
    pub fn insert_ed25519(&mut self, kid: &str, x: &str) -> Result<(), VerifyError> {
        let key = DecodingKey::from_ed_components(x).map_err(|_| VerifyError::Malformed)?;
        self.keys.insert(kid.to_owned(), key);
        Ok(())
    }

    /// Verifies an access token at the time `now_secs` (seconds since 1970).
    ///
    /// # Errors
    /// See [`VerifyError`]. The signature is checked before any claim is looked at.
    pub fn verify(
        &self,
        token: &str,
        expected: &Expected<'_>,
        now_secs: i64,
    ) -> Result<AccessTokenClaims, VerifyError> {
        let claims = self.verify_signature(token)?;
        claims.check(expected, now_secs)?;
        Ok(claims)
    }

    /// Verifies type, algorithm and signature alone. The claims are genuine and may be out of date
    /// or meant for somebody else.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`], [`VerifyError::UnknownKey`] or [`VerifyError::Signature`].
    pub fn verify_signature(&self, token: &str) -> Result<AccessTokenClaims, VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Malformed)?;
        if header.typ.as_deref() != Some(ACCESS_TOKEN_TYPE) || header.alg != Algorithm::EdDSA {
            return Err(VerifyError::Malformed);
        }
        let kid = header.kid.ok_or(VerifyError::Malformed)?;
        let key = self.keys.get(&kid).ok_or(VerifyError::UnknownKey)?;
        // Time and target are compared by our own rules: against a clock that is handed in, exactly.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        jsonwebtoken::decode(token, key, &validation)
            .map(|data| data.claims)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => VerifyError::Signature,
                _ => VerifyError::Malformed,
            })
    }
}

/// The key id that a token's header names, before anything is verified.
pub fn key_id(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    jsonwebtoken::decode_header(token).ok()?.kid
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        signature::{Ed25519KeyPair, KeyPair},
    };
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header};

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const EXPECTED: Expected<'static> = Expected {
        issuer: "https://auth.example/firm",
        audience: "https://api.firm.example/v1",
        tenant_id: "firm",
    };

    struct Signer {
        key: EncodingKey,
        x: String,
    }

    fn signer() -> Signer {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Signer {
            key: EncodingKey::from_ed_der(der.as_ref()),
            x: URL_SAFE_NO_PAD.encode(public),
        }
    }

    fn claims() -> AccessTokenClaims {
        AccessTokenClaims {
            iss: EXPECTED.issuer.into(),
            aud: EXPECTED.audience.into(),
            sub: "usr_1".into(),
            client_id: "cli_1".into(),
            tenant_id: EXPECTED.tenant_id.into(),
            grant_id: "grt_1".into(),
            family_id: None,
            scope: "a b".into(),
            jti: "1".into(),
            iat: NOW as u32,
            exp: NOW as u32 + 300,
            rev: "e.0.0".into(),
        }
    }

    fn header() -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(ACCESS_TOKEN_TYPE.into());
        header.kid = Some("k1".into());
        header
    }

    fn set(signer: &Signer) -> KeySet {
        let document = serde_json::json!({"keys": [
            {"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": signer.x, "use": "sig", "alg": "EdDSA"},
        ]});
        KeySet::from_json(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_genuine_token_counts_until_its_end() {
        let signer = signer();
        let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
        let keys = set(&signer);
        assert_eq!(keys.verify(&token, &EXPECTED, NOW), Ok(claims()));
        assert!(keys.verify(&token, &EXPECTED, NOW + 299).is_ok());
        assert_eq!(
            keys.verify(&token, &EXPECTED, NOW + 300),
            Err(VerifyError::Expired)
        );
    }

    #[test]
    fn issuer_audience_and_tenant_must_be_exact() {
        let signer = signer();
        let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
        for expected in [
            Expected {
                issuer: "https://auth.example/firm/",
                ..EXPECTED
            },
            Expected {
                audience: "https://api.firm.example/v1/",
                ..EXPECTED
            },
            Expected {
                tenant_id: "firm2",
                ..EXPECTED
            },
        ] {
            assert_eq!(
                set(&signer).verify(&token, &expected, NOW),
                Err(VerifyError::WrongTarget)
            );
        }
    }

    #[test]
    fn another_key_type_or_algorithm_is_refused() {
        let signer = signer();
        let keys = set(&signer);
        let with = |header: Header, key: &EncodingKey| jsonwebtoken::encode(&header, &claims(), key).unwrap();

        let forged = with(header(), &self::signer().key);
        assert_eq!(keys.verify(&forged, &EXPECTED, NOW), Err(VerifyError::Signature));
        let unknown = with(
            Header {
                kid: Some("k2".into()),
                ..header()
            },
            &signer.key,
        );
        assert_eq!(
            keys.verify(&unknown, &EXPECTED, NOW),
            Err(VerifyError::UnknownKey)
        );
        let id_token = with(
            Header {
                typ: Some("JWT".into()),
                ..header()
            },
            &signer.key,
        );
        assert_eq!(
            keys.verify(&id_token, &EXPECTED, NOW),
            Err(VerifyError::Malformed)
        );

        // The public key as an HMAC secret: the classic confusion of algorithms.
        let secret = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(&signer.x).unwrap());
        let hmac = with(
            Header {
                alg: Algorithm::HS256,
                ..header()
            },
            &secret,
        );
        assert_eq!(keys.verify(&hmac, &EXPECTED, NOW), Err(VerifyError::Malformed));

        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt","kid":"k1"}"#);
        for bad in [
            "",
            "a.b.c",
            "..",
            &format!("{none}.{payload}."),
            &"x".repeat(MAX_TOKEN_BYTES + 1),
        ] {
            assert_eq!(keys.verify(bad, &EXPECTED, NOW), Err(VerifyError::Malformed));
        }
    }

    #[test]
    fn a_changed_claim_breaks_the_signature() {
        let signer = signer();
        let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
        let mut parts: Vec<&str> = token.split('.').collect();
        let widened = AccessTokenClaims {
            scope: "a b c".into(),
            ..claims()
        };
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&widened).unwrap());
        parts[1] = &payload;
        let refused = set(&signer).verify(&parts.join("."), &EXPECTED, NOW);
        assert_eq!(refused, Err(VerifyError::Signature));
    }
}
