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
        let target_matches = claims.iss == expected.issuer
            && claims.aud == expected.audience
            && claims.tenant_id == expected.tenant_id;
        if !target_matches {
            return Err(VerifyError::WrongTarget);
        }
        if i64::from(claims.exp) <= now_secs {
            return Err(VerifyError::Expired);
        }
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
