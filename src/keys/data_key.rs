//! One data key of the keyring and what may be done with it. Knows neither where keys are kept nor
//! what they protect.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;
use crate::random::Random;

/// Length of every key here, in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// A 256-bit random key of one purpose and version. Cheap to clone; zeroized when the last clone
/// goes; `Debug` shows the version alone.
///
/// Each use runs under a key of its own, derived from the random one, so that nothing made for one
/// use says anything about another.
#[derive(Clone)]
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

    /// Its version within its purpose, from 1. What is sealed or hashed by the key names it.
    pub fn version(&self) -> i32 {
        self.0.version
    }

    /// HMAC-SHA-256 (RFC 2104) over the parts. Each is preceded by its length, so that no two
    /// lists of parts run together. Compare results in constant time.
    pub fn hmac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac_parts(&self.0.authentication, parts, &[]).as_ref());
        out
    }

    /// HKDF-SHA-256 (RFC 5869) with this salt; the parts, each preceded by its length, are the
    /// info. The same input gives the same 32 bytes.
    pub fn derive(&self, salt: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        hkdf_block(salt, self.0.derivation.as_slice(), parts)
    }

    /// AES-256-GCM under a random 96-bit nonce: the nonce, the ciphertext, the 128-bit tag.
    /// `aad` is not kept, and has to be given again to [`open`](Self::open). Good for 2^32 calls.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] for a plaintext beyond the cipher's limit of 64 GiB.
    pub fn seal(&self, random: &dyn Random, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.0.sealing, random, aad, plaintext)
    }

    /// Opens what [`seal`](Self::seal) made by the same key with the same `aad`.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] when it was made by another key or for another `aad`, or was altered.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        open(&self.0.sealing, aad, sealed)
    }

    /// The key itself in the form for argon2's secret input. Must not be stored or printed.
    pub fn expose_for_pepper(&self) -> &[u8; 32] {
        &self.0.pepper
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey(version {}, [redacted])", self.0.version)
    }
}

/// The key as the cipher wants it.
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
    match tag {
        Ok(tag) => sealed.extend_from_slice(tag.as_ref()),
        Err(_) => {
            sealed.zeroize();
            return Err(KeyError::TooLong);
        }
    }
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

/// HMAC-SHA-256 over length-prefixed parts and then `tail` as it is.
fn hmac_parts(key: &hmac::Key, parts: &[&[u8]], tail: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.update(tail);
    context.sign()
}

/// HKDF-SHA-256 for one block of output, which is one HMAC to extract and one to expand.
fn hkdf_block(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let salt = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let extracted = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salt, secret).as_ref());
    let mut block = Zeroizing::new([0; 32]);
    block.copy_from_slice(hmac_parts(&extracted, info, &[1]).as_ref());
    block
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
    fn the_one_block_form_is_hkdf() {
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
    fn parts_do_not_run_together() {
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
    fn each_use_has_its_own_key() {
        let key = key(1);
        let inner = &key.0;
        assert_ne!(inner.derivation, inner.pepper);
        assert_ne!(&key.hmac(&[b"a"]), &*key.derive(b"", &[b"a"]));
        assert_ne!(key.expose_for_pepper(), &[1; 32]);
    }

    #[test]
    fn what_is_sealed_opens_only_as_it_was() {
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
