//! A proof, and the checks of RFC 9449 §4.3.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use super::{
    MAX_AGE_SECS, MAX_AHEAD_SECS, MAX_JTI_CHARS, MAX_PROOF_BYTES, PROOF_TYPE, ProofError,
    jwk::{Jwk, PublicKey},
    url,
};
use crate::clock::UnixMillis;

/// The request that a proof must be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The method of HTTP.
    pub method: &'a str,
    /// The URLs that the request may have come to: the endpoint, and its aliases.
    pub urls: &'a [String],
    /// The access token that comes with the proof, at a resource (RFC 9449 §4.3 number 12); `None` elsewhere.
    pub access_token: Option<&'a str>,
    /// The time now.
    pub now: UnixMillis,
}

/// A proof that is right for its request. Whether it was used before is not known: see [`super::ReplayCache`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProof {
    /// The thumbprint of its key (RFC 7638): 43 base64url characters.
    pub jkt: String,
    /// Its id: 1 to [`MAX_JTI_CHARS`] characters.
    pub jti: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// The nonce of a server, not compared with anything yet.
    pub nonce: Option<String>,
}

/// The members of the header that are read. Those that name keys elsewhere, such as `jku`, are not.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    typ: Value,
    alg: Value,
    jwk: Option<Jwk>,
    crit: Present,
}

/// Whether a member is there, whatever its value.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(value).map(|_| Self(true))
    }
}

/// The claims of RFC 9449 §4.2, and two of RFC 7519 §4.1.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    jti: Value,
    htm: Value,
    htu: Value,
    iat: Value,
    ath: Value,
    nonce: Value,
    nbf: Value,
    exp: Value,
}

/// Checks a proof: all of RFC 9449 §4.3, except whether it was used before, and whether its nonce is right.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(proof: &str, expected: &Expected<'_>) -> Result<VerifiedProof, ProofError> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err(ProofError::TooLong);
    }
    let (message, signature) = proof.rsplit_once('.').ok_or(ProofError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(ProofError::Malformed)?;
    if claims.contains('.') {
        return Err(ProofError::Malformed);
    }
    let header: Header = decoded(header)?;
    if header.typ != PROOF_TYPE {
        return Err(ProofError::Type);
    }
    let alg = header.alg.as_str().ok_or(ProofError::Algorithm)?;
    if header.crit.0 {
        return Err(ProofError::Critical);
    }
    let jwk = header.jwk.ok_or(ProofError::Key("be the public key"))?;
    let key = PublicKey::parse(&jwk, alg)?;
    if !key.verifies(message, signature) {
        return Err(ProofError::Signature);
    }
    let claims: Claims = decoded(claims)?;
    claims.check(expected, key.into_thumbprint())
}

/// Returns the `ath` of proofs that come with this access token (RFC 9449 §4.2).
pub fn access_token_hash(access_token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, access_token.as_bytes()))
}

impl Claims {
    fn check(self, expected: &Expected<'_>, jkt: String) -> Result<VerifiedProof, ProofError> {
        let wrong = |claim, rule: String| Err(ProofError::Claim { claim, rule });
        let jti = match self.jti {
            Value::String(jti) if (1..=MAX_JTI_CHARS).contains(&jti.chars().count()) => jti,
            _ => return wrong("jti", format!("a string of 1 to {MAX_JTI_CHARS} characters")),
        };
        if self.htm != expected.method {
            return wrong("htm", expected.method.to_owned());
        }
        let htu = self.htu.as_str().unwrap_or_default();
        if !expected.urls.iter().any(|url| url::is_same(htu, url)) {
            return wrong("htu", expected.urls.join(" or "));
        }
        let now = expected.now.as_secs();
        let iat = match seconds(&self.iat) {
            Some(iat) if is_within(iat, now) => iat,
            _ => {
                let rule = format!(
                    "at most {MAX_AGE_SECS} seconds before and {MAX_AHEAD_SECS} seconds after the time here, {now}"
                );
                return wrong("iat", rule);
            }
        };
        // RFC 7519 §4.1.4 and §4.1.5, with the tolerance of `iat`.
        let is_early = seconds(&self.nbf).is_none_or(|begins| begins > now.saturating_add(MAX_AHEAD_SECS));
        if !self.nbf.is_null() && is_early {
            return wrong(
                "nbf",
                format!("at most {MAX_AHEAD_SECS} seconds after {now}, or absent"),
            );
        }
        let is_late = seconds(&self.exp).is_none_or(|ends| ends <= now.saturating_sub(MAX_AHEAD_SECS));
        if !self.exp.is_null() && is_late {
            return wrong("exp", format!("later than {now}, or absent"));
        }
        if let Some(token) = expected.access_token
            && self.ath != access_token_hash(token)
        {
            return wrong("ath", "the SHA-256 of the access token in base64url".to_owned());
        }
        let nonce = match self.nonce {
            Value::Null => None,
            Value::String(nonce) => Some(nonce),
            _ => return wrong("nonce", "a string, or absent".to_owned()),
        };
        Ok(VerifiedProof { jkt, jti, iat, nonce })
    }
}

/// Returns whether a proof that was made at `iat` is accepted in this second (RFC 9449 §4.3 number 11).
fn is_within(iat: i64, now: i64) -> bool {
    let latest = now.saturating_add(MAX_AHEAD_SECS);
    (now.saturating_sub(MAX_AGE_SECS)..=latest).contains(&iat)
}

/// Reads a time in seconds since 1970 (RFC 7519 §2), with or without a fraction, and rounds it down. The conversion saturates.
#[allow(clippy::cast_possible_truncation)]
fn seconds(date: &Value) -> Option<i64> {
    date.as_f64().map(|seconds| seconds.floor() as i64)
}

fn decoded<T: DeserializeOwned>(part: &str) -> Result<T, ProofError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| ProofError::Malformed)?;
    // Serde would read a struct from an array, too.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(ProofError::Malformed);
    }
    serde_json::from_slice(&json).map_err(|_| ProofError::Malformed)
}

#[cfg(test)]
#[path = "tests/proof.rs"]
mod tests;
