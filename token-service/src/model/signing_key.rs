//! Signing keys: Ed25519, sealed at rest, published before their first use and until their last token has expired.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::UnixMillis,
    text::opaque::sha256,
    verify::{ACCESS_TOKEN_TYPE, AccessTokenClaims, KeySet},
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use strum::{AsRefStr, EnumString};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    model::lifetimes::Lifetimes,
};

/// The JOSE name of the only algorithm so far (RFC 8037 §3.1).
pub const ALGORITHM: &str = "EdDSA";
/// How long a retired key stays published: its last token's life, and a minute because clocks differ.
pub const PUBLISHED_AFTER_RETIREMENT: Duration =
    Lifetimes::MAX_ACCESS_TOKEN.saturating_add(Duration::from_secs(60));

/// How long others may keep the JWKS: the `max-age` of its `Cache-Control`.
pub const JWKS_MAX_AGE: Duration = Duration::from_secs(300);
/// How long a key must be published before its first use: until every copy of the JWKS contains it, and a minute because
/// clocks differ and copies take time.
pub const PUBLISHED_BEFORE_USE: Duration = JWKS_MAX_AGE.saturating_add(Duration::from_secs(60));

/// A key's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Published and not yet used.
    Next,
    /// Signs.
    Active,
    /// No longer signs; its tokens are still valid.
    Retired,
    /// Withdrawn; none of its tokens is valid.
    Revoked,
}

/// A signing key, without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// The key's id.
    pub kid: String,
    /// Its state.
    pub state: State,
    /// The public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// When it was created, and published.
    pub created_at: UnixMillis,
    /// When it began to sign.
    pub activated_at: Option<UnixMillis>,
    /// When it stopped signing.
    pub retired_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

impl SigningKey {
    /// Returns whether the JWKS contains the key at this time.
    pub fn published_at(&self, now: UnixMillis) -> bool {
        let is_recent = |retired: UnixMillis| now < retired.plus(PUBLISHED_AFTER_RETIREMENT);
        match self.state {
            State::Next | State::Active => true,
            State::Retired => self.retired_at.is_some_and(is_recent),
            State::Revoked => false,
        }
    }

    /// Returns how long the key must still be published before its first use; `None` if that was long enough.
    pub fn wait_before_use(&self, now: UnixMillis) -> Option<Duration> {
        let usable = self.created_at.plus(PUBLISHED_BEFORE_USE);
        (now < usable).then(|| usable.since(now))
    }

    /// Returns the public key as the JWK member `x` (RFC 8037 §2).
    pub fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.public_key)
    }
}

/// A new key pair. It has no `Debug`, because it holds a private key.
pub struct NewKey {
    /// The key's id: its RFC 7638 thumbprint.
    pub kid: String,
    /// The private key, PKCS#8 version 1.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// The public key, 32 bytes.
    pub public_key: Vec<u8>,
}

/// Generates a key pair.
///
/// # Errors
/// [`Error::Signing`].
pub fn generate() -> Result<NewKey> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| Error::Signing)?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref()).map_err(|_| Error::Signing)?;
    let public_key = pair.public_key().as_ref().to_vec();
    let x = URL_SAFE_NO_PAD.encode(&public_key);
    // The members are in lexicographic order (RFC 7638 §3, RFC 8037 §2).
    let thumbprint = sha256(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
    Ok(NewKey {
        kid: URL_SAFE_NO_PAD.encode(thumbprint),
        pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
        public_key,
    })
}

/// The key that signs, unsealed and parsed once. It has no `Debug`, because it holds a private key.
pub struct Signer {
    kid: String,
    /// The header of an access token, encoded.
    access_token_header: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// Parses the private key `pkcs8` of the key `kid`.
    pub fn new(kid: String, pkcs8: &[u8]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| Error::Signing)?;
        Ok(Self {
            access_token_header: header(ACCESS_TOKEN_TYPE, &kid)?,
            kid,
            pair,
        })
    }

    /// Returns the key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs an access token.
    pub fn sign_access_token(&self, claims: &AccessTokenClaims) -> Result<Zeroizing<String>> {
        self.sign_under(&self.access_token_header, claims)
    }

    /// Signs claims as a JWT of this type (`typ`, RFC 8725 §3.11).
    pub fn sign(&self, media_type: &str, claims: &impl Serialize) -> Result<Zeroizing<String>> {
        self.sign_under(&header(media_type, &self.kid)?, claims)
    }

    /// Signs claims as a JWT with this encoded header (RFC 7515 §7.1). The library's own `encode` would parse the key
    /// each time.
    fn sign_under(&self, header: &str, claims: &impl Serialize) -> Result<Zeroizing<String>> {
        let claims = serde_json::to_vec(claims).map_err(|_| Error::Signing)?;
        // A text that outgrows its capacity moves and leaves pieces of the token in memory.
        let length = |bytes: usize| bytes.div_ceil(3) * 4;
        let capacity = header.len() + length(claims.len()) + length(64) + 2;
        let mut token = Zeroizing::new(String::with_capacity(capacity));
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Encodes the header of a JWT of this type that the key `kid` signs.
fn header(media_type: &str, kid: &str) -> Result<String> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(media_type.to_owned());
    header.kid = Some(kid.to_owned());
    let header = serde_json::to_vec(&header).map_err(|_| Error::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(header))
}

/// The signing keys that are not revoked, ready to use.
pub struct Keys {
    signer: Arc<Signer>,
    live: Vec<SigningKey>,
    set: KeySet,
}

impl Keys {
    /// Joins the key that signs and every key that is not revoked.
    pub fn new(signer: Arc<Signer>, live: Vec<SigningKey>) -> Result<Self> {
        let mut set = KeySet::default();
        for key in &live {
            set.insert_ed25519(&key.kid, &key.x())
                .map_err(|_| Error::Signing)?;
        }
        Ok(Self { signer, live, set })
    }

    /// Returns the key that signs.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Returns the keys that the JWKS contains at this time.
    pub fn published_at(&self, now: UnixMillis) -> impl Iterator<Item = &SigningKey> {
        self.live.iter().filter(move |key| key.published_at(now))
    }

    /// Returns whether the JWKS contains this key at this time. Every token of one that it no longer contains has expired.
    pub fn is_published(&self, kid: &str, now: UnixMillis) -> bool {
        self.published_at(now).any(|key| key.kid == kid)
    }

    /// Returns the keys to verify with: those that are published, and some that were.
    pub fn set(&self) -> &KeySet {
        &self.set
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{testing::TEST_START, verify::AccessTokenClaims};

    use super::*;

    #[test]
    fn a_key_is_published_from_before_its_use_until_its_last_token_expires() {
        let key = |state, retired_at| SigningKey {
            kid: "k".into(),
            state,
            public_key: vec![0; 32],
            created_at: TEST_START,
            activated_at: None,
            retired_at,
            revoked_at: None,
        };
        assert!(key(State::Next, None).published_at(TEST_START));
        assert!(key(State::Active, None).published_at(TEST_START));
        let retired = key(State::Retired, Some(TEST_START));
        assert!(retired.published_at(TEST_START.plus(Lifetimes::MAX_ACCESS_TOKEN)));
        assert!(!retired.published_at(TEST_START.plus(PUBLISHED_AFTER_RETIREMENT)));
        assert!(!key(State::Revoked, None).published_at(TEST_START));

        let next = key(State::Next, None);
        let second = Duration::from_secs(1);
        assert_eq!(next.wait_before_use(TEST_START), Some(PUBLISHED_BEFORE_USE));
        let last = TEST_START.plus(PUBLISHED_BEFORE_USE).minus(second);
        assert_eq!(next.wait_before_use(last), Some(second));
        assert_eq!(next.wait_before_use(last.plus(second)), None);
    }

    #[test]
    fn a_new_key_signs_what_its_public_half_verifies() {
        let key = generate().unwrap();
        assert_eq!(key.public_key.len(), 32);
        assert_eq!(key.kid.len(), 43);
        assert_ne!(generate().unwrap().kid, key.kid);

        let signer = Signer::new(key.kid.clone(), &key.pkcs8).unwrap();
        let claims = AccessTokenClaims {
            iss: "https://auth.example/firm".into(),
            aud: "https://api.example".into(),
            sub: "usr".into(),
            client_id: "cli".into(),
            tenant_id: "firm".into(),
            grant_id: "grt".into(),
            family_id: None,
            scope: "a".into(),
            jti: "1".into(),
            iat: 1,
            exp: 2,
            rev: "a-b.1.2".into(),
        };
        let token = signer.sign_access_token(&claims).unwrap();
        let mut set = KeySet::default();
        let x = URL_SAFE_NO_PAD.encode(&key.public_key);
        set.insert_ed25519(&key.kid, &x).unwrap();
        assert_eq!(set.verify_signature(&token), Ok(claims));
    }
}
