//! Facts by key, bounded by weight. A fact that leaves memory, or is replaced, is marked as stale, so that whoever
//! holds it elsewhere notices.

use std::{
    hash::Hash,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::lock;

/// A fact that was read from its source.
#[derive(Debug)]
pub struct Cached<T> {
    value: T,
    bytes: usize,
    current: AtomicBool,
}

impl<T> Cached<T> {
    /// Whether no change that has been applied affects this fact. A fact that was never in memory is not current.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire)
    }

    pub(super) fn expire(&self) {
        self.current.store(false, Ordering::Release);
    }
}

impl<T> Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Facts of one kind.
pub(super) struct FactCache<K, T>(Cache<K, Arc<Cached<T>>, Bytes, DefaultHashBuilder, ExpireEvicted>);

/// What a fact takes in memory besides its texts, roughly.
pub(super) const OVERHEAD: usize = 256;
/// Parts of a cache, each with its own lock and its own share of the bytes.
const SHARDS: usize = 8;

impl<K: Eq + Hash + Clone, T> FactCache<K, T> {
    pub(super) fn new(max_bytes: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(max_bytes / (2 * OVERHEAD))
            .weight_capacity(max_bytes as u64)
            .build();
        let options = options.unwrap_or_else(|_| unreachable!("all three are set"));
        let hasher = DefaultHashBuilder::default();
        Self(Cache::with_options(options, Bytes, hasher, ExpireEvicted))
    }

    /// The fact of a key, current or not.
    pub(super) fn get(&self, key: &K) -> Option<Arc<Cached<T>>> {
        lock::count();
        self.0.get(key)
    }

    /// Keeps a fact in place of an earlier one, as current. One that weighs too much is not kept.
    pub(super) fn insert(&self, key: K, value: T, bytes: usize) -> Arc<Cached<T>> {
        self.remove(&key);
        let current = AtomicBool::new(true);
        let fact = Arc::new(Cached {
            value,
            bytes,
            current,
        });
        self.0.insert(key, fact.clone());
        fact
    }

    pub(super) fn remove(&self, key: &K) {
        lock::count();
        if let Some((_, fact)) = self.0.remove(key) {
            fact.expire();
        }
    }

    /// Removes the facts that `affected` names.
    pub(super) fn remove_where(&self, affected: impl Fn(&T) -> bool) {
        self.0.retain(|_, fact| {
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
        self.0.iter().for_each(|(_, fact)| fact.expire());
    }
}

impl<T> Cached<T> {
    /// A fact that is not in memory.
    pub(super) fn detached(value: T) -> Arc<Self> {
        Arc::new(Self {
            value,
            bytes: 0,
            current: AtomicBool::new(false),
        })
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
        let facts = FactCache::new(64 * 1024);
        let one = facts.insert("one", 1, 100);
        assert!(one.is_current());
        let again = facts.insert("one", 2, 100);
        assert!(!one.is_current() && again.is_current());
        assert_eq!(**facts.get(&"one").unwrap(), 2);
        facts.remove(&"one");
        assert!(!again.is_current() && facts.get(&"one").is_none());

        let many: Vec<_> = (0..100).map(|n| facts.insert("a key", n, 1_000)).collect();
        assert_eq!(many.iter().filter(|fact| fact.is_current()).count(), 1);
        let facts = FactCache::new(64 * 1024);
        let many: Vec<_> = (0..1_000).map(|n| (n, facts.insert(n, n, 1_000))).collect();
        let current = |n: &i32| facts.get(n).is_some();
        assert!(
            many.iter().all(|(n, fact)| fact.is_current() == current(n)),
            "evicted facts are stale"
        );
        let kept = many.iter().filter(|(_, fact)| fact.is_current()).count();
        assert!((1..=64).contains(&kept), "{kept} of 64 KiB");
        assert!(!facts.insert(0, 0, 65 * 1024).is_current(), "too large");

        let facts = FactCache::new(64 * 1024);
        let [odd, even] = [1, 2].map(|n| facts.insert(n, n, 1));
        facts.remove_where(|n| n % 2 == 1);
        assert!(!odd.is_current() && even.is_current());
        facts.expire_all();
        assert!(!even.is_current() && facts.get(&2).is_some());
    }
}
