//! The keyring: the versions of each data key, in memory. Does not know where they are stored.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{DataKey, KeyError};

/// The data keys of some purposes. `Debug` shows only purposes and versions.
pub struct Keyring {
    keys: HashMap<&'static str, BTreeMap<i32, DataKey>>,
}

impl Keyring {
    pub(crate) fn new(purposes: &[&'static str]) -> Self {
        let keys = purposes.iter().map(|purpose| (*purpose, BTreeMap::new()));
        Self { keys: keys.collect() }
    }

    /// Adds a key. Ignores a purpose that the keyring was not opened for.
    pub(crate) fn insert(&mut self, purpose: &str, key: DataKey) {
        if let Some(versions) = self.keys.get_mut(purpose) {
            versions.insert(key.version(), key);
        }
    }

    /// Returns the newest key of a purpose, which seals and signs everything new.
    pub fn current(&self, purpose: &str) -> Result<&DataKey, KeyError> {
        self.versions(purpose)
            .next()
            .ok_or_else(|| KeyError::NotOpened(purpose.to_owned()))
    }

    /// Returns the key of a version, for a value that names it.
    pub fn version(&self, purpose: &str, version: i32) -> Option<&DataKey> {
        self.keys.get(purpose)?.get(&version)
    }

    /// Returns the key of a version, or [`KeyError::UnknownVersion`].
    pub fn require(&self, purpose: &str, version: i32) -> Result<&DataKey, KeyError> {
        self.version(purpose, version)
            .ok_or_else(|| KeyError::UnknownVersion {
                purpose: purpose.to_owned(),
                version,
            })
    }

    /// Returns all keys of a purpose, the newest first; none for a purpose that was not opened.
    pub fn versions(&self, purpose: &str) -> impl Iterator<Item = &DataKey> {
        self.keys
            .get(purpose)
            .into_iter()
            .flat_map(|versions| versions.values().rev())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = |keys: &BTreeMap<i32, DataKey>| keys.keys().copied().collect::<Vec<_>>();
        f.debug_map()
            .entries(self.keys.iter().map(|(p, keys)| (p, versions(keys))))
            .finish()
    }
}
