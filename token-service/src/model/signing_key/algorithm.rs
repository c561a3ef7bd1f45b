//! The algorithms that sign tokens: how a key pair of each is made, and how it signs. Knows no state of a key.

use std::collections::BTreeMap;

use accord::text::opaque::sha256;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use strum::{AsRefStr, EnumString, VariantArray};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The size of new RSA keys: the smallest one that RFC 7518 §3.3 allows. A signature of 3,072 bits takes three times as
/// long, and a key signs for 90 days.
const RSA_SIZE: KeySize = KeySize::Rsa2048;

/// An algorithm by its JOSE name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, AsRefStr, EnumString, VariantArray, Deserialize)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037 §3.1). RFC 9864 §2.2 names it `Ed25519`, which is accepted too.
    #[default]
    #[strum(to_string = "EdDSA", serialize = "Ed25519")]
    #[serde(rename = "EdDSA", alias = "Ed25519")]
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
    #[strum(to_string = "ES256")]
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    #[strum(to_string = "RS256")]
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256 (RFC 7518 §3.5).
    #[strum(to_string = "PS256")]
    #[serde(rename = "PS256")]
    Ps256,
}

impl Algorithm {
    /// The names that are accepted, for messages.
    pub const NAMES: &str = "EdDSA (or Ed25519), ES256, RS256 or PS256";
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Es256 => Self::ES256,
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Ps256 => Self::PS256,
        }
    }
}

/// A public key: the JWK members that its type requires (RFC 7638 §3.2), by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(BTreeMap<String, String>);

impl PublicKey {
    fn new<const N: usize>(members: [(&str, &str); N]) -> Self {
        Self(
            members
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        )
    }

    /// Parses what [`Self::to_json`] returns.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map(Self).map_err(|_| Error::Signing)
    }

    /// Returns the members in lexicographic order without white space, as RFC 7638 §3 hashes them.
    pub fn to_json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Returns the thumbprint (RFC 7638), which is the key's id.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.to_json().as_bytes()))
    }

    /// Returns a member by its name; empty if keys of this type don't have it.
    pub fn member(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// A new key pair. It has no `Debug`, because it holds a private key.
pub struct NewKey {
    /// The key's id.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The private key, PKCS#8 version 1.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// The public key.
    pub public_key: PublicKey,
}

impl NewKey {
    /// Generates a key pair. Takes up to a second for RSA: call it on a thread that may block, and in no transaction.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let failed = |_| Error::Signing;
        let (pkcs8, public_key) = match algorithm {
            Algorithm::EdDsa => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(failed)?;
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref());
                let x = encode(pair.map_err(|_| Error::Signing)?.public_key().as_ref());
                let public_key = PublicKey::new([("kty", "OKP"), ("crv", "Ed25519"), ("x", &x)]);
                (pkcs8.as_ref().to_vec(), public_key)
            }
            Algorithm::Es256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(failed)?;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref());
                let pair = pair.map_err(|_| Error::Signing)?;
                // An uncompressed point (SEC 1 §2.3.3): 4, x, y.
                let point = pair.public_key().as_ref();
                let coordinates = point.get(1..).and_then(|rest| rest.split_at_checked(32));
                let (x, y) = coordinates.ok_or(Error::Signing)?;
                let (x, y) = (encode(x), encode(y));
                let public_key = PublicKey::new([("kty", "EC"), ("crv", "P-256"), ("x", &x), ("y", &y)]);
                (pkcs8.as_ref().to_vec(), public_key)
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let pair = RsaKeyPair::generate(RSA_SIZE).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                let public_key = PublicKey::new([("kty", "RSA"), ("n", &n), ("e", &e)]);
                (der.as_ref().to_vec(), public_key)
            }
        };
        Ok(Self {
            kid: public_key.thumbprint(),
            algorithm,
            pkcs8: Zeroizing::new(pkcs8),
            public_key,
        })
    }
}

/// A private key, parsed once. It has no `Debug`.
pub(super) enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Algorithm, Box<RsaKeyPair>),
}

impl PrivateKey {
    /// Parses PKCS#8.
    pub(super) fn parse(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self> {
        let key = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map(Self::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Self::P256)
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                RsaKeyPair::from_pkcs8(pkcs8).map(|pair| Self::Rsa(algorithm, Box::new(pair)))
            }
        };
        key.map_err(|_| Error::Signing)
    }

    /// Returns how long a signature is, in bytes.
    pub(super) fn signature_bytes(&self) -> usize {
        match self {
            Self::Ed25519(_) | Self::P256(_) => 64,
            Self::Rsa(_, pair) => pair.public_modulus_len(),
        }
    }

    /// Signs a message as JWS does (RFC 7518 §3).
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| Error::Signing)?.as_ref().to_vec())
            }
            Self::Rsa(algorithm, pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                let signed = match algorithm {
                    // The salt is as long as the hash.
                    Algorithm::Ps256 => pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature),
                    _ => pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature),
                };
                signed.map(|()| signature).map_err(|_| Error::Signing)
            }
        }
    }
}
