//! Signs access tokens with a key that is held, in the fewest steps: the claims are those of the service.

use accord::{
    clock::{Clock, SystemClock},
    random::SystemRandom,
    text::{
        id::{ClientId, EventId, GrantId, UserId},
        opaque::sha256,
    },
    verify::{ACCESS_TOKEN_TYPE, AccessTokenClaims},
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The life of a token in seconds, as it is by default.
pub const EXPIRES_IN: u32 = 300;

/// What a bare signer puts into its tokens.
#[derive(Serialize, Deserialize)]
pub struct Subject {
    /// What issuers begin with.
    pub public_base_url: String,
    pub cloud_api_url: String,
    pub scope: String,
}

/// A key, and what is the same in every token.
pub struct Signer {
    key: Ed25519KeyPair,
    /// The header in base64url, with the dot.
    header: String,
    subject: Subject,
    user_id: String,
    grant_id: String,
    client_id: String,
    rev: String,
}

impl Signer {
    pub fn new(subject: Subject) -> anyhow::Result<Self> {
        let key = Ed25519KeyPair::generate()?;
        let kid = URL_SAFE_NO_PAD.encode(sha256(key.public_key().as_ref()));
        let header = format!(r#"{{"typ":"{ACCESS_TOKEN_TYPE}","alg":"EdDSA","kid":"{kid}"}}"#);
        let (clock, random) = (SystemClock, SystemRandom);
        let epoch = EventId::generate(&clock, &random);
        Ok(Self {
            key,
            header: URL_SAFE_NO_PAD.encode(header) + ".",
            subject,
            user_id: UserId::generate(&clock, &random).into(),
            grant_id: GrantId::generate(&clock, &random).into(),
            client_id: ClientId::generate(&clock, &random).into(),
            rev: format!("{epoch}.1234.5678"),
        })
    }

    pub fn scope(&self) -> &str {
        &self.subject.scope
    }

    pub fn grant_id(&self) -> &str {
        &self.grant_id
    }

    /// A token for a client at a tenant; without a client for one that is always the same.
    pub fn issue(&self, tenant_id: String, client_id: Option<String>) -> anyhow::Result<String> {
        let iat = u32::try_from(SystemClock.now().as_secs())?;
        self.sign(&AccessTokenClaims {
            iss: format!("{}/{tenant_id}", self.subject.public_base_url),
            aud: self.subject.cloud_api_url.clone(),
            sub: self.user_id.clone(),
            client_id: client_id.unwrap_or_else(|| self.client_id.clone()),
            tenant_id,
            grant_id: self.grant_id.clone(),
            family_id: None,
            scope: self.subject.scope.clone(),
            jti: EventId::generate(&SystemClock, &SystemRandom).into(),
            iat,
            exp: iat + EXPIRES_IN,
            rev: self.rev.clone(),
        })
    }

    fn sign(&self, claims: &AccessTokenClaims) -> anyhow::Result<String> {
        const SIGNATURE: usize = 1 + 86;
        let claims = serde_json::to_vec(claims)?;
        let length = self.header.len() + claims.len().div_ceil(3) * 4 + SIGNATURE;
        let mut token = String::with_capacity(length);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}
