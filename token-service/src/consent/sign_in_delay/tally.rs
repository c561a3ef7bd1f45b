//! Counts that fade: failures and attempts under way by key, in bounded memory.

use std::{collections::HashMap, time::Duration};

use accord::clock::UnixMillis;

/// A keyed hash of an account, an address or both.
pub(super) type Key = [u8; 16];

/// Failures count half as much after this long.
pub(super) const HALF_LIFE: Duration = Duration::from_secs(5 * 60);
/// The most failures of a key, so that its count fades soon after they end.
pub(super) const MAX_FAILURES: f64 = 32.0;
/// Less than this rounds to no failure.
const NEGLIGIBLE: f64 = 0.5;

/// The entry of a key.
#[derive(Clone, Copy)]
struct Entry {
    /// Failures that had not faded by `at`.
    failures: f64,
    at: UnixMillis,
    under_way: u32,
}

impl Entry {
    fn failures(&self, now: UnixMillis) -> f64 {
        let half_lives = now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.failures * (-half_lives).exp2()
    }
}

/// The count of a key at a point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Failures, faded, to the nearest whole one. Counts attempts under way as failures; otherwise simultaneous guesses would
    /// cause no delay.
    pub(super) failures: u32,
    /// Attempts under way.
    pub(super) under_way: u32,
}

/// Counts by key.
pub(super) struct Tally {
    entries: HashMap<Key, Entry>,
    max_keys: usize,
}

impl Tally {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            entries: HashMap::new(),
            max_keys,
        }
    }

    /// Returns the count of a key; zero for an unknown one.
    pub(super) fn count(&self, key: &Key, now: UnixMillis) -> Count {
        let entry = self.entries.get(key);
        entry.map_or(Count::default(), |entry| Count {
            // From 0 to MAX_FAILURES by construction, and rounded: so the cast is exact.
            failures: entry.failures(now).round() as u32,
            under_way: entry.under_way,
        })
    }

    /// Counts an attempt as under way and as a failure. Returns `false` if there is no room for its key.
    pub(super) fn begin(&mut self, key: Key, now: UnixMillis) -> bool {
        if !self.entries.contains_key(&key) && !self.make_room(now) {
            return false;
        }
        let none = Entry {
            failures: 0.0,
            at: now,
            under_way: 0,
        };
        let entry = self.entries.entry(key).or_insert(none);
        entry.under_way = entry.under_way.saturating_add(1);
        entry.failures = (entry.failures(now) + 1.0).min(MAX_FAILURES);
        entry.at = now;
        true
    }

    /// Ends an attempt under way.
    pub(super) fn end(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.under_way = entry.under_way.saturating_sub(1);
            if entry.under_way == 0 && entry.failures == 0.0 {
                self.entries.remove(key);
            }
        }
    }

    /// Subtracts failures. Does nothing for an unknown key.
    pub(super) fn subtract(&mut self, key: &Key, failures: f64, now: UnixMillis) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = (entry.failures(now) - failures).max(0.0);
            entry.at = now;
        }
    }

    /// Forgets a key's failures. Returns their faded number.
    pub(super) fn forget(&mut self, key: &Key, now: UnixMillis) -> f64 {
        let Some(entry) = self.entries.get_mut(key) else {
            return 0.0;
        };
        let failures = entry.failures(now);
        entry.failures = 0.0;
        failures
    }

    /// Makes room for one more key. Removes the keys whose count is zero; if that is not enough, an eighth of the
    /// rest, the most faded first. So an attacker who wants a key with many failures removed needs more failures
    /// under seven eighths of all keys. Keeps keys with an attempt under way.
    fn make_room(&mut self, now: UnixMillis) -> bool {
        if self.entries.len() < self.max_keys {
            return true;
        }
        self.entries
            .retain(|_, entry| entry.under_way > 0 || entry.failures(now) >= NEGLIGIBLE);
        let aim = self.max_keys - self.max_keys.div_ceil(8);
        let surplus = self.entries.len().saturating_sub(aim);
        let idle = self.entries.iter().filter(|(_, entry)| entry.under_way == 0);
        let mut idle: Vec<_> = idle.collect();
        if surplus < idle.len() {
            idle.select_nth_unstable_by(surplus, |(_, one), (_, other)| {
                one.failures(now).total_cmp(&other.failures(now))
            });
            idle.truncate(surplus);
        }
        let removed: Vec<Key> = idle.into_iter().map(|(key, _)| *key).collect();
        for key in &removed {
            self.entries.remove(key);
        }
        self.entries.len() < self.max_keys
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn key(number: u32) -> Key {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    fn fail(tally: &mut Tally, number: u32, times: u32, now: UnixMillis) {
        for _ in 0..times {
            if tally.begin(key(number), now) {
                tally.end(&key(number));
            }
        }
    }

    #[test]
    fn failures_fade_by_half_and_stop_counting() {
        let mut tally = Tally::new(8);
        fail(&mut tally, 1, 8, START);
        for (half_lives, failures) in [(0, 8), (1, 4), (2, 2), (3, 1), (5, 0)] {
            let count = tally.count(&key(1), START.plus(HALF_LIFE * half_lives));
            assert_eq!(count.failures, failures, "after {half_lives}");
        }
        fail(&mut tally, 1, 1000, START);
        assert_eq!(f64::from(tally.count(&key(1), START).failures), MAX_FAILURES);
        assert_eq!(tally.count(&key(1), START.plus(HALF_LIFE * 7)).failures, 0);
    }

    #[test]
    fn a_clock_set_back_adds_and_forgets_nothing() {
        let mut tally = Tally::new(8);
        fail(&mut tally, 1, 4, START);
        let earlier = START.minus(HALF_LIFE * 9);
        assert_eq!(tally.count(&key(1), earlier).failures, 4);
        fail(&mut tally, 1, 1, earlier);
        assert_eq!(tally.count(&key(1), earlier).failures, 5);
        assert_eq!(
            tally.count(&key(1), START).failures,
            0,
            "it fades from the new time on"
        );
    }

    #[test]
    fn an_attempt_counts_as_a_failure_until_it_is_forgotten() {
        let mut tally = Tally::new(8);
        assert!(tally.begin(key(1), START));
        let count = |failures, under_way| Count { failures, under_way };
        assert_eq!(tally.count(&key(1), START), count(1, 1));
        tally.end(&key(1));
        tally.end(&key(2));
        assert_eq!(tally.count(&key(1), START), count(1, 0));
        assert!(tally.begin(key(1), START));
        assert_eq!(tally.forget(&key(1), START), 2.0);
        assert_eq!(tally.forget(&key(2), START), 0.0);
        tally.end(&key(1));
        assert_eq!(tally.len(), 0);
    }

    #[test]
    fn a_flood_of_names_evicts_no_hot_one() {
        let mut tally = Tally::new(64);
        fail(&mut tally, 0, 7, START);
        for number in 1..5000 {
            fail(&mut tally, number, 1 + number % 6, START);
            assert!(tally.len() <= 64);
        }
        assert_eq!(tally.count(&key(0), START).failures, 7);
        let newest = tally.count(&key(4999), START).failures;
        assert_eq!(newest, 2, "there is room for new ones all the same");
    }

    #[test]
    fn the_most_faded_go_first() {
        let mut tally = Tally::new(8);
        let later = START.plus(HALF_LIFE);
        fail(&mut tally, 0, 5, START);
        for number in 1..8 {
            fail(&mut tally, number, 3, later);
        }
        fail(&mut tally, 8, 1, later);
        assert_eq!(
            tally.count(&key(0), later).failures,
            0,
            "five then are two and a half now"
        );
        assert!((1..9).all(|number| tally.count(&key(number), later).failures > 0));
    }

    #[test]
    fn what_is_under_way_stays() {
        let mut tally = Tally::new(8);
        assert!((0..8).all(|number| tally.begin(key(number), START)));
        assert!(!tally.begin(key(8), START), "there is no room");
        assert!(tally.begin(key(7), START), "a known key needs none");
        tally.end(&key(3));
        assert!(tally.begin(key(8), START));
        assert_eq!(tally.len(), 8);
    }
}
