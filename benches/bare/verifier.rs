//! Verifies access tokens' signatures with one key that is held, in the fewest steps. Header, time and
//! target are looked at by nobody.

use accord::verify::AccessTokenClaims;
use anyhow::{Context, anyhow};
use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

pub struct Verifier {
    key: ParsedPublicKey,
}

impl Verifier {
    /// With an Ed25519 key as a JWK has it, in base64url.
    pub fn new(x: &String) -> anyhow::Result<Self> {
        let key = ParsedPublicKey::new(&ED25519, URL_SAFE_NO_PAD.decode(x)?);
        Ok(Self {
            key: key.map_err(|_| anyhow!("not an Ed25519 key"))?,
        })
    }

    /// The claims of a token with the key's signature: they are what the answer is made of.
    pub fn claims(&self, token: &str) -> anyhow::Result<AccessTokenClaims> {
        let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
        let signature = URL_SAFE_NO_PAD.decode(signature)?;
        let verified = self.key.verify_sig(signed.as_bytes(), &signature);
        verified.map_err(|_| anyhow!("another signature"))?;
        let (_, claims) = signed.split_once('.').context("not a JWT")?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
    }
}
