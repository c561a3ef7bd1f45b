//! The keys of clients: those in the registry, or those at the client's own `jwks_uri` (RFC 7591 §2), which are fetched and kept.
//!
//! Anybody can name a client, and so cause a fetch from its URL: at most one a minute for each client.
//!
//! A call waits for a fetch only if it can't do without. Fetched keys are fetched again beside the calls once they are ten minutes
//! old. From fifteen minutes on a call fetches them and waits, unless the last fetch has failed and is 70 seconds old at most, or the
//! next one is under way: then old keys count. So a URL that hangs delays the calls until its first fetch has failed, and then no
//! other one as long as calls come every minute. A key that was removed from the set counts for fifteen minutes, and for 70 seconds more after a fetch that failed.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::{SharedClock, UnixMillis},
    lock::Lock,
    log_limit::LogLimit,
    text::id::ClientId,
};
use quick_cache::sync::Cache;
use tracing::Instrument;

use self::fetch::KeySetFetcher;
use crate::{
    error::{Error, Result},
    model::client::{Client, key_set::ClientKeySet},
};

mod address;
pub mod fetch;

/// How many clients' fetched keys are kept.
const MAX_CLIENTS: usize = 4096;
/// From which age on fetched keys are fetched again beside the calls.
const EARLY: Duration = Duration::from_secs(10 * 60);
/// How long fetched keys count without another fetch.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// How long after a failed fetch old keys count without waiting for another one, which may hang too: long enough for a client that
/// calls often to begin the next one meanwhile.
const FAILS: Duration = PAUSE.saturating_add(Duration::from_secs(10));
/// How long they count while fetches fail.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// The shortest time between two fetches for one client.
const PAUSE: Duration = Duration::from_secs(60);

/// A client and the URL of its keys. Another URL has other keys.
type Source = (ClientId, String);

/// The keys of all clients. Cheap to clone.
#[derive(Clone, derive_more::Debug)]
#[debug("ClientKeySets")]
pub struct ClientKeySets {
    fetcher: Arc<KeySetFetcher>,
    fetched: Arc<Cache<Source, Arc<Slot>>>,
    clock: SharedClock,
}

/// The keys of one URL.
#[derive(Default)]
struct Slot {
    fetched: Lock<Fetched>,
    /// Held while a fetch is under way. Only calls that can't do with the keys in memory wait for it.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// What was fetched from one URL.
#[derive(Default)]
struct Fetched {
    keys: Option<(Arc<ClientKeySet>, UnixMillis)>,
    tried_at: Option<UnixMillis>,
    failed_at: Option<UnixMillis>,
}

impl Fetched {
    /// Returns whether to fetch now. `must_refresh`: no key in memory verified the assertion.
    fn is_due(&self, now: UnixMillis, must_refresh: bool) -> bool {
        let may_try = self.tried_at.is_none_or(|at| !is_within(PAUSE, at, now));
        may_try && (must_refresh || self.younger_than(EARLY, now).is_none())
    }

    /// Returns the keys if they count without waiting for a fetch. `is_fetching`: one is under way. Old ones count only if the last
    /// fetch that ended has failed: the set may have lost a key since.
    fn usable(&self, now: UnixMillis, is_fetching: bool) -> Option<Arc<ClientKeySet>> {
        let fetched_at = self.keys.as_ref().map(|(_, at)| *at);
        let has_failed = |at| fetched_at <= Some(at) && (is_fetching || is_within(FAILS, at, now));
        let may_be_old = self.failed_at.is_some_and(has_failed);
        self.younger_than(if may_be_old { KEEP } else { FRESH }, now)
    }

    /// Returns the keys if they were fetched less than `age` ago.
    fn younger_than(&self, age: Duration, now: UnixMillis) -> Option<Arc<ClientKeySet>> {
        let keys = self.keys.as_ref().filter(|(_, at)| is_within(age, *at, now));
        keys.map(|(keys, _)| keys.clone())
    }
}

/// Returns whether less than `age` has passed since a time. A time that is yet to come, after the clock was set back, is not
/// trusted.
fn is_within(age: Duration, at: UnixMillis, now: UnixMillis) -> bool {
    at <= now && now.since(at) < age
}

impl ClientKeySets {
    /// Creates the keys, none of which is fetched yet.
    pub fn new(fetcher: KeySetFetcher, clock: SharedClock) -> Self {
        Self {
            fetcher: Arc::new(fetcher),
            fetched: Arc::new(Cache::new(MAX_CLIENTS)),
            clock,
        }
    }

    /// Returns whether the client's keys pass a test. Tests fetched keys again after another fetch, if they fail and were
    /// not fetched a moment ago: the client may have replaced a key or a certificate.
    ///
    /// # Errors
    /// [`Error::InvalidClient`] if the client's keys were not fetched for a day.
    pub async fn check(&self, client: &Client, test: impl Fn(&ClientKeySet) -> bool) -> Result<bool> {
        if client.jwks_uri.is_empty() {
            let keys = ClientKeySet::read(&client.json_web_key_set);
            let unusable = || Error::RegistryAnswer("unusable json_web_key_set".to_owned());
            return Ok(test(&keys.ok_or_else(unusable)?));
        }
        let keys = self.keys(client, false).await?;
        if test(&keys) {
            return Ok(true);
        }
        let newer = self.keys(client, true).await?;
        Ok(!Arc::ptr_eq(&keys, &newer) && test(&newer))
    }

    async fn keys(&self, client: &Client, must_refresh: bool) -> Result<Arc<ClientKeySet>> {
        let source = (client.client_id.clone(), client.jwks_uri.clone());
        let slot = self
            .fetched
            .get_or_insert_with(&source, || Ok::<_, Error>(Arc::default()))?;
        let now = self.clock.now();
        let (usable, fetching) = {
            let mut fetched = slot.fetched.lock();
            // Under this lock, so that a call which is to fetch does not find it held by one that only looks.
            let free = slot.fetching.clone().try_lock_owned().ok();
            let usable = fetched.usable(now, free.is_none()).filter(|_| !must_refresh);
            let fetching = free.filter(|_| fetched.is_due(now, must_refresh));
            if fetching.is_some() {
                fetched.tried_at = Some(now);
            }
            (usable, fetching)
        };
        let unknown = Error::InvalidClient("the keys at the client's jwks_uri can't be fetched");
        let Some(fetching) = fetching else {
            if let Some(keys) = usable {
                return Ok(keys);
            }
            // A fetch that is under way may bring what is wanted.
            let _fetching = slot.fetching.lock().await;
            return slot
                .fetched
                .lock()
                .younger_than(KEEP, self.clock.now())
                .ok_or(unknown);
        };
        // In a task: a fetch goes on although the call that began it ends.
        let fetcher = self.fetcher.clone();
        let fetch = async move {
            let _fetching = fetching;
            match fetcher.fetch(&source.1).await {
                Ok(keys) => slot.fetched.lock().keys = Some((Arc::new(keys), now)),
                Err(why) => {
                    slot.fetched.lock().failed_at = Some(now);
                    log_failure(&source.0, why);
                }
            }
            slot.fetched.lock().younger_than(KEEP, now)
        };
        let fetched = tokio::spawn(fetch.in_current_span());
        match usable {
            Some(keys) => Ok(keys),
            None => fetched.await?.ok_or(unknown),
        }
    }
}

fn log_failure(client_id: &ClientId, why: &'static str) {
    static LIMIT: LogLimit = LogLimit::new(Duration::from_secs(60));
    if let Some(unlogged) = LIMIT.check(client_id.as_str()) {
        tracing::warn!(%client_id, why, unlogged, "the keys of a client could not be fetched");
    }
}

#[cfg(test)]
mod tests;
