//! Signing keys: Ed25519 by default, sealed at rest, published before their first use and until their
//! last token has ended.

use std::{fmt, sync::Arc, time::Duration};

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
use zeroize::Zeroizing;

use crate::{error::Error, model::lifetimes::Lifetimes};

/// The one algorithm there is so far, by its JOSE name (RFC 8037 §3.1).
pub const ALGORITHM: &str = "EdDSA";
/// How long a retired key stays published: its last token's life, and a minute for clocks.
pub const PUBLISHED_AFTER_RETIREMENT: Duration =
    Lifetimes::MAX_ACCESS_TOKEN.saturating_add(Duration::from_secs(60));

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Published and not yet used.
    Next,
    /// Signs.
    Active,
    /// Signs no more; its tokens still count.
    Retired,
    /// Counts no more.
    Revoked,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [Self::Next, Self::Active, Self::Retired, Self::Revoked];

    /// The state's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What is known of a key, the public half included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// The key's id.
    pub kid: String,
    /// What it is used for.
    pub state: State,
    /// The public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// When it was made, and published.
    pub created_at: UnixMillis,
    /// When it began to sign.
    pub activated_at: Option<UnixMillis>,
    /// When it stopped signing.
    pub retired_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

impl SigningKey {
    /// Whether the key stands in the JWKS at this time.
    pub fn published_at(&self, now: UnixMillis) -> bool {
        match self.state {
            State::Next | State::Active => true,
            State::Retired => self
                .retired_at
                .is_some_and(|retired| now < retired.plus(PUBLISHED_AFTER_RETIREMENT)),
            State::Revoked => false,
        }
    }

    /// The public key as a JWK has it (RFC 8037 §2).
    pub fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.public_key)
    }
}

/// A new key pair.
pub struct NewKey {
    /// The key's id: its RFC 7638 thumbprint.
    pub kid: String,
    /// The private key, PKCS#8 version 1.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// The public key, 32 bytes.
    pub public_key: Vec<u8>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Makes a key pair.
///
/// # Errors
/// [`Error::Signing`].
pub fn generate() -> Result<NewKey, Error> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| Error::Signing)?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref()).map_err(|_| Error::Signing)?;
    let public_key = pair.public_key().as_ref().to_vec();
    let x = URL_SAFE_NO_PAD.encode(&public_key);
    // Members in lexicographic order, as RFC 7638 §3 and RFC 8037 §2 say.
    let thumbprint = sha256(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
    Ok(NewKey {
        kid: URL_SAFE_NO_PAD.encode(thumbprint),
        pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
        public_key,
    })
}

/// The key that signs, unsealed and parsed once.
pub struct Signer {
    kid: String,
    /// The header of an access token, encoded.
    access_token_header: String,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// The key of this id; `pkcs8` is its private half.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn new(kid: String, pkcs8: &[u8]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| Error::Signing)?;
        Ok(Self {
            access_token_header: header(ACCESS_TOKEN_TYPE, &kid)?,
            kid,
            pair,
        })
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs an access token.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn sign_access_token(&self, claims: &AccessTokenClaims) -> Result<Zeroizing<String>, Error> {
        self.sign_under(&self.access_token_header, claims)
    }

    /// Signs claims as a JWT of this type (`typ`, RFC 8725 §3.11).
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn sign(&self, media_type: &str, claims: &impl Serialize) -> Result<Zeroizing<String>, Error> {
        self.sign_under(&header(media_type, &self.kid)?, claims)
    }

    /// The JWT with this encoded header (RFC 7515 §7.1). The library's own `encode` would parse the key each
    /// time.
    fn sign_under(&self, header: &str, claims: &impl Serialize) -> Result<Zeroizing<String>, Error> {
        let claims = serde_json::to_vec(claims).map_err(|_| Error::Signing)?;
        // A longer text would leave pieces of the token behind when it grows.
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

/// The header of a JWT that is signed with the key of this id, encoded.
fn header(media_type: &str, kid: &str) -> Result<String, Error> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(media_type.to_owned());
    header.kid = Some(kid.to_owned());
    let header = serde_json::to_vec(&header).map_err(|_| Error::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(header))
}

/// The signing keys that are not revoked, ready to use.
#[derive(Debug)]
pub struct Keys {
    signer: Arc<Signer>,
    live: Vec<SigningKey>,
    set: KeySet,
}

impl Keys {
    /// The key that signs, and every key that is not revoked.
    ///
    /// # Errors
    /// [`Error::Signing`] for a public key that can't be one.
    pub fn new(signer: Arc<Signer>, live: Vec<SigningKey>) -> Result<Self, Error> {
        let mut set = KeySet::default();
        for key in &live {
            set.insert_ed25519(&key.kid, &key.x())
                .map_err(|_| Error::Signing)?;
        }
        Ok(Self { signer, live, set })
    }

    /// The key that signs.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The keys that stand in the JWKS at this time.
    pub fn published_at(&self, now: UnixMillis) -> impl Iterator<Item = &SigningKey> {
        self.live.iter().filter(move |key| key.published_at(now))
    }

    /// The keys to verify with: of one that is published no more, every token has ended.
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
    fn a_key_is_published_from_before_its_use_until_its_last_token_ends() {
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
    }

    #[test]
    fn a_new_key_signs_what_its_public_half_verifies() {
        let key = generate().unwrap();
        assert_eq!(key.public_key.len(), 32);
        assert_eq!(key.kid.len(), 43);
        assert_ne!(generate().unwrap().kid, key.kid);
        assert!(!format!("{key:?}").contains("pkcs8"));

        let signer = Signer::new(key.kid.clone(), &key.pkcs8).unwrap();
        assert!(!format!("{signer:?}").contains("pair"));
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
