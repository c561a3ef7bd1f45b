//! A keyring that follows its table while a service runs.
//!
//! A replica uses no keyring that it read more than [`MAX_AGE`] ago, and a new version waits longer than that before its
//! first use. So every replica has the key of whatever another one seals, signs or hashes. If it lacks a version all the
//! same, it reads the table at once.
//!
//! Reading the table and opening new versions are two steps. A master key may be in a token that does not answer: whoever needs
//! only the versions in memory does not wait for it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, time::Instant};

use super::{Database, StoreError, is_active, open, read, record_age, row, unwrap_row, use_for_macs};
use crate::{
    clock::SharedClock,
    keys::{DataKey, KeyError, Keyring, MasterKeys},
    random::Random,
};

/// How often a service reads its keyring.
pub const READ_EVERY: Duration = Duration::from_secs(10);
/// How long a keyring may be used after it was read.
pub(super) const MAX_AGE: Duration = Duration::from_secs(30);
/// How long an unknown version is not read again after it was not found, so that a damaged row costs little.
pub(super) const RETRY_UNKNOWN: Duration = Duration::from_secs(1);

/// A service's keyring. Cheap to clone.
#[derive(Clone, derive_more::Debug)]
#[debug("{:?}", _0.read.load().keyring)]
pub struct SharedKeyring(Arc<Inner>);

struct Inner {
    db: Database,
    masters: MasterKeys,
    purposes: Vec<&'static str>,
    clock: SharedClock,
    read: ArcSwap<Read>,
    /// Held while the table is read, and whenever `read` changes.
    reading: Mutex<()>,
    /// Held while master keys open new versions. When the last attempt ended.
    opening: Mutex<Option<Instant>>,
}

/// What was read last.
#[derive(Clone)]
struct Read {
    keyring: Arc<Keyring>,
    at: Instant,
    /// By purpose and version.
    unopened: BTreeMap<(String, i32), Unopened>,
}

/// A version that no master key has opened.
#[derive(Clone)]
struct Unopened {
    why: String,
    /// Whether other replicas may use it.
    is_active: bool,
}

impl Read {
    /// Fails if a version in use is unopened.
    fn check_complete(&self) -> Result<(), String> {
        if !self.unopened.values().any(|unopened| unopened.is_active) {
            return Ok(());
        }
        Err(self.unopened().join("; "))
    }

    /// Returns the unopened versions, and why they do not open.
    fn unopened(&self) -> Vec<String> {
        let all = self.unopened.iter();
        all.map(|((purpose, version), unopened)| format!("{purpose} version {version}: {}", unopened.why))
            .collect()
    }
}

impl SharedKeyring {
    /// Opens all versions of these purposes, and creates those that are missing.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn open(
        db: Database,
        masters: MasterKeys,
        purposes: &[&'static str],
        clock: SharedClock,
        random: &dyn Random,
    ) -> Result<Self, StoreError> {
        let at = Instant::now();
        let keyring = open(&db, &masters, purposes, &*clock, random).await?;
        Ok(Self(Arc::new(Inner {
            db,
            masters,
            purposes: purposes.to_vec(),
            clock,
            read: ArcSwap::from_pointee(Read {
                keyring: Arc::new(keyring),
                at,
                unopened: BTreeMap::new(),
            }),
            reading: Mutex::default(),
            opening: Mutex::default(),
        })))
    }

    /// Returns the keyring. Reads it first if the one in memory is too old. Does not wait for a master key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it can't be read.
    pub async fn get(&self) -> Result<Arc<Keyring>, StoreError> {
        Ok(self.recent().await?.keyring.clone())
    }

    /// Returns the keyring in memory, for a transaction, which must wait for neither table nor token. Call [`Self::get`] before
    /// the transaction begins.
    pub fn loaded(&self) -> Arc<Keyring> {
        self.0.read.load().keyring.clone()
    }

    /// Returns the keyring if it has every version that other replicas may use, for a look-up that must not miss one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it lacks one, or can't be read.
    pub async fn complete(&self) -> Result<Arc<Keyring>, StoreError> {
        let read = self.recent().await?;
        read.check_complete().map_err(StoreError::unavailable)?;
        Ok(read.keyring.clone())
    }

    async fn recent(&self) -> Result<Arc<Read>, StoreError> {
        let read = self.0.read.load_full();
        if read.at.elapsed() <= MAX_AGE {
            return Ok(read);
        }
        Box::pin(self.read_table(Instant::now())).await?;
        Ok(self.0.read.load_full())
    }

    /// Returns a keyring that has this version, for a value that names it. Reads the table if it is unknown.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if no replica can have added it yet, or no master key opens it.
    pub async fn with_version(&self, purpose: &str, version: i32) -> Result<Arc<Keyring>, StoreError> {
        let keyring = self.find_version(purpose, version).await?;
        keyring.ok_or_else(|| {
            StoreError::unavailable(format!(
                "the data key `{purpose}` has no version {version} that can be opened"
            ))
        })
    }

    /// Does the same, but returns `None` for a version that can't be opened: whoever verifies what others may have edited names
    /// it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the table can't be read.
    pub async fn find_version(
        &self,
        purpose: &str,
        version: i32,
    ) -> Result<Option<Arc<Keyring>>, StoreError> {
        let keyring = self.get().await?;
        if keyring.version(purpose, version).is_some() {
            return Ok(Some(keyring));
        }
        if self.0.read.load().at.elapsed() >= RETRY_UNKNOWN {
            Box::pin(self.refresh()).await?;
        }
        let keyring = self.loaded();
        let is_known = keyring.version(purpose, version).is_some();
        Ok(is_known.then_some(keyring))
    }

    /// Reads the table: opens new versions, and begins to use those whose time has come. Goes on without a version that no
    /// master key opens. Reads the master key's file again before it gives one up.
    ///
    /// # Errors
    /// [`StoreError`] if the table can't be read; then the keyring in memory stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let called_at = Instant::now();
        let unknown = self.read_table(called_at).await?;
        if unknown.is_empty() {
            return Ok(());
        }
        let mut attempted_at = self.0.opening.lock().await;
        // Whoever has waited for an attempt shares it: each lasts as long as a token may keep silent.
        if attempted_at.is_none_or(|at| at < called_at) {
            self.open_versions(unknown).await;
            *attempted_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Reads the table, and uses the versions in memory from now on whose time has come. Returns the rows of the others.
    async fn read_table(&self, called_at: Instant) -> Result<Vec<row::Model>, StoreError> {
        let this = &*self.0;
        let _reading = this.reading.lock().await;
        let before = this.read.load_full();
        // Callers of the same moment share a read. Only one that returns rows to open is not shared.
        if before.at >= called_at && before.unopened.is_empty() {
            return Ok(Vec::new());
        }
        // What an old primary answers after a failover may lack a version.
        this.db.check_current().await?;
        let at = Instant::now();
        let rows = read(&this.db, &this.purposes).await?;
        let now = this.clock.now();
        let (mut keyring, mut unknown) = (Keyring::new(&this.purposes), Vec::new());
        let mut unopened = BTreeMap::new();
        for row in rows {
            record_age(&row);
            let is_active = is_active(&row, now);
            if let Some(known) = before.keyring.version(&row.purpose, row.version) {
                keyring.insert(&row.purpose, known.clone(), is_active);
                continue;
            }
            let name = (row.purpose.clone(), row.version);
            let earlier = before.unopened.get(&name);
            let why = earlier.map_or_else(|| "not opened yet".to_owned(), |earlier| earlier.why.clone());
            unopened.insert(name, Unopened { why, is_active });
            unknown.push(row);
        }
        // A new version is used a minute after it was added.
        keyring.set_table(at + MAX_AGE, unopened.keys().cloned());
        self.replace(Read {
            keyring: Arc::new(keyring),
            at,
            unopened,
        });
        Ok(unknown)
    }

    /// Opens these versions. Reads the master key's file again before it gives one up. Asks a token that does not answer once.
    async fn open_versions(&self, rows: Vec<row::Model>) {
        let this = &*self.0;
        let (mut results, mut reopened, mut silent) = (Vec::new(), false, HashSet::new());
        for row in rows {
            if silent.contains(&row.master_key_id) {
                let error = KeyError::Token("it did not answer for another version".to_owned());
                results.push((row, Err(error)));
                continue;
            }
            let mut opened = unwrap_row(&this.masters, &row).await;
            if opened.is_err() && !reopened {
                reopened = true;
                opened = match this.masters.reopen().await {
                    Ok(()) => unwrap_row(&this.masters, &row).await,
                    Err(error) => Err(error),
                };
            }
            if let Err(KeyError::Token(_)) = opened {
                silent.insert(row.master_key_id.clone());
            }
            let opened = opened.and_then(|key| DataKey::new(row.version, &key));
            results.push((row, opened));
        }
        let _reading = this.reading.lock().await;
        let before = this.read.load_full();
        let (mut next, now) = (Read::clone(&before), this.clock.now());
        let mut keyring = Keyring::clone(&next.keyring);
        for (row, opened) in results {
            let is_active = is_active(&row, now);
            let name = (row.purpose.clone(), row.version);
            match opened {
                Ok(key) => {
                    tracing::info!(
                        purpose = row.purpose,
                        version = row.version,
                        is_active,
                        "data key read"
                    );
                    keyring.insert(&row.purpose, key, is_active);
                    next.unopened.remove(&name);
                }
                Err(error) => {
                    let why = error.to_string();
                    next.unopened.insert(name, Unopened { why, is_active });
                }
            }
        }
        keyring.set_table(next.at + MAX_AGE, next.unopened.keys().cloned());
        let unopened = next.unopened();
        if unopened != before.unopened() && !unopened.is_empty() {
            tracing::warn!(?unopened, "data keys that no master key opens");
        }
        next.keyring = Arc::new(keyring);
        self.replace(next);
    }

    /// Uses what was read from now on.
    fn replace(&self, read: Read) {
        use_for_macs(&self.0.db, &self.0.purposes, &read.keyring);
        self.0.read.store(Arc::new(read));
    }

    /// Fails if a version that other replicas may use already can't be opened: look-ups by its hashes would miss rows.
    ///
    /// # Errors
    /// The versions, and why they do not open.
    pub fn check_complete(&self) -> Result<(), String> {
        self.0.read.load().check_complete()
    }
}
