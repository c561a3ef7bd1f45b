//! Whether the sender of an access token holds the key that the token is bound to (RFC 9449 §7, RFC 8705 §3).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{AccessTokenClaims, Confirmation, VerifyError};
use crate::{
    clock::UnixMillis,
    dpop::{self, Expected, ReplayCache, ReplayError, VerifiedProof},
};

/// The schemes in which access tokens are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750 §2.1: for tokens that are bound to no key or to a certificate.
    Bearer,
    /// RFC 9449 §7.1: for tokens that are bound to the key of a proof.
    Dpop,
}

/// An access token as a request presents it. No `Debug`: it holds the token and its proof.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The scheme of the `Authorization` header.
    pub scheme: Scheme,
    /// The token.
    pub token: &'a str,
    /// The method of the request.
    pub method: &'a str,
    /// The URL of the request, as its sender wrote it: outside of a proxy.
    pub url: &'a str,
    /// The only `DPoP` header of the request.
    pub dpop_proof: Option<&'a str>,
    /// The certificate that the sender's connection presented, in DER.
    pub client_certificate: Option<&'a [u8]>,
}

impl<'a> Presented<'a> {
    /// Presents a token as bearer, without anything that proves a key.
    pub fn bearer(token: &'a str) -> Self {
        Self {
            scheme: Scheme::Bearer,
            token,
            method: "",
            url: "",
            dpop_proof: None,
            client_certificate: None,
        }
    }
}

/// Checks that the sender holds the token's key, and spends the proof.
pub(super) fn check(
    presented: &Presented<'_>,
    claims: &AccessTokenClaims,
    proofs: &ReplayCache,
    now: UnixMillis,
) -> Result<(), VerifyError> {
    let Some(proof) = verify_possession(presented, claims.cnf.as_ref(), now)? else {
        return Ok(());
    };
    let accepted = proofs.accept(&claims.client_id, &proof, now);
    accepted.map_err(|error| match error {
        ReplayError::Used => VerifyError::Proof("jti"),
        ReplayError::Full => VerifyError::TooManyProofs,
    })
}

/// Checks that the sender of a token holds the key that `confirmation`, the token's `cnf`, names. Returns the proof, if the key is
/// that of one: whether it was used before is not known, see [`ReplayCache`].
///
/// # Errors
/// [`VerifyError::Scheme`], [`VerifyError::Proof`] or [`VerifyError::Certificate`].
pub fn verify_possession(
    presented: &Presented<'_>,
    confirmation: Option<&Confirmation>,
    now: UnixMillis,
) -> Result<Option<VerifiedProof>, VerifyError> {
    match (confirmation, presented.scheme) {
        (None, Scheme::Bearer) => Ok(None),
        (Some(Confirmation::Certificate(thumbprint)), Scheme::Bearer) => {
            let certificate = presented.client_certificate.filter(|der| !der.is_empty());
            let certificate = certificate.ok_or(VerifyError::Certificate)?;
            let is_bound = URL_SAFE_NO_PAD.encode(digest(&SHA256, certificate)) == *thumbprint;
            is_bound.then_some(None).ok_or(VerifyError::Certificate)
        }
        (Some(Confirmation::Jkt(jkt)), Scheme::Dpop) => {
            let proof = presented.dpop_proof.ok_or(VerifyError::Proof("missing"))?;
            let expected = Expected {
                method: presented.method,
                urls: &[presented.url.to_owned()],
                access_token: Some(presented.token),
                now,
            };
            let proof = dpop::verify(proof, &expected).map_err(|error| VerifyError::Proof(error.name()))?;
            let is_bound = proof.jkt == *jkt;
            is_bound.then_some(Some(proof)).ok_or(VerifyError::Proof("jwk"))
        }
        // A stolen token must not be of use without its key, and a client must not believe that a bearer token is bound.
        (Some(Confirmation::Jkt(_)), Scheme::Bearer)
        | (None | Some(Confirmation::Certificate(_)), Scheme::Dpop) => Err(VerifyError::Scheme),
    }
}
