//! argon2id for Client Secrets and passwords (RFC 9106), with a pepper from the keyring.
//!
//! Runs happen off the async threads. What strangers can cause takes turns, at most one per core at a
//! time and few enough waiting that the last one is served soon; what is made inside a transaction has a
//! line of its own. A check against nothing costs the same as a check against a stored hash.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use accord::{random::SharedRandom, store::keyring::Keyring};
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::{error::Error, store::purpose};

/// Memory of a run, in KiB: 19 MiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// How many may wait for a turn, for each core: at about 15 ms a run, the last one waits half a second.
const WAITING_PER_CORE: usize = 32;

/// A hash as it is kept. `Debug` leaves the PHC string out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hashed {
    /// The PHC string: algorithm, cost, salt and hash.
    pub phc: String,
    /// Which version of the pepper went into it.
    pub pepper_version: i32,
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashed")
            .field("pepper_version", &self.pepper_version)
            .finish_non_exhaustive()
    }
}

/// Computes and checks hashes.
#[derive(Clone, Debug)]
pub struct Hasher {
    keyring: Arc<Keyring>,
    random: SharedRandom,
    /// For what strangers can cause: one per core.
    permits: Arc<Semaphore>,
    /// Those who have a permit or wait for one: each [`Line`] has its own.
    places: [Arc<Semaphore>; 2],
    /// For new hashes, which are made inside a transaction: they must not queue behind a stranger's
    /// guesses.
    new_permits: Arc<Semaphore>,
    runs: Arc<AtomicU64>,
    /// What a check against nothing is run against.
    decoy: Arc<OnceLock<Hashed>>,
}

impl Hasher {
    /// A hasher with the keyring's peppers. The keyring holds [`purpose::PEPPER`].
    pub fn new(keyring: Arc<Keyring>, random: SharedRandom) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            keyring,
            random,
            permits: Arc::new(Semaphore::new(cores)),
            places: [(); 2].map(|()| Arc::new(Semaphore::new(cores * (1 + WAITING_PER_CORE)))),
            new_permits: Arc::new(Semaphore::new(1)),
            runs: Arc::default(),
            decoy: Arc::default(),
        }
    }

    /// How many runs there have been: what an attempt costs, for tests.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait in this line already.
    pub async fn turn(&self, line: Line) -> Result<Turn, Error> {
        let [secrets, passwords] = &self.places;
        let places = match line {
            Line::Secrets => secrets,
            Line::Passwords => passwords,
        };
        let place = places.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let permit = self.permits.clone().acquire_owned().await;
        Ok(Turn {
            hasher: self.clone(),
            permits: [place, permit.map_err(|_| Error::Hashing)?],
        })
    }

    /// Hashes a secret that is made inside a transaction, under the current pepper and a random salt.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Hashing`].
    pub async fn hash(&self, secret: Zeroizing<Vec<u8>>) -> Result<Hashed, Error> {
        let hasher = self.clone();
        let permit = self.new_permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Hashing)?;
        run(permit, move || hasher.hash_now(&secret)).await
    }

    /// Whether `secret` is the one that was hashed, when its turn has come. Without a stored hash the
    /// answer is no, at the same cost.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Key`], [`Error::Hashing`].
    pub async fn verify(
        &self,
        line: Line,
        secret: Zeroizing<Vec<u8>>,
        stored: Option<&Hashed>,
    ) -> Result<bool, Error> {
        let Turn { hasher, permits } = self.turn(line).await?;
        let stored = stored.cloned();
        run(permits, move || hasher.verify_now(&secret, stored)).await
    }

    fn hash_now(&self, secret: &[u8]) -> Result<Hashed, Error> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let pepper = self.keyring.current(purpose::PEPPER)?;
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt);
        let hash = argon2(pepper.expose_for_pepper())?
            .hash_password_with_salt(secret, &salt)
            .map_err(|_| Error::Hashing)?;
        Ok(Hashed {
            phc: hash.to_string(),
            pepper_version: pepper.version(),
        })
    }

    fn verify_now(&self, secret: &[u8], stored: Option<Hashed>) -> Result<bool, Error> {
        let is_there = stored.is_some();
        let hashed = match stored {
            Some(hashed) => hashed,
            None => self.decoy()?,
        };
        self.runs.fetch_add(1, Ordering::SeqCst);
        let pepper = self.keyring.require(purpose::PEPPER, hashed.pepper_version)?;
        let hash = PasswordHash::new(&hashed.phc).map_err(|_| Error::Hashing)?;
        let matches = argon2(pepper.expose_for_pepper())?
            .verify_password(secret, &hash)
            .is_ok();
        Ok(matches && is_there)
    }

    /// A hash of something that nobody knows; made at the first need, then kept.
    fn decoy(&self) -> Result<Hashed, Error> {
        if let Some(decoy) = self.decoy.get() {
            return Ok(decoy.clone());
        }
        let mut nobody_knows = Zeroizing::new([0; 32]);
        self.random.fill(&mut *nobody_knows);
        let decoy = self.hash_now(&*nobody_knows)?;
        self.runs.fetch_sub(1, Ordering::SeqCst);
        Ok(self.decoy.get_or_init(|| decoy).clone())
    }
}

/// Where to wait: strangers who try out secrets must not keep people from signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Client Secrets.
    Secrets,
    /// Passwords, those that are being chosen among them.
    Passwords,
}

/// Leave for one run. Goes with the work, so that a caller who stops waiting does not let another run
/// begin beside it.
#[derive(Debug)]
pub struct Turn {
    hasher: Hasher,
    permits: [OwnedSemaphorePermit; 2],
}

impl Turn {
    /// Hashes a secret under the current pepper and a random salt.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Hashing`].
    pub async fn hash(self, secret: Zeroizing<Vec<u8>>) -> Result<Hashed, Error> {
        let Self { hasher, permits } = self;
        run(permits, move || hasher.hash_now(&secret)).await
    }
}

/// Runs `work` on a blocking thread, and holds `permits` until it ends.
async fn run<T: Send + 'static>(
    permits: impl Send + 'static,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let run = tokio::task::spawn_blocking(move || {
        let _permits = permits;
        work()
    });
    run.await.map_err(|_| Error::Hashing)?
}

fn argon2(pepper: &[u8; 32]) -> Result<Argon2<'_>, Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| Error::Hashing)?;
    Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params).map_err(|_| Error::Hashing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::testing;

    use super::*;
    use crate::store::testing::store;

    fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn every_byte_counts() {
        let database = testing::sqlite();
        let (store, _) = store(&database.url).await;
        let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
        let long = "x".repeat(100);
        let hashed = hasher.hash(bytes(&format!("{long}a\0b"))).await.unwrap();
        assert!(
            hashed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{}",
            hashed.phc
        );
        for (secret, expected) in [
            (format!("{long}a\0b"), true),
            (format!("{long}a\0c"), false),
            (format!("{long}a"), false),
            (format!("{long}b\0b"), false),
            (long[..72].to_owned(), false),
        ] {
            assert_eq!(
                hasher
                    .verify(Line::Secrets, bytes(&secret), Some(&hashed))
                    .await
                    .unwrap(),
                expected
            );
        }
        let again = hasher.hash(bytes(&format!("{long}a\0b"))).await.unwrap();
        assert_ne!(again.phc, hashed.phc, "each hash has its own salt");
    }

    #[tokio::test]
    async fn few_wait_and_the_next_is_turned_away_without_a_run() {
        let database = testing::sqlite();
        let (store, _) = store(&database.url).await;
        let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
        let places = hasher.places[0].clone();
        let all = u32::try_from(places.available_permits()).unwrap();
        let taken = places.try_acquire_many_owned(all).unwrap();
        let refused = hasher.verify(Line::Secrets, bytes("anything"), None).await;
        assert!(matches!(refused, Err(Error::Busy)));
        assert_eq!(hasher.runs(), 0);
        // Passwords wait elsewhere.
        let password = hasher.verify(Line::Passwords, Zeroizing::default(), None).await;
        assert!(!password.unwrap());
        // What is made inside a transaction has a line of its own.
        hasher.hash(bytes("anything")).await.unwrap();
        drop(taken);
        assert!(
            !hasher
                .verify(Line::Secrets, bytes("anything"), None)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn a_check_against_nothing_is_one_run_and_fails() {
        let database = testing::sqlite();
        let (store, _) = store(&database.url).await;
        let hasher = Hasher::new(store.keyring.clone(), store.random.clone());
        for expected in 1..=2 {
            assert!(
                !hasher
                    .verify(Line::Secrets, bytes("anything"), None)
                    .await
                    .unwrap()
            );
            assert_eq!(hasher.runs(), expected);
        }
    }
}
