//! Slows the guessing of passwords down, and locks nobody out: a failed sign-in makes later ones wait,
//! for the account from wherever they come and for the address whatever the account, and that fades.
//!
//! It knows no accounts and asks nobody, so an unknown one is treated as any other. The rules and their
//! reasons are in `docs/decisions/0012-sign-in-delays.md`.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::{clock::UnixMillis, random::Random, text::id::TenantId};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

mod tally;

use tally::{Key, Tally};

/// The first delay that is not zero.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// No attempt waits longer.
pub const MAX_DELAY: Duration = Duration::from_secs(4);
/// Failures for which an account does not wait.
const FREE_PER_ACCOUNT: u32 = 3;
/// Failures for which an address does not wait: an office of many shares one.
const FREE_PER_ADDRESS: u32 = 10;
/// Attempts that an address may have under way.
const MOST_PER_ADDRESS: u32 = 8;
/// The most accounts, addresses, and pairs of them that are remembered, each.
const MOST_KEYS: usize = 65_536;

/// Remembers failed sign-ins, in this process's memory alone, by hashes under a key of this process.
/// Cheap to clone; clones remember together.
#[derive(Clone)]
pub struct SignInDelays(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    tallies: Mutex<Tallies>,
}

struct Tallies {
    accounts: Tally,
    addresses: Tally,
    /// Of an account and an address: what a success may forget.
    pairs: Tally,
}

/// There are as many attempts under way from this address as may be: nobody else's failures make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts to sign in at a time; try again later")]
pub struct Busy {
    /// How long to wait before the next try: from one to four seconds.
    pub retry_after: Duration,
}

/// An attempt under way. Ends as [`Self::failed`] or [`Self::succeeded`]; dropped without either, it
/// counts as nothing.
#[must_use]
pub struct Attempt {
    delays: SignInDelays,
    account: Option<Key>,
    address: Option<Key>,
    pair: Option<Key>,
    delay: Duration,
}

impl SignInDelays {
    /// Remembers nothing yet.
    pub fn new(random: &dyn Random) -> Self {
        Self::with_room(random, MOST_KEYS)
    }

    fn with_room(random: &dyn Random, most: usize) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        Self(Arc::new(Inner {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            tallies: Mutex::new(Tallies {
                accounts: Tally::new(most),
                addresses: Tally::new(most),
                pairs: Tally::new(most),
            }),
        }))
    }

    /// Begins an attempt to sign in, before the password is looked at. `account_name` is as it was
    /// sent. `address` is the client's; an internal service that names none answers for its own users,
    /// and its attempts wait for the account's failures alone.
    ///
    /// # Errors
    /// [`Busy`], when too many attempts from this address are under way: eight, or one for this account
    /// beside as many as failures for which it would not wait.
    pub fn begin(
        &self,
        tenant_id: &TenantId,
        account_name: &str,
        address: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<Attempt, Busy> {
        let account = self.account(tenant_id, account_name);
        let address = address.map(|address| self.address(address));
        let pair = address.map(|address| self.hash(b"pair", &[&account, &address]));
        let mut tallies = self.tallies();
        // Attempts under way count as failures: else many at once would all be free.
        let mut delay = delay(tallies.accounts.look(&account, now).at_worst(), FREE_PER_ACCOUNT);
        let mut is_busy = false;
        if let (Some(address), Some(pair)) = (&address, &pair) {
            let by_address = tallies.addresses.look(address, now);
            let by_pair = tallies.pairs.look(pair, now);
            let free = FREE_PER_ACCOUNT.saturating_sub(by_pair.failures);
            delay = delay.max(self::delay(by_address.at_worst(), FREE_PER_ADDRESS));
            is_busy = by_address.under_way >= MOST_PER_ADDRESS || by_pair.under_way > free;
        }
        if is_busy {
            return Err(Busy {
                retry_after: delay.max(Duration::from_secs(1)),
            });
        }
        let asked = [Some(account), address, pair];
        let [account, address, pair] = [
            asked[0].filter(|key| tallies.accounts.enter(*key, now)),
            asked[1].filter(|key| tallies.addresses.enter(*key, now)),
            asked[2].filter(|key| tallies.pairs.enter(*key, now)),
        ];
        drop(tallies);
        // What can't be remembered waits longest: a flood must not make guesses free.
        if [account, address, pair] != asked {
            delay = MAX_DELAY;
        }
        Ok(Attempt {
            delays: self.clone(),
            account,
            address,
            pair,
            delay,
        })
    }

    /// The key of an account. Names that the registry takes for one must not be two here, or each
    /// spelling would be guessed at anew. Names in ASCII are one if they differ in case alone; any other
    /// may, in some spelling, be the same as many (NFKC), so all of a tenant's are one.
    fn account(&self, tenant_id: &TenantId, account_name: &str) -> Key {
        let (tenant, name) = (tenant_id.as_str().as_bytes(), account_name.trim());
        if name.is_ascii() {
            let name = Zeroizing::new(name.to_ascii_lowercase());
            self.hash(b"account", &[tenant, name.as_bytes()])
        } else {
            self.hash(b"accounts beyond ASCII", &[tenant])
        }
    }

    /// The key of an address; in IPv6 that of its /64, which is as little as anybody gets.
    fn address(&self, address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(address) => self.hash(b"address", &[&address.octets()]),
            IpAddr::V6(address) => self.hash(b"address", &[&address.octets()[..8]]),
        }
    }

    fn hash(&self, what: &[u8], parts: &[&[u8]]) -> Key {
        let mut context = hmac::Context::with_key(&self.0.key);
        for part in [&[what], parts].concat() {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.sign().as_ref()[..16]);
        key
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an attempt waits after so many failures, of which some are free.
fn delay(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(doublings) => {
            let times = 2_u32.saturating_pow(doublings);
            FIRST_DELAY.saturating_mul(times).min(MAX_DELAY)
        }
    }
}

impl Attempt {
    /// How long to wait before the password is looked at; at most [`MAX_DELAY`].
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Ends the attempt: the password was wrong, or the account was no Tenant Admin's.
    pub fn failed(self, now: UnixMillis) {
        let mut tallies = self.delays.tallies();
        for (tally, key) in tallies.each(&self) {
            tally.add(&key, 1.0, now);
        }
    }

    /// Ends the attempt: the Tenant Admin is there. Failures with this account from this address are
    /// forgotten, since they were mistakes; those from elsewhere are not.
    pub fn succeeded(self, now: UnixMillis) {
        let mut tallies = self.delays.tallies();
        let own = self.pair.map_or(0.0, |pair| tallies.pairs.forget(&pair, now));
        for (tally, key) in tallies.each(&self) {
            tally.add(&key, -own, now);
        }
    }
}

impl Tallies {
    /// The tallies in which an attempt is counted, and where.
    fn each(&mut self, attempt: &Attempt) -> impl Iterator<Item = (&mut Tally, Key)> {
        [
            (&mut self.accounts, attempt.account),
            (&mut self.addresses, attempt.address),
            (&mut self.pairs, attempt.pair),
        ]
        .into_iter()
        .filter_map(|(tally, key)| Some((tally, key?)))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut tallies = self.delays.tallies();
        for (tally, key) in tallies.each(self) {
            tally.leave(&key);
        }
    }
}

impl fmt::Debug for SignInDelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInDelays([redacted])")
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
