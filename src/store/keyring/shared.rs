//! A keyring that follows its table while a service runs.
//!
//! A replica uses no keyring that it read more than [`MAX_AGE`] ago, and a new version waits longer than that before its
//! first use. So every replica has the key of whatever another one seals, signs or hashes. If it lacks a version all the
//! same, it reads the table at once.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, time::Instant};

use super::{Database, StoreError, is_active, open, read, record_age, unwrap_row, use_for_macs};
use crate::{
    clock::SharedClock,
    keys::{DataKey, Keyring, MasterKeys},
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
    /// Held while the table is read.
    reading: Mutex<()>,
}

/// What was read last.
struct Read {
    keyring: Arc<Keyring>,
    at: Instant,
    /// Versions that no master key opens, and why.
    unopened: Vec<String>,
    /// Whether one of them is in use.
    is_incomplete: bool,
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
                unopened: Vec::new(),
                is_incomplete: false,
            }),
            reading: Mutex::default(),
        })))
    }

    /// Returns the keyring. Reads it first if the one in memory is too old.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it can't be read.
    pub async fn get(&self) -> Result<Arc<Keyring>, StoreError> {
        let read = self.0.read.load();
        if read.at.elapsed() <= MAX_AGE {
            return Ok(read.keyring.clone());
        }
        drop(read);
        Box::pin(self.refresh()).await?;
        Ok(self.0.read.load().keyring.clone())
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
        let keyring = self.0.read.load().keyring.clone();
        let is_known = keyring.version(purpose, version).is_some();
        Ok(is_known.then_some(keyring))
    }

    /// Reads the table: opens new versions, and begins to use those whose time has come. Goes on without a version that no
    /// master key opens. Reads the master key's file again before it gives one up.
    ///
    /// # Errors
    /// [`StoreError`] if the table can't be read; then the keyring in memory stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let this = &*self.0;
        let called_at = Instant::now();
        let _reading = this.reading.lock().await;
        let before = this.read.load_full();
        if before.at >= called_at {
            return Ok(());
        }
        // What an old primary answers after a failover may lack a version.
        this.db.check_current().await?;
        let at = Instant::now();
        let rows = read(&this.db, &this.purposes).await?;
        let now = this.clock.now();
        let mut keyring = Keyring::new(&this.purposes);
        let (mut unopened, mut is_incomplete, mut reopened) = (Vec::new(), false, false);
        for row in rows {
            record_age(&row);
            let is_active = is_active(&row, now);
            if let Some(known) = before.keyring.version(&row.purpose, row.version) {
                keyring.insert(&row.purpose, known.clone(), is_active);
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
            match opened.and_then(|key| DataKey::new(row.version, &key)) {
                Ok(key) => {
                    tracing::info!(
                        purpose = row.purpose,
                        version = row.version,
                        is_active,
                        "data key read"
                    );
                    keyring.insert(&row.purpose, key, is_active);
                }
                Err(error) => {
                    unopened.push(format!("{} version {}: {error}", row.purpose, row.version));
                    is_incomplete |= is_active;
                }
            }
        }
        if unopened != before.unopened && !unopened.is_empty() {
            tracing::warn!(?unopened, "data keys that no master key opens");
        }
        use_for_macs(&this.db, &this.purposes, &keyring);
        this.read.store(Arc::new(Read {
            keyring: Arc::new(keyring),
            at,
            unopened,
            is_incomplete,
        }));
        Ok(())
    }

    /// Fails if a version that other replicas may use already can't be opened: look-ups by its hashes would miss rows.
    ///
    /// # Errors
    /// The versions, and why they do not open.
    pub fn check_complete(&self) -> Result<(), String> {
        let read = self.0.read.load();
        match read.is_incomplete {
            false => Ok(()),
            true => Err(read.unopened.join("; ")),
        }
    }
}
