//! An authority's public keys, and what they verify (RFC 9068 §4): signature, type, issuer, audience,
//! tenant and time. Whether a token was revoked is not decided here.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{ACCESS_TOKEN_TYPE, AccessTokenClaims, Expected, MAX_TOKEN_BYTES, VerifyError};
use crate::token::v1 as pb;

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

    /// Takes the answer of `GetJsonWebKeySet`; keys of other kinds than Ed25519 are passed over.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] when an Ed25519 key is none.
    pub fn from_answer(answer: &pb::GetJsonWebKeySetResponse) -> Result<Self, VerifyError> {
        let mut set = Self::default();
        for key in &answer.keys {
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
        self.verify_with_key_id(token, expected, now_secs)
            .map(|(claims, _)| claims)
    }

    /// [`KeySet::verify`], and the id of the key that signed.
    pub(super) fn verify_with_key_id(
        &self,
        token: &str,
        expected: &Expected<'_>,
        now_secs: i64,
    ) -> Result<(AccessTokenClaims, String), VerifyError> {
        let (claims, kid) = self.open(token)?;
        claims.check(expected, now_secs)?;
        Ok((claims, kid))
    }

    /// Verifies type, algorithm and signature alone. The claims are genuine and may be out of date
    /// or meant for somebody else.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`], [`VerifyError::UnknownKey`] or [`VerifyError::Signature`].
    pub fn verify_signature(&self, token: &str) -> Result<AccessTokenClaims, VerifyError> {
        self.open(token).map(|(claims, _)| claims)
    }

    fn open(&self, token: &str) -> Result<(AccessTokenClaims, String), VerifyError> {
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
            .map(|data| (data.claims, kid))
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
#[path = "tests/key_set.rs"]
mod tests;
