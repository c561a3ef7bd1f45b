//! The nonces of DPoP proofs (RFC 9449 §8): a time under a MAC. They are stored nowhere, every replica accepts those of the
//! others, and one nonce serves any number of proofs while it lives.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    keys::{KeyError, Keyring},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use strum::EnumString;
use subtle::ConstantTimeEq;

use super::purpose;

/// Separates these MACs from all others.
const LABEL: &[u8] = b"accord dpop nonce v1";
/// How long a nonce is accepted.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How far the clock of the replica that made a nonce may be ahead.
const MAX_AHEAD: Duration = Duration::from_secs(10);
/// The version of the key, and the time in milliseconds since 1970.
const CONTENT_BYTES: usize = 4 + 8;
/// A MAC of 128 bits.
const MAC_BYTES: usize = 16;

/// Whether proofs must have a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, Deserialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum NoncePolicy {
    /// A proof may have none.
    #[default]
    Optional,
    /// A proof without one is answered with one.
    Required,
}

/// Makes a nonce: 38 characters of base64url.
///
/// # Errors
/// [`KeyError::NotOpened`].
pub fn issue(keyring: &Keyring, now: UnixMillis) -> Result<String, KeyError> {
    let key = keyring.current(purpose::DPOP_NONCE)?;
    let content = [&key.version().to_be_bytes()[..], &now.as_millis().to_be_bytes()].concat();
    let mac = key.hmac(&[LABEL, &content]);
    Ok(URL_SAFE_NO_PAD.encode([&content, &mac[..MAC_BYTES]].concat()))
}

/// Returns whether a nonce is one of this service's that is accepted now, under any version of the key.
pub fn is_valid(keyring: &Keyring, nonce: &str, now: UnixMillis) -> bool {
    made_at(keyring, nonce).is_some_and(|at| at <= now.plus(MAX_AHEAD) && now < at.plus(LIFETIME))
}

/// Returns when a nonce of this service was made.
fn made_at(keyring: &Keyring, nonce: &str) -> Option<UnixMillis> {
    let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
    let (content, mac) = bytes.split_at_checked(CONTENT_BYTES)?;
    let (version, made_at) = content.split_at(4);
    let version = i32::from_be_bytes(version.try_into().ok()?);
    let key = keyring.version(purpose::DPOP_NONCE, version)?;
    let right = key.hmac(&[LABEL, content]);
    let made_at = UnixMillis::from_millis(i64::from_be_bytes(made_at.try_into().ok()?));
    bool::from(right[..MAC_BYTES].ct_eq(mac)).then_some(made_at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::testing::{TEST_START, keyring};

    use super::*;

    #[test]
    fn a_nonce_lives_ten_minutes() {
        let keyring = keyring(purpose::DPOP_NONCE, &[1]);
        let nonce = issue(&keyring, TEST_START).unwrap();
        assert_eq!(nonce.len(), 38);
        let second = Duration::from_secs(1);
        for (now, accepted) in [
            (TEST_START.minus(MAX_AHEAD + second), false),
            (TEST_START.minus(MAX_AHEAD), true),
            (TEST_START, true),
            (TEST_START.plus(LIFETIME - second), true),
            (TEST_START.plus(LIFETIME), false),
        ] {
            assert_eq!(is_valid(&keyring, &nonce, now), accepted, "{now:?}");
        }
    }

    #[test]
    fn a_nonce_outlives_the_version_of_its_key() {
        let old = keyring(purpose::DPOP_NONCE, &[1]);
        let both = keyring(purpose::DPOP_NONCE, &[1, 2]);
        let new = keyring(purpose::DPOP_NONCE, &[2]);
        let nonce = issue(&old, TEST_START).unwrap();
        assert!(is_valid(&both, &nonce, TEST_START));
        assert!(!is_valid(&new, &nonce, TEST_START));
        let newer = issue(&both, TEST_START).unwrap();
        assert!(is_valid(&new, &newer, TEST_START) && !is_valid(&old, &newer, TEST_START));
    }

    #[test]
    fn altered_nonces_are_none_of_this_service() {
        let keyring = keyring(purpose::DPOP_NONCE, &[1]);
        let nonce = issue(&keyring, TEST_START).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&nonce).unwrap();
        for position in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 1;
            let altered = URL_SAFE_NO_PAD.encode(altered);
            assert!(!is_valid(&keyring, &altered, TEST_START), "{position}");
            let short = URL_SAFE_NO_PAD.encode(&bytes[..position]);
            assert!(!is_valid(&keyring, &short, TEST_START), "{position}");
        }
        for other in ["", "n", &format!("{nonce}A"), &format!("{nonce}=")] {
            assert!(!is_valid(&keyring, other, TEST_START), "{other}");
        }
    }
}
