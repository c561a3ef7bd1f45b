//! The keys that tag Client Secrets.

use accord::{
    keys::{DataKey, KeyError, Keyring},
    text::opaque::SecretTagKey,
};
use zeroize::Zeroizing;

use crate::model::purpose;

/// Returns the key that new secrets are tagged with.
pub fn current(keyring: &Keyring) -> Result<SecretTagKey, KeyError> {
    keyring.current(purpose::SECRET_TAG).map(tag_key)
}

/// Returns the key of the version that a secret's row names.
pub fn require(keyring: &Keyring, version: i32) -> Result<SecretTagKey, KeyError> {
    keyring.require(purpose::SECRET_TAG, version).map(tag_key)
}

/// Returns every key that a secret may be tagged with, the newest first.
pub fn all(keyring: &Keyring) -> impl Iterator<Item = SecretTagKey> {
    keyring.versions(purpose::SECRET_TAG).map(tag_key)
}

/// Returns the bytes of every key, by version, for token-service, which checks tags too. These keys serve for tags
/// only.
pub fn exposed(keyring: &Keyring) -> Vec<(i32, Zeroizing<[u8; 32]>)> {
    let keys = keyring.versions(purpose::SECRET_TAG);
    keys.map(|key| (key.version(), derived(key))).collect()
}

fn tag_key(key: &DataKey) -> SecretTagKey {
    SecretTagKey::new(key.version(), &derived(key))
}

fn derived(key: &DataKey) -> Zeroizing<[u8; 32]> {
    key.derive(b"", &[b"client secret tag"])
}
