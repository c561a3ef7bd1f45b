//! The keyring: the versions of each data key, in memory. Does not know where they are stored.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use tokio::time::Instant;

use super::{DataKey, KeyError};

/// The data keys of some purposes. `Debug` shows only purposes and versions.
#[derive(Clone)]
pub struct Keyring {
    keys: HashMap<&'static str, Versions>,
    table: Option<Table>,
}

/// What is known of the table that the keys were read from.
#[derive(Clone)]
struct Table {
    /// Until when nobody uses a version that the table did not have.
    complete_until: Instant,
    /// The versions that it had and that did not open.
    unopened: HashSet<(String, i32)>,
}

/// The keys of a purpose.
#[derive(Clone, Default)]
struct Versions {
    keys: BTreeMap<i32, DataKey>,
    /// The newest version that may seal and sign.
    active: Option<i32>,
}

impl Table {
    /// Returns whether nobody can have this version, which the keyring does not have.
    fn has_no(&self, purpose: &str, version: i32) -> bool {
        Instant::now() <= self.complete_until && !self.unopened.contains(&(purpose.to_owned(), version))
    }
}

impl Keyring {
    pub(crate) fn new(purposes: &[&'static str]) -> Self {
        let keys = purposes.iter().map(|purpose| (*purpose, Versions::default()));
        Self {
            keys: keys.collect(),
            table: None,
        }
    }

    /// Says what the table had beside the keys, and until when nobody uses a version that it did not have.
    pub(crate) fn set_table(
        &mut self,
        complete_until: Instant,
        unopened: impl IntoIterator<Item = (String, i32)>,
    ) {
        let unopened = unopened.into_iter().collect();
        self.table = Some(Table {
            complete_until,
            unopened,
        });
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

    /// Returns the key of a version, for a MAC that names it; `None` if nobody has such a key, so that the MAC is forged.
    ///
    /// # Errors
    /// [`KeyError::UnknownVersion`] for a version that others may have: one that does not open here, or that may be newer than what
    /// was read.
    pub fn for_mac(&self, purpose: &str, version: i32) -> Result<Option<&DataKey>, KeyError> {
        match (self.require(purpose, version), &self.table) {
            (Err(_), Some(table)) if table.has_no(purpose, version) => Ok(None),
            (key, _) => key.map(Some),
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_version_that_nobody_has_is_told_from_one_that_others_may_have() {
        let mut keyring = Keyring::new(&["macs"]);
        keyring.insert("macs", DataKey::new(1, &[1; 32]).unwrap(), true);
        assert!(
            keyring.for_mac("macs", 2).is_err(),
            "nothing is known of the table"
        );
        let a_moment = Duration::from_secs(30);
        keyring.set_table(Instant::now() + a_moment, [("macs".to_owned(), 2)]);
        assert_eq!(keyring.for_mac("macs", 1).unwrap().unwrap().version(), 1);
        assert!(keyring.for_mac("macs", 2).is_err(), "it did not open");
        assert!(keyring.for_mac("macs", 3).unwrap().is_none());
        advance(a_moment + Duration::from_millis(1)).await;
        assert!(keyring.for_mac("macs", 3).is_err(), "it may be new");
    }
}
