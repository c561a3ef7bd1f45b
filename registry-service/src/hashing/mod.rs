//! Hashes Client Secrets and passwords with argon2id (RFC 9106), a pepper from the keyring, and the owner's id as
//! associated data.
//!
//! Checks of passwords, checks of live Client Secrets, and new hashes have a bounded queue each, so that none waits
//! behind another. A full queue rejects at once. Runs happen on threads of their own (`threads`).

pub mod secret_tag;
mod threads;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use accord::{
    keys::DataKey,
    lock::Lock,
    metrics::{ARGON2_QUEUE, ARGON2_REJECTED, ARGON2_WAIT},
    random::SharedRandom,
    store::keyring::SharedKeyring,
    text::id::SecretId,
};
use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, AssociatedData, Params, ParamsBuilder, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::{
    sync::{OwnedMutexGuard, Semaphore},
    time::Instant,
};
use zeroize::Zeroizing;

use self::threads::{Memory, Threads};
use crate::{
    error::{Error, Result},
    model::{argon2_hash::Argon2Hash, purpose},
};

/// Memory of a run, in KiB: 19 MiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Callers that a queue admits for each of its threads. At about 15 ms a run the last one waits a second.
const SLOTS_PER_THREAD: usize = 64;
/// Callers that may check one secret or wait to do so. Replicas of token-service may check the same one.
const CHECKS_OF_A_SECRET: usize = 16;

/// Computes and checks hashes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hasher {
    keyring: SharedKeyring,
    random: SharedRandom,
    passwords: Queue,
    secrets: Queue,
    new_hashes: Queue,
    /// A lock for each secret that is being checked.
    check_locks: Arc<Lock<HashMap<SecretId, Weak<tokio::sync::Mutex<()>>>>>,
    runs: Arc<AtomicU64>,
}

impl Hasher {
    /// Creates a hasher with the keyring's peppers. The keyring holds [`purpose::PEPPER`].
    pub fn new(keyring: SharedKeyring, random: SharedRandom) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            keyring,
            random,
            // Anyone can cause these runs, so their thread yields to everything else.
            passwords: Queue::new("passwords", Threads::new("argon2-password", true), 1),
            secrets: Queue::new(
                "secrets",
                Threads::new("argon2-secret", false),
                cores.saturating_sub(1).max(1),
            ),
            new_hashes: Queue::new("new_hashes", Threads::new("argon2-new", false), 1),
            check_locks: Arc::default(),
            runs: Arc::default(),
        }
    }

    /// Returns the number of runs so far.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Hashes a new secret or password of `owner` under the current pepper and a random salt.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Key`], [`Error::Hashing`].
    pub async fn hash(&self, owner: &str, secret: Zeroizing<Vec<u8>>) -> Result<Argon2Hash> {
        let (hasher, owner, pepper) = (self.clone(), owner.to_owned(), self.pepper(None).await?);
        let work = move |memory: &mut Memory| hasher.hash_now(memory, &pepper, &owner, &secret);
        self.new_hashes.run((), work).await
    }

    /// Returns whether `stored` is the hash of `secret` for `owner`. Checks of one secret run one after the other.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Key`], [`Error::Hashing`].
    pub async fn verify_secret(
        &self,
        owner: &str,
        secret_id: &SecretId,
        secret: Zeroizing<Vec<u8>>,
        stored: &Argon2Hash,
    ) -> Result<bool> {
        let lock = self.lock(secret_id).await?;
        let pepper = self.pepper(Some(stored)).await?;
        let (hasher, owner, stored) = (self.clone(), owner.to_owned(), stored.clone());
        let work = move |memory: &mut Memory| hasher.verify_now(memory, &pepper, &owner, &secret, &stored);
        self.secrets.run(lock, work).await
    }

    /// Returns whether `password` is the one that was hashed. `stored` holds the owner and the hash; without it,
    /// returns false at the same cost.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Key`], [`Error::Hashing`].
    pub async fn verify_password(
        &self,
        password: Zeroizing<Vec<u8>>,
        stored: Option<(&str, &Argon2Hash)>,
    ) -> Result<bool> {
        let pepper = self.pepper(stored.map(|(_, hash)| hash)).await?;
        let stored = stored.map(|(owner, hash)| (owner.to_owned(), hash.clone()));
        let hasher = self.clone();
        let work = move |memory: &mut Memory| match stored {
            Some((owner, hash)) => hasher.verify_now(memory, &pepper, &owner, &password, &hash),
            None => hasher.hash_now(memory, &pepper, "", &password).map(|_| false),
        };
        self.passwords.run((), work).await
    }

    /// Counts a run and logs it, for the benchmark.
    fn count_run(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tracing::debug!("argon2 run");
    }

    /// Waits until no other run checks this secret.
    async fn lock(&self, secret_id: &SecretId) -> Result<OwnedMutexGuard<()>> {
        let lock = {
            let mut locks = self.check_locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(secret_id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(secret_id.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        if Arc::strong_count(&lock) > CHECKS_OF_A_SECRET {
            return Err(Error::Busy);
        }
        Ok(lock.lock_owned().await)
    }

    /// Returns the pepper of a hash, or the one for new hashes.
    async fn pepper(&self, stored: Option<&Argon2Hash>) -> Result<DataKey> {
        let pepper = match stored {
            None => self.keyring.get().await?.current(purpose::PEPPER)?.clone(),
            Some(stored) => {
                let version = stored.pepper_version;
                let keyring = self.keyring.with_version(purpose::PEPPER, version).await?;
                keyring.require(purpose::PEPPER, version)?.clone()
            }
        };
        Ok(pepper)
    }

    fn hash_now(
        &self,
        memory: &mut Memory,
        pepper: &DataKey,
        owner: &str,
        secret: &[u8],
    ) -> Result<Argon2Hash> {
        self.count_run();
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt);
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES)).map_err(|_| Error::Hashing)?;
        let output = output(memory, pepper.expose_for_pepper(), owner, &params, secret, &salt)?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            // Does not contain the owner. If it did, a hash that is moved to another owner's row would still verify.
            params: ParamsString::try_from(&params).map_err(|_| Error::Hashing)?,
            salt: Some(Salt::new(&salt).map_err(|_| Error::Hashing)?),
            hash: Some(output),
        };
        Ok(Argon2Hash {
            phc: hash.to_string(),
            pepper_version: pepper.version(),
        })
    }

    /// Runs at the cost that the stored hash states, so that a release can change the cost of new hashes.
    fn verify_now(
        &self,
        memory: &mut Memory,
        pepper: &DataKey,
        owner: &str,
        secret: &[u8],
        stored: &Argon2Hash,
    ) -> Result<bool> {
        self.count_run();
        let hash = PasswordHash::new(&stored.phc).map_err(|_| Error::Hashing)?;
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
            return Err(Error::Hashing);
        };
        if hash.algorithm != ARGON2ID_IDENT || hash.version != Some(Version::V0x13.into()) {
            return Err(Error::Hashing);
        }
        let params = Params::try_from(&hash).map_err(|_| Error::Hashing)?;
        // `Output` compares in constant time.
        Ok(output(memory, pepper.expose_for_pepper(), owner, &params, secret, salt)? == *expected)
    }
}

/// A bounded queue in front of its threads.
#[derive(Clone, Debug)]
struct Queue {
    /// One for each caller that waits or whose run has not ended.
    slots: Arc<Semaphore>,
    /// One for each thread.
    permits: Arc<Semaphore>,
    threads: Arc<Threads>,
    length: Gauge,
    waits: Histogram,
    rejected: Counter,
}

/// Counts a caller of a queue until its run has ended.
struct InQueue(Gauge);

impl InQueue {
    fn new(length: &Gauge) -> Self {
        length.increment(1.0);
        Self(length.clone())
    }
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Queue {
    /// `name` is the queue's name in metrics.
    fn new(name: &'static str, threads: Arc<Threads>, at_once: usize) -> Self {
        Self {
            length: gauge!(ARGON2_QUEUE, "queue" => name),
            waits: histogram!(ARGON2_WAIT, "queue" => name),
            rejected: counter!(ARGON2_REJECTED, "queue" => name),
            slots: Arc::new(Semaphore::new(SLOTS_PER_THREAD * at_once)),
            permits: Arc::new(Semaphore::new(at_once)),
            threads,
        }
    }

    /// Runs `work`. Holds its slot, its permit and `guard` until it ends, even if the caller goes away.
    async fn run<T: Send + 'static>(
        &self,
        guard: impl Send + 'static,
        work: impl FnOnce(&mut Memory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| {
            self.rejected.increment(1);
            Error::Busy
        })?;
        let (in_queue, begun) = (InQueue::new(&self.length), Instant::now());
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Hashing)?;
        self.waits.record(begun.elapsed());
        self.threads.run((slot, permit, guard, in_queue), work).await
    }
}

/// Runs argon2id with the owner as associated data.
fn output(
    memory: &mut Memory,
    pepper: &[u8; 32],
    owner: &str,
    params: &Params,
    secret: &[u8],
    salt: &[u8],
) -> Result<Output> {
    let owner = AssociatedData::new(owner.as_bytes()).map_err(|_| Error::Hashing)?;
    let mut with_owner = ParamsBuilder::new();
    with_owner
        .m_cost(params.m_cost())
        .t_cost(params.t_cost())
        .p_cost(params.p_cost())
        .data(owner);
    let with_owner = with_owner.build().map_err(|_| Error::Hashing)?;
    let argon2 = Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, with_owner)
        .map_err(|_| Error::Hashing)?;
    let mut buffer = [0; Output::MAX_LENGTH];
    let length = params.output_len().unwrap_or(HASH_BYTES);
    let hash = buffer.get_mut(..length).ok_or(Error::Hashing)?;
    memory.fill(&argon2, secret, salt, hash)?;
    Output::new(hash).map_err(|_| Error::Hashing)
}

#[cfg(test)]
mod tests;
