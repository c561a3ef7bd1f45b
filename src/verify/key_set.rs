//! An authority's public keys. Verifies a token's signature, type, issuer, audience, tenant and expiry (RFC 9068 §4), not
//! whether it was revoked.

use std::{collections::HashMap, fmt};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;

use super::{
    ACCESS_TOKEN_TYPE, AccessTokenClaims, CONSENT_RECEIPT_TYPE, MAX_RECEIPT_BYTES, MAX_TOKEN_BYTES, Tenant,
    VerifyError,
};
use crate::token::v1 as pb;

/// The public keys of an authority, by key id (RFC 7517 §5), each with the one algorithm that it verifies.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl KeySet {
    /// Creates the set of a `GetJsonWebKeySet` response. Ignores keys that [`Self::insert`] ignores.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] for a malformed key of a known algorithm.
    pub fn from_response(response: &pb::GetJsonWebKeySetResponse) -> Result<Self, VerifyError> {
        let mut set = Self::default();
        for key in &response.keys {
            set.insert(key)?;
        }
        Ok(set)
    }

    /// Adds a key for EdDSA with Ed25519 (RFC 8037 §2, also named by RFC 9864 §2.2), ES256, RS256 or PS256 (RFC 7518
    /// §6). Ignores a key without `kid`, for another use, or for another algorithm (RFC 7517 §5): a key without `alg`,
    /// too, unless its type has one algorithm alone.
    ///
    /// # Errors
    /// [`VerifyError::Malformed`] if a member that the key's type requires is not base64url.
    pub fn insert(&mut self, key: &pb::JsonWebKey) -> Result<(), VerifyError> {
        if !(key.r#use.is_empty() || key.r#use == "sig") {
            return Ok(());
        }
        self.insert_members(&key.kid, &key.alg, |name| match name {
            "kty" => &key.kty,
            "crv" => &key.crv,
            "x" => &key.x,
            "y" => &key.y,
            "n" => &key.n,
            "e" => &key.e,
            _ => "",
        })
    }

    /// Does the same with a key whose other members `member` returns by their name, empty for an absent one.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_members<'a>(
        &mut self,
        kid: &str,
        alg: &str,
        member: impl Fn(&str) -> &'a str,
    ) -> Result<(), VerifyError> {
        let rsa = || DecodingKey::from_rsa_components(member("n"), member("e"));
        let (algorithm, key) = match (member("kty"), member("crv"), alg) {
            _ if kid.is_empty() => return Ok(()),
            ("OKP", "Ed25519", "" | "EdDSA" | "Ed25519") => {
                (Algorithm::EdDSA, DecodingKey::from_ed_components(member("x")))
            }
            ("EC", "P-256", "" | "ES256") => (
                Algorithm::ES256,
                DecodingKey::from_ec_components(member("x"), member("y")),
            ),
            ("RSA", _, "RS256") => (Algorithm::RS256, rsa()),
            ("RSA", _, "PS256") => (Algorithm::PS256, rsa()),
            _ => return Ok(()),
        };
        let key = key.map_err(|_| VerifyError::Malformed)?;
        self.keys.insert(kid.to_owned(), (algorithm, key));
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
        self.open_as(ACCESS_TOKEN_TYPE, MAX_TOKEN_BYTES, token)
    }

    /// Verifies type, algorithm and signature of the receipt of a consent, and returns its claims. No access token is a
    /// receipt.
    ///
    /// # Errors
    /// As [`Self::verify_signature`].
    pub fn verify_consent_receipt(&self, receipt: &str) -> Result<serde_json::Value, VerifyError> {
        let opened = self.open_as(CONSENT_RECEIPT_TYPE, MAX_RECEIPT_BYTES, receipt);
        opened.map(|(claims, _)| claims)
    }

    fn open_as<C: DeserializeOwned + Clone>(
        &self,
        media_type: &str,
        max_bytes: usize,
        token: &str,
    ) -> Result<(C, String), VerifyError> {
        if token.len() > max_bytes {
            return Err(VerifyError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Malformed)?;
        if header.typ.as_deref() != Some(media_type) {
            return Err(VerifyError::Malformed);
        }
        let kid = header.kid.ok_or(VerifyError::Malformed)?;
        let (algorithm, key) = self.keys.get(&kid).ok_or(VerifyError::UnknownKey)?;
        // The key decides the algorithm, never the token (RFC 8725 §3.1).
        if header.alg != *algorithm {
            return Err(VerifyError::Malformed);
        }
        // `AccessTokenClaims::check` checks time and target, with the caller's clock.
        let mut validation = Validation::new(*algorithm);
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
