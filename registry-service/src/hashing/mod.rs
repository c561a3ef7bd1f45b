//! argon2id for Client Secrets and passwords (RFC 9106), with a pepper from the keyring.
//!
//! Runs happen on threads of their own (`threads.rs`). What strangers can cause takes turns, leaves a core
//! to others, lets few enough wait that the last one is served soon, rests after each wrong guess, and yields to
//! what serves calls; what is made inside a transaction has a line of its own. A check against nothing costs the
//! same as a check against a stored hash.

pub mod secret_tag;
mod threads;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use accord::{keys::Keyring, random::SharedRandom};
use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::sleep,
};
use zeroize::Zeroizing;

use self::threads::{Memory, Priority, Threads};
use crate::{error::Error, model::purpose};

/// Memory of a run, in KiB: 19 MiB.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over the memory.
const PASSES: u32 = 2;
/// Lanes.
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// How many may wait for a turn in each line, for each core. At about 15 ms a run the last one waits a second on
/// two cores and half a second on many; behind wrong secrets alone seven times that, behind wrong passwords three times,
/// and longer while others wait, too, or what serves calls needs the cores.
const WAITING_PER_CORE: usize = 32;
/// How long a turn rests after a wrong secret, in times of what its run took: wrong secrets in one line take a
/// seventh of the cores that are left to them. Of those who mean well only a client whose secret has ended brings one.
const REST_OF_SECRETS: u32 = 6;
/// The same after a wrong password, which people do type: who waits behind one waits for its rest, too.
const REST_OF_PASSWORDS: u32 = 2;
/// The longest rest. A run that had to wait for a core for seconds is no reason for more.
const LONGEST_REST: Duration = Duration::from_millis(200);

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
    /// For what strangers can cause: one for each core but one, which is left to those who serve calls, here
    /// and in other processes; at least one.
    permits: Arc<Semaphore>,
    /// Where to wait for one of them: see [`Line`].
    secrets: Queue,
    guesses: Queue,
    passwords: Queue,
    /// For new hashes, which are made inside a transaction: they must not queue behind a stranger's
    /// guesses.
    new_permits: Arc<Semaphore>,
    /// One for each of the permits.
    threads: Arc<Threads>,
    /// One for new hashes. It is as urgent as what serves calls, since a transaction waits for it and,
    /// on SQLite, everyone who wants to write waits for that.
    new_thread: Arc<Threads>,
    runs: Arc<AtomicU64>,
    /// What a check against nothing is run against.
    decoy: Arc<OnceLock<Hashed>>,
}

impl Hasher {
    /// A hasher with the keyring's peppers. The keyring holds [`purpose::PEPPER`].
    pub fn new(keyring: Arc<Keyring>, random: SharedRandom) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (cores - 1).max(1);
        let queue = || Queue {
            places: Arc::new(Semaphore::new(cores * (1 + WAITING_PER_CORE))),
            turns: Arc::new(Semaphore::new(at_once)),
        };
        Self {
            keyring,
            random,
            permits: Arc::new(Semaphore::new(at_once)),
            secrets: queue(),
            guesses: queue(),
            passwords: queue(),
            new_permits: Arc::new(Semaphore::new(1)),
            threads: Threads::new("argon2", Priority::Low),
            new_thread: Threads::new("argon2-new", Priority::Usual),
            runs: Arc::default(),
            decoy: Arc::default(),
        }
    }

    /// How many runs there have been: what an attempt costs, for tests.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Counts a run, and logs it: the benchmark reads that.
    fn count_run(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tracing::debug!("argon2 run");
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait in this line already.
    pub async fn turn(&self, line: Line) -> Result<Turn, Error> {
        let Queue { places, turns } = self.queue(line);
        let place = places.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let turn = turns.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::Hashing)?;
        let permit = self.permits.clone().acquire_owned().await;
        Ok(Turn {
            hasher: self.clone(),
            turn,
            permits: [place, permit.map_err(|_| Error::Hashing)?],
        })
    }

    fn queue(&self, line: Line) -> &Queue {
        match line {
            Line::Secrets => &self.secrets,
            Line::Guesses => &self.guesses,
            Line::Passwords => &self.passwords,
        }
    }

    /// Takes all places of a line.
    #[cfg(test)]
    pub(crate) fn fill(&self, line: Line) -> OwnedSemaphorePermit {
        let places = self.queue(line).places.clone();
        let all = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
        places
            .try_acquire_many_owned(all)
            .unwrap_or_else(|_| unreachable!())
    }

    /// Hashes a secret that is made inside a transaction, under the current pepper and a random salt.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Hashing`].
    pub async fn hash(&self, secret: Zeroizing<Vec<u8>>) -> Result<Hashed, Error> {
        let hasher = self.clone();
        let permit = self.new_permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Hashing)?;
        let work = move |memory: &mut Memory| hasher.hash_now(memory, &secret);
        self.new_thread.run(permit, work).await
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
        let Turn {
            hasher,
            turn,
            permits,
        } = self.turn(line).await?;
        let (threads, stored) = (self.threads.clone(), stored.cloned());
        let (answer, answered) = oneshot::channel();
        // On its own, so that the turn rests also after those who did not wait for their answer.
        tokio::spawn(async move {
            let began = Instant::now();
            let work = move |memory: &mut Memory| hasher.verify_now(memory, &secret, stored);
            let verified = threads.run(permits, work).await;
            let rests = !matches!(verified, Ok(true));
            let _ = answer.send(verified);
            if rests {
                sleep(line.rest_after(began.elapsed())).await;
            }
            drop(turn);
        });
        answered.await.map_err(|_| Error::Hashing)?
    }

    fn hash_now(&self, memory: &mut Memory, secret: &[u8]) -> Result<Hashed, Error> {
        self.count_run();
        let pepper = self.keyring.current(purpose::PEPPER)?;
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt);
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(|_| Error::Hashing)?;
        let argon2 = argon2(
            pepper.expose_for_pepper(),
            Algorithm::Argon2id,
            Version::V0x13,
            params,
        )?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(argon2.params()).map_err(|_| Error::Hashing)?,
            salt: Some(Salt::new(&salt).map_err(|_| Error::Hashing)?),
            hash: Some(output(memory, &argon2, secret, &salt, HASH_BYTES)?),
        };
        Ok(Hashed {
            phc: hash.to_string(),
            pepper_version: pepper.version(),
        })
    }

    fn verify_now(&self, memory: &mut Memory, secret: &[u8], stored: Option<Hashed>) -> Result<bool, Error> {
        let is_there = stored.is_some();
        let hashed = match stored {
            Some(hashed) => hashed,
            None => self.decoy(memory)?,
        };
        self.count_run();
        let pepper = self.keyring.require(purpose::PEPPER, hashed.pepper_version)?;
        let matches = matches(memory, pepper.expose_for_pepper(), secret, &hashed.phc)?;
        Ok(matches && is_there)
    }

    /// A hash of something that nobody knows; made at the first need, then kept.
    fn decoy(&self, memory: &mut Memory) -> Result<Hashed, Error> {
        if let Some(decoy) = self.decoy.get() {
            return Ok(decoy.clone());
        }
        let mut nobody_knows = Zeroizing::new([0; 32]);
        self.random.fill(&mut *nobody_knows);
        let decoy = self.hash_now(memory, &*nobody_knows)?;
        self.runs.fetch_sub(1, Ordering::SeqCst);
        Ok(self.decoy.get_or_init(|| decoy).clone())
    }
}

/// Where to wait: strangers who try out secrets must not hold up clients that start, nor keep people from signing
/// in. Who is next in any line takes a permit as soon as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Client Secrets that name one that counts.
    Secrets,
    /// Those that name none. A secret's id is too hard to guess: these are guesses of strangers, or secrets that
    /// have ended.
    Guesses,
    /// Passwords, those that are being chosen among them.
    Passwords,
}

impl Line {
    /// How long a turn rests after a wrong guess whose run took so long.
    fn rest_after(self, run: Duration) -> Duration {
        let times = match self {
            Self::Secrets | Self::Guesses => REST_OF_SECRETS,
            Self::Passwords => REST_OF_PASSWORDS,
        };
        LONGEST_REST.min(run * times)
    }
}

/// A line of those who wait.
#[derive(Clone, Debug)]
struct Queue {
    /// Those whose run is under way or who wait.
    places: Arc<Semaphore>,
    /// As many as there are permits, so that each line has the next one for each.
    turns: Arc<Semaphore>,
}

/// Leave for one run. Goes with the work, so that a caller who stops waiting does not let another run
/// begin beside it.
#[derive(Debug)]
pub struct Turn {
    hasher: Hasher,
    /// The turn in its line.
    turn: OwnedSemaphorePermit,
    permits: [OwnedSemaphorePermit; 2],
}

impl Turn {
    /// Hashes a secret under the current pepper and a random salt.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Hashing`].
    pub async fn hash(self, secret: Zeroizing<Vec<u8>>) -> Result<Hashed, Error> {
        let Self {
            hasher,
            turn,
            permits,
        } = self;
        let threads = hasher.threads.clone();
        let work = move |memory: &mut Memory| hasher.hash_now(memory, &secret);
        threads.run((turn, permits), work).await
    }
}

/// Whether `secret` is the one whose PHC string this is. The string's own cost counts, so that hashes of
/// another time can still be checked.
fn matches(memory: &mut Memory, pepper: &[u8; 32], secret: &[u8], phc: &str) -> Result<bool, Error> {
    let stored = PasswordHash::new(phc).map_err(|_| Error::Hashing)?;
    let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
        return Err(Error::Hashing);
    };
    let algorithm = Algorithm::new(stored.algorithm).map_err(|_| Error::Hashing)?;
    let version = stored.version.map(Version::try_from).transpose();
    let version = version.map_err(|_| Error::Hashing)?.unwrap_or_default();
    let params = Params::try_from(&stored).map_err(|_| Error::Hashing)?;
    let argon2 = argon2(pepper, algorithm, version, params)?;
    // Outputs compare in constant time.
    Ok(output(memory, &argon2, secret, salt, expected.len())? == *expected)
}

fn output(
    memory: &mut Memory,
    argon2: &Argon2<'_>,
    secret: &[u8],
    salt: &[u8],
    length: usize,
) -> Result<Output, Error> {
    let mut buffer = [0; Output::MAX_LENGTH];
    let hash = buffer.get_mut(..length).ok_or(Error::Hashing)?;
    memory.fill(argon2, secret, salt, hash)?;
    Output::new(hash).map_err(|_| Error::Hashing)
}

fn argon2(
    pepper: &[u8; 32],
    algorithm: Algorithm,
    version: Version,
    params: Params,
) -> Result<Argon2<'_>, Error> {
    Argon2::new_with_secret(pepper, algorithm, version, params).map_err(|_| Error::Hashing)
}

#[cfg(test)]
mod tests;
