//! Delays after failed sign-ins. They slow guessing down and lock nobody out. A failure delays later attempts for its
//! account from any address, and later attempts from its address for any account. The delays fade.
//!
//! They do not depend on whether an account exists, and so do not reveal it. The rules and their reasons are in
//! `docs/decisions/0012-sign-in-delays.md`.

use std::{array::from_fn, net::IpAddr, sync::Arc, time::Duration};

use accord::{
    clock::UnixMillis,
    lock::Lock,
    random::Random,
    text::{account_name::AccountName, id::TenantId, parts::with_lengths},
};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

mod tally;

use tally::{Key, Tally};

/// The first delay that is not zero.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// The longest delay.
pub const MAX_DELAY: Duration = Duration::from_secs(4);
/// How many failures of an account cause no delay.
const FREE_PER_ACCOUNT: u32 = 3;
/// How many failures from an address cause no delay: the people of an office share one address.
const FREE_PER_ADDRESS: u32 = 10;
/// The most attempts under way from one address.
const MAX_PER_ADDRESS: u32 = 8;
/// The most entries of each tally.
const MAX_KEYS: usize = 65_536;

// The indexes of an attempt's keys and of their tallies: account, address, and the pair of both. A success forgets the
// failures of the pair.
const ACCOUNT: usize = 0;
const ADDRESS: usize = 1;
const PAIR: usize = 2;

/// Counts failed sign-ins in memory, under keyed hashes with a random key of the process. Cheap to clone; clones share
/// the counts.
#[derive(Clone, derive_more::Debug)]
#[debug("SignInDelays([redacted])")]
pub struct SignInDelays(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    tallies: Lock<[Tally; 3]>,
}

/// An attempt under way. It counts as a failure from its beginning, and stays one unless [`Self::succeeded`] forgets it:
/// so an attempt whose caller hangs up, or that nobody could check, leaves the same trace whatever its password.
#[derive(derive_more::Debug)]
#[must_use]
#[debug("Attempt {{ delay: {delay:?}, .. }}")]
pub struct Attempt {
    delays: SignInDelays,
    /// The keys that the attempt is counted under; `None` without an address, or if there was no room for the key.
    keys: [Option<Key>; 3],
    delay: Duration,
}

impl SignInDelays {
    /// Creates delays without any failures.
    pub fn new(random: &dyn Random) -> Self {
        Self::with_room(random, MAX_KEYS)
    }

    fn with_room(random: &dyn Random, max_keys: usize) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        Self(Arc::new(Inner {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            tallies: Lock::new(from_fn(|_| Tally::new(max_keys))),
        }))
    }

    /// Begins an attempt, before its password is checked. `account_name` is as it was sent. `address` is the browser's.
    /// Without one, only the account's failures delay the attempt: an internal service that sends no address limits its
    /// users itself.
    ///
    /// # Errors
    /// [`Error::TooManySignIns`] if eight attempts from this address are under way, or if more attempts of this address on
    /// this account are under way than may still fail without a delay. Attempts from other addresses never cause it.
    pub fn begin(
        &self,
        tenant_id: &TenantId,
        account_name: &str,
        address: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<Attempt> {
        let account = self.account(tenant_id, account_name);
        let address = address.map(|address| self.address(address));
        let pair = address.map(|address| self.hash(b"pair", &[&account, &address]));
        let keys = [Some(account), address, pair];
        let mut tallies = self.0.tallies.lock();
        let count = |at: usize| {
            keys[at]
                .map(|key| tallies[at].count(&key, now))
                .unwrap_or_default()
        };
        let (account_count, address_count, pair_count) = (count(ACCOUNT), count(ADDRESS), count(PAIR));
        let address_delay = delay(address_count.failures, FREE_PER_ADDRESS);
        let mut delay = delay(account_count.failures, FREE_PER_ACCOUNT).max(address_delay);
        let ended = pair_count.failures.saturating_sub(pair_count.under_way);
        let free = FREE_PER_ACCOUNT.saturating_sub(ended);
        if address_count.under_way >= MAX_PER_ADDRESS || pair_count.under_way > free {
            return Err(Error::TooManySignIns(delay.max(Duration::from_secs(1))));
        }
        let counted = from_fn(|at| keys[at].filter(|key| tallies[at].begin(*key, now)));
        drop(tallies);
        // An attempt that can't be counted gets the longest delay. Otherwise a flood of keys would remove all delays.
        if counted != keys {
            delay = MAX_DELAY;
        }
        Ok(Attempt {
            delays: self.clone(),
            keys: counted,
            delay,
        })
    }

    /// Returns the key of an account. Spellings that the registry takes for one name share a key. So do, in each tenant, all
    /// texts that can't be names.
    fn account(&self, tenant_id: &TenantId, account_name: &str) -> Key {
        let tenant = tenant_id.as_str().as_bytes();
        match AccountName::parse(account_name) {
            Ok(name) => self.hash(b"account", &[tenant, name.expose().as_bytes()]),
            Err(_) => self.hash(b"no account", &[tenant]),
        }
    }

    /// Returns the key of an IPv4 address, or of the /64 network of an IPv6 address: a host can use all of its network.
    fn address(&self, address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(address) => self.hash(b"address", &[&address.octets()]),
            IpAddr::V6(address) => self.hash(b"address", &[&address.octets()[..8]]),
        }
    }

    fn hash(&self, what: &[u8], parts: &[&[u8]]) -> Key {
        let mut context = hmac::Context::with_key(&self.0.key);
        with_lengths([&[what], parts].concat(), |part| context.update(part));
        let mut key = [0; 16];
        key.copy_from_slice(&context.sign().as_ref()[..16]);
        key
    }
}

/// Returns the delay after this many failures, of which the first `free` cause none.
fn delay(failures: u32, free: u32) -> Duration {
    failures.checked_sub(free).map_or(Duration::ZERO, |doublings| {
        let times = 2_u32.saturating_pow(doublings);
        FIRST_DELAY.saturating_mul(times).min(MAX_DELAY)
    })
}

impl Attempt {
    /// Returns how long to wait before the password is checked; at most [`MAX_DELAY`].
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Ends the attempt when its caller receives the answer that the password is right. Forgets the failures of this
    /// account from this address, which were typing errors; keeps those from other addresses.
    pub fn succeeded(self, now: UnixMillis) {
        // Without an address, only this attempt itself.
        let forgotten =
            self.keys[PAIR].map_or(1.0, |pair| self.delays.0.tallies.lock()[PAIR].forget(&pair, now));
        self.each(|tally, key| tally.subtract(key, forgotten, now));
    }

    fn each(&self, mut change: impl FnMut(&mut Tally, &Key)) {
        for (tally, key) in self.delays.0.tallies.lock().iter_mut().zip(&self.keys) {
            if let Some(key) = key {
                change(tally, key);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.each(Tally::end);
    }
}

#[cfg(test)]
mod tests;
