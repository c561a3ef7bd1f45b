//! Signing keys: sealed at rest, published before their first use and until their last token has expired.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::UnixMillis,
    verify::{ACCESS_TOKEN_TYPE, AccessTokenClaims, KeySet},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Header;
use serde::Serialize;
use strum::{AsRefStr, EnumString};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Result},
    model::lifetimes::Lifetimes,
};

mod algorithm;

use algorithm::PrivateKey;
pub use algorithm::{Algorithm, NewKey, PublicKey};

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
    /// What it signs by. It never changes.
    pub algorithm: Algorithm,
    /// The public key.
    pub public_key: PublicKey,
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

    /// Returns whether the key has signed for at least this long.
    pub fn has_signed_for(&self, period: Duration, now: UnixMillis) -> bool {
        self.activated_at
            .is_some_and(|activated| now >= activated.plus(period))
    }
}

/// The key that signs, unsealed and parsed once. It has no `Debug`, because it holds a private key.
pub struct Signer {
    /// The key's id.
    pub kid: String,
    /// Its thumbprint (RFC 7638), whose encoded form is its id.
    pub thumbprint: [u8; 32],
    /// What the key signs by.
    pub algorithm: Algorithm,
    /// The header of an access token, encoded.
    access_token_header: String,
    key: PrivateKey,
}

impl Signer {
    /// Parses the private key `pkcs8` of the key `kid`.
    ///
    /// # Errors
    /// [`Error::Signing`] for an id that is no thumbprint, and for another key than one of the algorithm.
    pub fn new(kid: String, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self> {
        let thumbprint = URL_SAFE_NO_PAD.decode(&kid).map_err(|_| Error::Signing)?;
        Ok(Self {
            thumbprint: thumbprint.try_into().map_err(|_| Error::Signing)?,
            access_token_header: header(ACCESS_TOKEN_TYPE, algorithm, &kid)?,
            key: PrivateKey::parse(algorithm, pkcs8)?,
            kid,
            algorithm,
        })
    }

    /// Signs an access token.
    pub fn sign_access_token(&self, claims: &AccessTokenClaims) -> Result<Zeroizing<String>> {
        self.sign_under(&self.access_token_header, claims)
    }

    /// Signs claims as a JWT of this type (`typ`, RFC 8725 §3.11).
    pub fn sign(&self, media_type: &str, claims: &impl Serialize) -> Result<Zeroizing<String>> {
        self.sign_under(&header(media_type, self.algorithm, &self.kid)?, claims)
    }

    /// Signs claims as a JWT with this encoded header (RFC 7515 §7.1). The library's own `encode` would parse the key
    /// each time.
    fn sign_under(&self, header: &str, claims: &impl Serialize) -> Result<Zeroizing<String>> {
        let claims = serde_json::to_vec(claims).map_err(|_| Error::Signing)?;
        // A text that outgrows its capacity moves and leaves pieces of the token in memory.
        let length = |bytes: usize| bytes.div_ceil(3) * 4;
        let capacity = header.len() + length(claims.len()) + length(self.key.signature_bytes()) + 2;
        let mut token = Zeroizing::new(String::with_capacity(capacity));
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Encodes the header of a JWT of this type that the key `kid` signs.
fn header(media_type: &str, algorithm: Algorithm, kid: &str) -> Result<String> {
    let mut header = Header::new(algorithm.into());
    header.typ = Some(media_type.to_owned());
    header.kid = Some(kid.to_owned());
    let header = serde_json::to_vec(&header).map_err(|_| Error::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(header))
}

/// The signing keys that are not revoked, ready to use.
pub struct Keys {
    /// The key that signs.
    pub signer: Arc<Signer>,
    /// The keys to verify with: those that are published, and some that were.
    pub set: KeySet,
    live: Vec<SigningKey>,
}

impl Keys {
    /// Joins the key that signs and every key that is not revoked.
    pub fn new(signer: Arc<Signer>, live: Vec<SigningKey>) -> Result<Self> {
        let mut set = KeySet::default();
        for key in &live {
            let member = |name: &str| key.public_key.member(name);
            set.insert_members(&key.kid, key.algorithm.as_ref(), member)
                .map_err(|_| Error::Signing)?;
        }
        Ok(Self { signer, live, set })
    }

    /// Returns the keys that the JWKS contains at this time.
    pub fn published_at(&self, now: UnixMillis) -> impl Iterator<Item = &SigningKey> {
        self.live.iter().filter(move |key| key.published_at(now))
    }

    /// Returns when the key that signs began to. It was created a whole period before, as the next one.
    pub fn signing_since(&self) -> Option<UnixMillis> {
        let signing = self.live.iter().find(|key| key.kid == self.signer.kid);
        signing.and_then(|key| key.activated_at)
    }

    /// Returns whether the JWKS contains this key at this time. Every token of one that it no longer contains has expired.
    pub fn is_published(&self, kid: &str, now: UnixMillis) -> bool {
        self.published_at(now).any(|key| key.kid == kid)
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
            algorithm: Algorithm::EdDsa,
            public_key: PublicKey::parse("{}").unwrap(),
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
    fn a_key_signs_since_its_activation_and_not_since_its_creation() {
        let day = |days: u64| TEST_START.plus(Duration::from_secs(days * 24 * 3600));
        let next = NewKey::generate(Algorithm::EdDsa).unwrap();
        let active = NewKey::generate(Algorithm::EdDsa).unwrap();
        let live = |new: &NewKey, state, created_at, activated_at| SigningKey {
            kid: new.kid.clone(),
            state,
            algorithm: Algorithm::EdDsa,
            public_key: new.public_key.clone(),
            created_at,
            activated_at,
            retired_at: None,
            revoked_at: None,
        };
        let signer = Signer::new(active.kid.clone(), Algorithm::EdDsa, &active.pkcs8).unwrap();
        let keys = [
            live(&next, State::Next, day(90), None),
            live(&active, State::Active, day(0), Some(day(90))),
        ];
        let keys = Keys::new(signer.into(), keys.into()).unwrap();
        // What the alert compares with a hundred days.
        let age = day(101).since(keys.signing_since().unwrap());
        assert_eq!(age, day(11).since(TEST_START));
    }

    #[test]
    fn a_new_key_of_each_algorithm_signs_what_its_public_half_verifies() {
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
            cnf: None,
        };
        for (algorithm, kty, members) in [
            (Algorithm::EdDsa, "OKP", ["crv", "x"].as_slice()),
            (Algorithm::Es256, "EC", &["crv", "x", "y"]),
            (Algorithm::Rs256, "RSA", &["e", "n"]),
            (Algorithm::Ps256, "RSA", &["e", "n"]),
        ] {
            let key = NewKey::generate(algorithm).unwrap();
            assert_eq!(key.kid.len(), 43);
            let stored = key.public_key.to_json();
            assert_eq!(PublicKey::parse(&stored).unwrap(), key.public_key);
            let signer = Signer::new(key.kid.clone(), algorithm, &key.pkcs8).unwrap();
            let token = signer.sign_access_token(&claims).unwrap();

            let json: serde_json::Value = serde_json::from_str(&stored).unwrap();
            let mut named: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
            named.sort_unstable();
            named.retain(|name| *name != "kty");
            assert_eq!(
                (json["kty"].as_str(), &*named),
                (Some(kty), members),
                "{algorithm:?}"
            );
            // A library that knows nothing of this program reads the JWK, and the id is its thumbprint.
            let read: jsonwebtoken::jwk::Jwk = serde_json::from_value(json).unwrap();
            let thumbprint = read.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
            assert_eq!(thumbprint.unwrap(), key.kid);
            let public = jsonwebtoken::DecodingKey::from_jwk(&read).unwrap();
            let (message, signature) = token.rsplit_once('.').unwrap();
            let message = message.as_bytes();
            assert!(jsonwebtoken::crypto::verify(signature, message, &public, algorithm.into()).unwrap());

            let mut set = KeySet::default();
            let member = |name: &str| key.public_key.member(name);
            set.insert_members(&key.kid, algorithm.as_ref(), member).unwrap();
            assert_eq!(set.verify_signature(&token), Ok(claims.clone()), "{algorithm:?}");
        }
    }

    #[test]
    fn both_names_of_ed25519_name_one_algorithm() {
        for (name, expected) in [
            ("EdDSA", Some(Algorithm::EdDsa)),
            ("Ed25519", Some(Algorithm::EdDsa)),
            ("ES256", Some(Algorithm::Es256)),
            ("RS256", Some(Algorithm::Rs256)),
            ("PS256", Some(Algorithm::Ps256)),
            ("HS256", None),
            ("none", None),
            ("es256", None),
            ("", None),
        ] {
            assert_eq!(name.parse().ok(), expected, "{name}");
            let setting = serde_json::from_value(name.into());
            assert_eq!(setting.ok(), expected, "{name}");
        }
        assert_eq!(Algorithm::EdDsa.as_ref(), "EdDSA", "what verifiers know");
    }
}
