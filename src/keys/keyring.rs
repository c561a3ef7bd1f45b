//! The keyring: the versions of each data key, in memory. Does not know where they are stored.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{DataKey, KeyError};

/// The data keys of some purposes. `Debug` shows only purposes and versions.
#[derive(Clone)]
pub struct Keyring {
    keys: HashMap<&'static str, Versions>,
}

/// The keys of a purpose.
#[derive(Clone, Default)]
struct Versions {
    keys: BTreeMap<i32, DataKey>,
    /// The newest version that may seal and sign.
    active: Option<i32>,
}

impl Keyring {
    pub(crate) fn new(purposes: &[&'static str]) -> Self {
        let keys = purposes.iter().map(|purpose| (*purpose, Versions::default()));
        Self { keys: keys.collect() }
    }

    /// Adds a key. Unless it is active, it only opens and verifies. Ignores a purpose that the keyring was not opened for.
    pub(crate) fn insert(&mut self, purpose: &str, key: DataKey, is_active: bool) {
        if let Some(versions) = self.keys.get_mut(purpose) {
            if is_active {
                versions.active = versions.active.max(Some(key.version()));
            }
            versions.keys.insert(key.version(), key);
        }
    }

    /// Returns the newest active key of a purpose, which seals and signs everything new. A newer one may wait until every
    /// replica has read it.
    pub fn current(&self, purpose: &str) -> Result<&DataKey, KeyError> {
        let versions = self.keys.get(purpose);
        let current = versions.and_then(|versions| match versions.active {
            Some(version) => versions.keys.get(&version),
            // The clock is behind that of the replica that made the first one.
            None => versions.keys.values().next(),
        });
        current.ok_or_else(|| KeyError::NotOpened(purpose.to_owned()))
    }

    /// Returns the key of a version, for a value that names it.
    pub fn version(&self, purpose: &str, version: i32) -> Option<&DataKey> {
        self.keys.get(purpose)?.keys.get(&version)
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
            .flat_map(|versions| versions.keys.values().rev())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = |versions: &Versions| versions.keys.keys().copied().collect::<Vec<_>>();
        f.debug_map()
            .entries(self.keys.iter().map(|(p, keys)| (p, versions(keys))))
            .finish()
    }
}
