//! A memory of bounded size: what was not used for longest goes first.

use std::{borrow::Borrow, hash::Hash};

use lru::LruCache;

/// Values by key, up to a number of bytes as their owner counts them.
pub struct Bounded<K: Hash + Eq, V> {
    known: LruCache<K, (V, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty memory.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            known: LruCache::unbounded(),
            bytes: 0,
            most_bytes,
        }
    }

    /// The value of a key, which was used now.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.known.get_mut(key).map(|(value, _)| value)
    }

    /// Remembers a value; gives back what had to go to make room.
    pub fn put(&mut self, key: K, value: V, bytes: usize) -> Vec<V> {
        self.bytes += bytes;
        let mut gone = Vec::new();
        if let Some((_, before)) = self.known.put(key, (value, bytes)) {
            self.bytes -= before;
        }
        while self.bytes > self.most_bytes {
            let Some((_, (value, bytes))) = self.known.pop_lru() else {
                break;
            };
            self.bytes -= bytes;
            gone.push(value);
        }
        gone
    }

    /// Takes a value away.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, bytes) = self.known.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Every value.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.known.iter_mut().map(|(_, (value, _))| value)
    }

    /// Takes away whatever does not pass.
    pub fn retain(&mut self, passes: impl Fn(&V) -> bool)
    where
        K: Clone,
    {
        let refused = self.known.iter().filter(|(_, (value, _))| !passes(value));
        let refused: Vec<K> = refused.map(|(key, _)| key.clone()).collect();
        for key in &refused {
            self.remove(key);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut known = Bounded::new(10);
        assert!(known.put("a", 1, 4).is_empty());
        assert!(known.put("b", 2, 4).is_empty());
        assert_eq!(known.get("a"), Some(&mut 1));
        assert_eq!(known.put("c", 3, 4), [2], "a was used since");
        assert!(known.put("a", 4, 6).is_empty(), "the same key counts once");
        assert_eq!(known.put("d", 5, 11), [3, 4, 5], "too large for all there is");
        assert_eq!(known.bytes, 0);
        known.put("e", 6, 1);
        known.put("f", 7, 1);
        known.retain(|value| *value == 7);
        assert_eq!((known.remove("e"), known.remove("f")), (None, Some(7)));
        assert_eq!(known.bytes, 0);
    }
}
