//! An authority's public keys. Verifies a token's signature, type, issuer, audience, tenant and expiry (RFC 9068 §4), not
//! whether it was revoked.

use std::{collections::HashMap, fmt};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{ACCESS_TOKEN_TYPE, AccessTokenClaims, MAX_TOKEN_BYTES, Tenant, VerifyError};
use crate::token::v1 as pb;

/// The public keys of an authority, by key id (RFC 7517 §5).
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, DecodingKey>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl KeySet {
    /// Creates the set of a `GetJsonWebKeySet` response. Ignores all kinds of keys but Ed25519 (RFC 7517 §5).
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] for a malformed Ed25519 key.
    pub fn from_response(response: &pb::GetJsonWebKeySetResponse) -> Result<Self, VerifyError> {
        let mut set = Self::default();
        for key in &response.keys {
            if key.kty == "OKP" && key.crv == "Ed25519" && !key.kid.is_empty() {
                set.insert_ed25519(&key.kid, &key.x)?;
            }
        }
        Ok(set)
    }

    /// Adds an Ed25519 key in base64url (RFC 8037 §2).
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] if `x` is not base64url.
    pub fn insert_ed25519(&mut self, kid: &str, x: &str) -> Result<(), VerifyError> {
        let key = DecodingKey::from_ed_components(x).map_err(|_| VerifyError::Malformed)?;
        self.keys.insert(kid.to_owned(), key);
        Ok(())
    }

    /// Verifies an access token at the time `now_secs` (seconds since 1970). Verifies the signature before it reads any
    /// claim.
    pub fn verify(
        &self,
        token: &str,
        tenant: &Tenant,
        now_secs: i64,
    ) -> Result<AccessTokenClaims, VerifyError> {
        let claims = self.verify_signature(token)?;
        claims.check(tenant, now_secs)?;
        Ok(claims)
    }

    /// Verifies only type, algorithm and signature. The token may have expired, or be for another target.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`], [`VerifyError::UnknownKey`] or [`VerifyError::Signature`].
    pub fn verify_signature(&self, token: &str) -> Result<AccessTokenClaims, VerifyError> {
        self.open(token).map(|(claims, _)| claims)
    }

    /// [`KeySet::verify_signature`], and the id of the key that signed the token.
    pub(super) fn open(&self, token: &str) -> Result<(AccessTokenClaims, String), VerifyError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VerifyError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Malformed)?;
        if header.typ.as_deref() != Some(ACCESS_TOKEN_TYPE) || header.alg != Algorithm::EdDSA {
            return Err(VerifyError::Malformed);
        }
        let kid = header.kid.ok_or(VerifyError::Malformed)?;
        let key = self.keys.get(&kid).ok_or(VerifyError::UnknownKey)?;
        // `AccessTokenClaims::check` checks time and target, with the caller's clock.
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

/// Returns the key id in a token's header, without verifying anything.
pub fn key_id(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    jsonwebtoken::decode_header(token).ok()?.kid
}

#[cfg(test)]
#[path = "tests/key_set.rs"]
mod tests;
