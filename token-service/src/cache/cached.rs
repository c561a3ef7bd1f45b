//! Facts by key, bounded by their size. A fact that leaves memory, or is replaced, is marked as stale, so that other
//! holders of the fact notice.

use std::{
    hash::Hash,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use accord::metrics::CACHE_READS;
use metrics::{Counter, counter};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};
use tokio::time::Instant;

use super::lock;

/// A fact that was read from its source.
#[derive(Debug)]
pub struct Cached<T> {
    value: T,
    bytes: usize,
    current: AtomicBool,
    expires_at: Instant,
}

impl<T> Cached<T> {
    /// Returns whether no applied change affects this fact. A fact that was never in memory is not current.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire)
    }

    pub(super) fn expire(&self) {
        self.current.store(false, Ordering::Release);
    }

    /// Wraps a fact that is not in memory.
    pub(super) fn uncached(value: T) -> Arc<Self> {
        Arc::new(Self {
            value,
            bytes: 0,
            current: AtomicBool::new(false),
            expires_at: Instant::now(),
        })
    }
}

impl<T> Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Facts of one kind.
pub(super) struct FactCache<K: Eq + Hash, T> {
    facts: Cache<K, Arc<Cached<T>>, Bytes, DefaultHashBuilder, ExpireEvicted>,
    size: fn(&T) -> usize,
    reads: LookUpCounters,
    /// Rises with each fact, and wraps around.
    inserted: AtomicU32,
}

/// Counts look-ups that memory answered, and others.
pub(super) struct LookUpCounters {
    hits: Counter,
    misses: Counter,
}

impl LookUpCounters {
    /// `cache` is the name in metrics.
    pub(super) fn new(cache: &'static str) -> Self {
        let counter = |result| counter!(CACHE_READS, "cache" => cache, "result" => result);
        Self {
            hits: counter("hit"),
            misses: counter("miss"),
        }
    }

    pub(super) fn count(&self, is_hit: bool) {
        let counter = if is_hit { &self.hits } else { &self.misses };
        counter.increment(1);
    }
}

/// The approximate size of a fact without its texts, in bytes.
pub(super) const OVERHEAD: usize = 256;
/// The longest time that a fact counts which no change affects. A row that somebody puts back into the database for a moment, without
/// a change, would otherwise count until the process ends.
pub(super) const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// Parts of a cache, each with its own lock and its own share of the bytes.
const SHARDS: usize = 8;

impl<K: Eq + Hash + Clone, T> FactCache<K, T> {
    /// Creates a cache of at most `max_bytes`, of facts whose size in bytes `size` returns. `name` is its name in metrics.
    pub(super) fn new(name: &'static str, max_bytes: usize, size: fn(&T) -> usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(max_bytes / (2 * OVERHEAD))
            .weight_capacity(max_bytes as u64)
            .build();
        let options = options.unwrap_or_else(|_| unreachable!("all three are set"));
        let hasher = DefaultHashBuilder::default();
        let facts = Cache::with_options(options, Bytes, hasher, ExpireEvicted);
        let reads = LookUpCounters::new(name);
        Self {
            facts,
            size,
            reads,
            inserted: AtomicU32::default(),
        }
    }

    /// Counts whether memory answered a caller.
    pub(super) fn count(&self, is_hit: bool) {
        self.reads.count(is_hit);
    }

    /// Returns the fact of a key, current or not.
    pub(super) fn get(&self, key: &K) -> Option<Arc<Cached<T>>> {
        lock::count();
        self.facts.get(key)
    }

    /// Inserts a fact as current and replaces an earlier one. A fact that is too large is not kept.
    pub(super) fn insert(&self, key: K, value: T) -> Arc<Cached<T>> {
        self.remove(&key);
        let fact = Arc::new(Cached {
            bytes: (self.size)(&value),
            current: AtomicBool::new(true),
            expires_at: Instant::now() + self.next_lifetime(),
            value,
        });
        self.facts.insert(key, fact.clone());
        fact
    }

    pub(super) fn remove(&self, key: &K) {
        lock::count();
        if let Some((_, fact)) = self.facts.remove(key) {
            fact.expire();
        }
    }

    /// Removes the facts that are `affected`.
    pub(super) fn remove_where(&self, affected: impl Fn(&T) -> bool) {
        self.facts.retain(|_, fact| {
            let affected = affected(fact);
            if affected {
                fact.expire();
            }
            !affected
        });
    }

    /// Marks a fact as stale, and keeps it.
    pub(super) fn expire(&self, key: &K) {
        if let Some(fact) = self.get(key) {
            fact.expire();
        }
    }

    /// Marks every fact as stale, and keeps it.
    pub(super) fn expire_all(&self) {
        self.facts.iter().for_each(|(_, fact)| fact.expire());
    }

    /// Marks the facts as stale whose time is over, and keeps them.
    pub(super) fn expire_old(&self) {
        let (now, facts) = (Instant::now(), self.facts.iter().map(|(_, fact)| fact));
        facts
            .filter(|fact| fact.expires_at <= now)
            .for_each(|fact| fact.expire());
    }

    /// Returns half of [`MAX_AGE`] and a part of the other half, another one each time: facts that were read together must not be read
    /// again together.
    fn next_lifetime(&self) -> Duration {
        // Multiples of the golden ratio divide a circle evenly.
        let part = self.inserted.fetch_add(0x9E37_79B9, Ordering::Relaxed);
        MAX_AGE / 2 + (MAX_AGE / 2).mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

#[derive(Clone)]
struct Bytes;

impl<K, T> Weighter<K, Arc<Cached<T>>> for Bytes {
    fn weight(&self, _: &K, fact: &Arc<Cached<T>>) -> u64 {
        fact.bytes as u64
    }
}

#[derive(Clone)]
struct ExpireEvicted;

impl<K, T> Lifecycle<K, Arc<Cached<T>>> for ExpireEvicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: K, fact: Arc<Cached<T>>) {
        fact.expire();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fact_that_leaves_memory_is_stale() {
        // Each fact is its own size.
        let new_cache = || FactCache::new("test", 64 * 1024, |size: &usize| *size);
        let facts = new_cache();
        let one = facts.insert(1, 100);
        assert!(one.is_current());
        let again = facts.insert(1, 101);
        assert!(!one.is_current() && again.is_current());
        assert_eq!(**facts.get(&1).unwrap(), 101);
        facts.remove(&1);
        assert!(!again.is_current() && facts.get(&1).is_none());

        let many: Vec<_> = (0..100).map(|_| facts.insert(1, 1_000)).collect();
        assert_eq!(many.iter().filter(|fact| fact.is_current()).count(), 1);
        let facts = new_cache();
        let many: Vec<_> = (0..1_000).map(|n| (n, facts.insert(n, 1_000))).collect();
        let current = |n: &usize| facts.get(n).is_some();
        assert!(
            many.iter().all(|(n, fact)| fact.is_current() == current(n)),
            "evicted facts are stale"
        );
        let kept = many.iter().filter(|(_, fact)| fact.is_current()).count();
        assert!((1..=64).contains(&kept), "{kept} of 64 KiB");
        assert!(!facts.insert(0, 65 * 1024).is_current(), "too large");

        let facts = new_cache();
        let [odd, even] = [1, 2].map(|n| facts.insert(n, n));
        facts.remove_where(|n| n % 2 == 1);
        assert!(!odd.is_current() && even.is_current());
        facts.expire_all();
        assert!(!even.is_current() && facts.get(&2).is_some());
    }
}
