//! Counts that fade: recent failures and attempts under way, each under a key, in bounded memory. What
//! the counts mean is decided by who keeps them.

use std::{collections::HashMap, time::Duration};

use accord::clock::UnixMillis;

/// A keyed hash of what is counted.
pub(super) type Key = [u8; 16];

/// Failures count half as much after this long.
pub(super) const HALF_LIFE: Duration = Duration::from_secs(5 * 60);
/// More failures than this count as this many, so that a count is gone soon after they end.
pub(super) const MOST_FAILURES: f64 = 32.0;
/// What counts less is rounded to no failure at all.
const NEGLIGIBLE: f64 = 0.5;

/// What happened under one key.
#[derive(Clone, Copy)]
struct Count {
    /// Failures that had not faded by `at`.
    failures: f64,
    at: UnixMillis,
    under_way: u32,
}

impl Count {
    fn failures(&self, now: UnixMillis) -> f64 {
        let half_lives = now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.failures * (-half_lives).exp2()
    }

    fn add(&mut self, failures: f64, now: UnixMillis) {
        self.failures = (self.failures(now) + failures).clamp(0.0, MOST_FAILURES);
        self.at = now;
    }

    fn is_forgettable(&self, now: UnixMillis) -> bool {
        self.under_way == 0 && self.failures(now) < NEGLIGIBLE
    }
}

/// What a key's count was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Failures, faded, to the nearest whole one.
    pub(super) failures: u32,
    /// Attempts under way.
    pub(super) under_way: u32,
}

impl Seen {
    /// Failures, if every attempt under way failed too.
    pub(super) fn at_worst(self) -> u32 {
        self.failures.saturating_add(self.under_way)
    }
}

/// Counts by key.
pub(super) struct Tally {
    counts: HashMap<Key, Count>,
    /// The most keys that are kept.
    most: usize,
}

impl Tally {
    pub(super) fn new(most: usize) -> Self {
        Self {
            counts: HashMap::new(),
            most,
        }
    }

    /// The count of a key; nothing for one that was never seen, or was forgotten.
    pub(super) fn look(&self, key: &Key, now: UnixMillis) -> Seen {
        let count = self.counts.get(key);
        Seen {
            failures: count.map_or(0, |count| whole(count.failures(now))),
            under_way: count.map_or(0, |count| count.under_way),
        }
    }

    /// Counts an attempt under way. `false` if there is no room for it, since so many others are.
    pub(super) fn enter(&mut self, key: Key, now: UnixMillis) -> bool {
        if !self.counts.contains_key(&key) && !self.make_room(now) {
            return false;
        }
        let nothing = Count {
            failures: 0.0,
            at: now,
            under_way: 0,
        };
        let count = self.counts.entry(key).or_insert(nothing);
        count.under_way = count.under_way.saturating_add(1);
        true
    }

    /// Ends an attempt that was entered, with no more said of it.
    pub(super) fn leave(&mut self, key: &Key) {
        if let Some(count) = self.counts.get_mut(key) {
            count.under_way = count.under_way.saturating_sub(1);
            // Entered and left again, it leaves no trace.
            if count.under_way == 0 && count.failures == 0.0 {
                self.counts.remove(key);
            }
        }
    }

    /// Adds failures, or takes some away if negative. A key that is not kept gains none.
    pub(super) fn add(&mut self, key: &Key, failures: f64, now: UnixMillis) {
        if let Some(count) = self.counts.get_mut(key) {
            count.add(failures, now);
        }
    }

    /// Forgets a key's failures. Gives how many there were, as they had faded.
    pub(super) fn forget(&mut self, key: &Key, now: UnixMillis) -> f64 {
        let Some(count) = self.counts.get_mut(key) else {
            return 0.0;
        };
        let failures = count.failures(now);
        count.failures = 0.0;
        failures
    }

    /// Sees to it that one more key may come. First those go that count for nothing; if that is not
    /// enough, an eighth of the rest, the most faded first. So whoever wants a key with many failures
    /// forgotten has to bring more of them, under seven eighths of all keys. An attempt under way is
    /// never forgotten.
    fn make_room(&mut self, now: UnixMillis) -> bool {
        if self.counts.len() < self.most {
            return true;
        }
        self.counts.retain(|_, count| !count.is_forgettable(now));
        let aim = self.most - self.most.div_ceil(8);
        let surplus = self.counts.len().saturating_sub(aim);
        let mut idle: Vec<_> = self
            .counts
            .iter()
            .filter(|(_, count)| count.under_way == 0)
            .collect();
        if surplus < idle.len() {
            idle.select_nth_unstable_by(surplus, |(_, one), (_, other)| {
                one.failures(now).total_cmp(&other.failures(now))
            });
            idle.truncate(surplus);
        }
        let gone: Vec<Key> = idle.into_iter().map(|(key, _)| *key).collect();
        for key in &gone {
            self.counts.remove(key);
        }
        self.counts.len() < self.most
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }
}

fn whole(failures: f64) -> u32 {
    // From 0 to MOST_FAILURES by construction: the cast loses the fraction of a rounded number alone.
    failures.round() as u32
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
            if tally.enter(key(number), now) {
                tally.add(&key(number), 1.0, now);
                tally.leave(&key(number));
            }
        }
    }

    #[test]
    fn failures_fade_by_half_and_stop_counting() {
        let mut tally = Tally::new(8);
        fail(&mut tally, 1, 8, START);
        for (half_lives, failures) in [(0, 8), (1, 4), (2, 2), (3, 1), (5, 0)] {
            let seen = tally.look(&key(1), START.plus(HALF_LIFE * half_lives));
            assert_eq!(seen.failures, failures, "after {half_lives}");
        }
        fail(&mut tally, 1, 1000, START);
        assert_eq!(f64::from(tally.look(&key(1), START).failures), MOST_FAILURES);
        assert_eq!(tally.look(&key(1), START.plus(HALF_LIFE * 7)).failures, 0);
    }

    #[test]
    fn a_clock_set_back_adds_and_forgets_nothing() {
        let mut tally = Tally::new(8);
        fail(&mut tally, 1, 4, START);
        let earlier = START.minus(HALF_LIFE * 9);
        assert_eq!(tally.look(&key(1), earlier).failures, 4);
        fail(&mut tally, 1, 1, earlier);
        assert_eq!(tally.look(&key(1), earlier).failures, 5);
        assert_eq!(
            tally.look(&key(1), START).failures,
            0,
            "it fades from the new time on"
        );
    }

    #[test]
    fn an_attempt_without_result_leaves_no_trace() {
        let mut tally = Tally::new(8);
        assert!(tally.enter(key(1), START));
        assert_eq!(tally.look(&key(1), START).at_worst(), 1);
        tally.leave(&key(1));
        tally.leave(&key(2));
        assert_eq!(tally.len(), 0);
        fail(&mut tally, 1, 1, START);
        assert_eq!(tally.forget(&key(1), START), 1.0);
        assert_eq!(tally.forget(&key(2), START), 0.0);
        assert_eq!(tally.look(&key(1), START).at_worst(), 0);
    }

    #[test]
    fn a_flood_of_names_evicts_no_hot_one() {
        let mut tally = Tally::new(64);
        fail(&mut tally, 0, 7, START);
        for number in 1..5000 {
            fail(&mut tally, number, 1 + number % 6, START);
            assert!(tally.len() <= 64);
        }
        assert_eq!(tally.look(&key(0), START).failures, 7);
        let newest = tally.look(&key(4999), START).failures;
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
            tally.look(&key(0), later).failures,
            0,
            "five then are two and a half now"
        );
        assert!((1..9).all(|number| tally.look(&key(number), later).failures > 0));
    }

    #[test]
    fn what_is_under_way_stays() {
        let mut tally = Tally::new(8);
        assert!((0..8).all(|number| tally.enter(key(number), START)));
        assert!(!tally.enter(key(8), START), "there is no room");
        assert!(tally.enter(key(7), START), "a known key needs none");
        tally.leave(&key(3));
        assert!(tally.enter(key(8), START));
        assert_eq!(tally.len(), 8);
    }
}
