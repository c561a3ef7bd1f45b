//! A data key of the keyring, and its operations. Knows neither where keys are stored nor what they protect.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;
use crate::{random::Random, text::parts::with_lengths};

/// The length of every key, in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// A 256-bit random key of one purpose and version. Cheap to clone; zeroized with the last clone. `Debug` shows only
/// the version.
///
/// Each operation uses a key of its own, derived from the random one, so that the output of one operation reveals
/// nothing about another.
#[derive(Clone, derive_more::Debug)]
#[debug("DataKey(version {}, [redacted])", _0.version)]
pub struct DataKey(Arc<Inner>);

struct Inner {
    version: i32,
    authentication: hmac::Key,
    derivation: Zeroizing<[u8; KEY_LENGTH]>,
    pepper: Zeroizing<[u8; KEY_LENGTH]>,
    sealing: LessSafeKey,
}

impl DataKey {
    pub(crate) fn new(version: i32, key: &[u8]) -> Result<Self, KeyError> {
        if key.len() != KEY_LENGTH {
            return Err(KeyError::Sealed);
        }
        let subkey = |label: &[u8]| hkdf_block(b"accord data key", key, &[label]);
        Ok(Self(Arc::new(Inner {
            version,
            authentication: hmac::Key::new(hmac::HMAC_SHA256, subkey(b"hmac").as_slice()),
            derivation: subkey(b"derive"),
            pepper: subkey(b"pepper"),
            sealing: aes_256_gcm(subkey(b"seal").as_slice())?,
        })))
    }

    /// Returns the version within the purpose, from 1. Every sealed or hashed row names it.
    pub fn version(&self) -> i32 {
        self.0.version
    }

    /// Returns HMAC-SHA-256 (RFC 2104) over the parts, each preceded by its length, so that different lists never
    /// have the same encoding. Compare results in constant time.
    pub fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        hmac_parts(&self.0.authentication, parts, &[])
    }

    /// Derives 32 bytes by HKDF-SHA-256 (RFC 5869) with this salt. The info is the parts, each preceded by its
    /// length.
    pub fn derive(&self, salt: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        hkdf_block(salt, self.0.derivation.as_slice(), parts)
    }

    /// Encrypts by AES-256-GCM under a random 96-bit nonce. Returns the nonce, the ciphertext and the 128-bit tag.
    /// They do not contain `aad`, which [`open`](Self::open) needs too. Safe for 2^32 calls.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] for a plaintext beyond the cipher's limit of 64 GiB.
    pub fn seal(&self, random: &dyn Random, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.0.sealing, random, aad, plaintext)
    }

    /// Decrypts what [`seal`](Self::seal) returned for the same key and `aad`.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] for another key, another `aad` or an altered value.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        open(&self.0.sealing, aad, sealed)
    }

    /// Returns the key for argon2's secret input. It must not be stored or printed.
    pub fn expose_for_pepper(&self) -> &[u8; 32] {
        &self.0.pepper
    }
}

/// Creates the cipher's key.
pub(crate) fn aes_256_gcm(key: &[u8]) -> Result<LessSafeKey, KeyError> {
    let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| KeyError::Sealed)?;
    Ok(LessSafeKey::new(key))
}

pub(crate) fn seal(
    key: &LessSafeKey,
    random: &dyn Random,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce);
    let mut sealed = Vec::with_capacity(NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed[NONCE_LEN..]);
    let Ok(tag) = tag else {
        sealed.zeroize();
        return Err(KeyError::TooLong);
    };
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

pub(crate) fn open(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(KeyError::Sealed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Sealed)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut body)
        .map_err(|_| KeyError::Sealed)?
        .len();
    body.truncate(length);
    Ok(body)
}

/// Returns HMAC-SHA-256 over the parts, each preceded by its length, and then over `tail` without a length.
fn hmac_parts(key: &hmac::Key, parts: &[&[u8]], tail: &[u8]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    with_lengths(parts, |part| context.update(part));
    context.update(tail);
    let mut mac = [0; 32];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

/// HKDF-SHA-256 for one block of output: one HMAC extracts, one expands.
fn hkdf_block(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let salt = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let extracted = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, secret).as_ref());
    Zeroizing::new(hmac_parts(&extracted, info, &[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aws_lc_rs::hkdf;

    use super::*;
    use crate::random::SeededRandom;

    fn key(fill: u8) -> DataKey {
        DataKey::new(7, &[fill; 32]).unwrap()
    }

    #[test]
    fn one_block_equals_hkdf() {
        let info = [&5_u64.to_be_bytes()[..], b"label", &0_u64.to_be_bytes()[..]].concat();
        let mut expected = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"salt")
            .extract(b"secret")
            .expand(&[&info], hkdf::HKDF_SHA256)
            .unwrap()
            .fill(&mut expected)
            .unwrap();
        assert_eq!(*hkdf_block(b"salt", b"secret", &[b"label", b""]), expected);
    }

    #[test]
    fn different_parts_have_different_results() {
        let key = key(1);
        assert_eq!(key.hmac(&[b"ab", b"c"]), key.hmac(&[b"ab", b"c"]));
        assert_ne!(key.hmac(&[b"ab", b"c"]), key.hmac(&[b"a", b"bc"]));
        assert_ne!(key.hmac(&[b"ab"]), key.hmac(&[b"ab", b""]));
        assert_ne!(
            *key.derive(b"s", &[b"ab", b"c"]),
            *key.derive(b"s", &[b"a", b"bc"])
        );
        assert_ne!(*key.derive(b"s", &[b"a"]), *key.derive(b"t", &[b"a"]));
        assert_ne!(
            *key.derive(b"s", &[b"a"]),
            *super::tests::key(2).derive(b"s", &[b"a"])
        );
    }

    #[test]
    fn each_operation_has_its_own_key() {
        let key = key(1);
        let inner = &key.0;
        assert_ne!(inner.derivation, inner.pepper);
        assert_ne!(&key.hmac(&[b"a"]), &*key.derive(b"", &[b"a"]));
        assert_ne!(key.expose_for_pepper(), &[1; 32]);
    }

    #[test]
    fn sealed_values_open_only_unaltered() {
        let random = SeededRandom::new(1);
        let key = key(1);
        let sealed = key.seal(&random, b"row 1", b"secret").unwrap();
        assert_eq!(sealed.len(), 12 + 6 + 16);
        assert_eq!(key.open(b"row 1", &sealed).unwrap().as_slice(), b"secret");
        assert!(key.open(b"row 2", &sealed).is_err());
        assert!(super::tests::key(2).open(b"row 1", &sealed).is_err());
        for position in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[position] ^= 1;
            assert!(key.open(b"row 1", &altered).is_err(), "byte {position}");
            assert!(
                key.open(b"row 1", &sealed[..position]).is_err(),
                "length {position}"
            );
        }
        assert_ne!(key.seal(&random, b"row 1", b"secret").unwrap(), sealed);
    }

    #[test]
    fn debug_redacts() {
        assert_eq!(format!("{:?}", key(0xAB)), "DataKey(version 7, [redacted])");
    }
}
