//! The proofs of the last minute, so that each is accepted once (RFC 9449 §11.1).
//!
//! A proof is remembered until the first second in which it is too old, even if it was made ahead of this clock. Proofs that
//! end within the same twelve seconds share a set, and the set is dropped as a whole. Nothing is dropped earlier: when there is
//! no room, new proofs are rejected, and no proof pushes out another one.
//!
//! After the clock was set back, the proofs that it accepts again may have been dropped. They are rejected as if there were no room,
//! until no proof of the time before the change would be accepted any more. A proof that was made for a time yet to come, and used
//! when the clock showed that time, could be used once more then.
//!
//! Memory is bounded by the sizes below: 16 shards with seven sets of at most 28,672 fingerprints of twelve bytes, which a
//! hash table stores in 32,768 places of thirteen bytes, take less than 50 MiB. That is room for 38,000 proofs a second, and
//! for 9,500 of one owner.

use std::{
    array,
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::MutexGuard,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{MAX_AGE_SECS, MAX_AHEAD_SECS, VerifiedProof};
use crate::{clock::UnixMillis, lock::Lock};

/// How many shards there are, each with a lock of its own.
const SHARDS: usize = 16;
/// The longest time for which a proof is accepted: that of a proof whose `iat` is as far ahead of this clock as allowed.
const WINDOW_SECS: i64 = MAX_AHEAD_SECS + MAX_AGE_SECS + 1;
/// How long proofs share a set, by the second in which they end.
const SET_SECS: i64 = 12;
/// How long a cache may stay full after [`ReplayError::Full`]: then the oldest proofs have ended.
pub const FULL_FOR: Duration = Duration::from_secs(SET_SECS.unsigned_abs());
/// The sets that can hold a proof that is still accepted: those of the next 71 seconds.
const SETS: usize = 7;
/// The most proofs of a set: what a hash table of 32,768 places takes before it grows.
const MAX_PROOFS: usize = 28_672;
/// The most proofs of one owner in a set.
const MAX_OWNED: u16 = 7_168;
/// Owners are counted in this many places. Two owners in one place share its bound. Nobody outside can bring that about.
const OWNER_PLACES: usize = 16_384;

/// The first bytes of the SHA-256 of key and `jti`. Of two proofs with the same fingerprint the second is rejected.
type Fingerprint = [u8; 12];

/// Why a proof is not accepted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The proof, or another one of its key with the same `jti`, was used before.
    #[error("jti must be new in each proof")]
    Used,
    /// There is no room for a further proof, or for one of this owner. There will be within twelve seconds. Or the clock was set
    /// back, and whether the proof was used is not known.
    #[error("too many proofs came within the last minute")]
    Full,
}

/// The proofs that were used and would still be accepted.
pub struct ReplayCache {
    shards: [Lock<Shard>; SHARDS],
    /// Keyed at random, so that nobody can aim at a shard or at an owner's place.
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    /// The latest time of a call, in seconds. A clock that is set back must not bring back what was dropped.
    latest: i64,
    /// When the clock was first found so far behind `latest`, after it was set back, that no new proof can be accepted.
    behind_since: Option<i64>,
    sets: [Set; SETS],
}

/// The proofs that end between `number` × 12 and `number` × 12 + 12 seconds.
#[derive(Default)]
struct Set {
    number: i64,
    proofs: HashSet<Fingerprint>,
    /// How many proofs each owner's place has here; empty without proofs.
    owned: Vec<u16>,
}

impl Default for ReplayCache {
    fn default() -> Self {
        Self {
            shards: array::from_fn(|_| Lock::default()),
            hasher: RandomState::new(),
        }
    }
}

impl fmt::Debug for ReplayCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayCache").finish_non_exhaustive()
    }
}

impl ReplayCache {
    /// Accepts a verified proof once. The owner, such as the Client ID, is whose proofs are bounded together.
    ///
    /// # Errors
    /// [`ReplayError`]. The proof is then not remembered.
    pub fn accept(&self, owner: &str, proof: &VerifiedProof, now: UnixMillis) -> Result<(), ReplayError> {
        let fingerprint = fingerprint(proof);
        let hash = self.hasher.hash_one(fingerprint);
        let index = usize::from(hash.to_le_bytes()[4]) % SHARDS;
        // An owner shares its place with different others in each shard.
        let place = self.hasher.hash_one((index, owner)) % OWNER_PLACES as u64;
        let place = usize::try_from(place).unwrap_or_default();
        let mut shard = self.shard(index);
        shard.drop_ended(now.as_secs());
        shard.accept(fingerprint, place, proof.iat.saturating_add(MAX_AGE_SECS + 1))
    }

    /// Frees the memory of proofs that have ended. Calls do the same; this is for when none come.
    pub fn drop_ended(&self, now: UnixMillis) {
        (0..SHARDS).for_each(|index| self.shard(index).drop_ended(now.as_secs()));
    }

    /// Returns how many proofs are remembered.
    pub fn len(&self) -> usize {
        let lengths = |index| {
            self.shard(index)
                .sets
                .iter()
                .map(|set| set.proofs.len())
                .sum::<usize>()
        };
        (0..SHARDS).map(lengths).sum()
    }

    /// Returns whether no proof is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        // A panic leaves no set half changed.
        self.shards[index].lock()
    }
}

impl Shard {
    fn drop_ended(&mut self, now: i64) {
        self.follow(now);
        let (oldest, newest) = (self.latest, self.latest.saturating_add(WINDOW_SECS));
        for set in &mut self.sets {
            let is_reachable = (set.number + 1) * SET_SECS > oldest && set.number * SET_SECS <= newest;
            if !set.proofs.is_empty() && !is_reachable {
                *set = Set::default();
            }
        }
    }

    /// Follows the clock. After it was set back by more than the window in which a proof is accepted, `latest` follows once that
    /// window has passed: then each proof that is accepted was made after the change.
    fn follow(&mut self, now: i64) {
        if self.latest.saturating_sub(now) <= WINDOW_SECS {
            self.latest = self.latest.max(now);
            self.behind_since = None;
            return;
        }
        let since = self.behind_since.map_or(now, |since| since.min(now));
        self.behind_since = Some(since);
        if now.saturating_sub(since) > WINDOW_SECS {
            (self.latest, self.behind_since) = (now, None);
        }
    }

    /// Remembers a proof until the second `ends`.
    fn accept(&mut self, fingerprint: Fingerprint, place: usize, ends: i64) -> Result<(), ReplayError> {
        if self.sets.iter().any(|set| set.proofs.contains(&fingerprint)) {
            return Err(ReplayError::Used);
        }
        // After the clock was set back, whether such a proof was used is no longer known.
        if !(1..=WINDOW_SECS).contains(&ends.saturating_sub(self.latest)) {
            return Err(ReplayError::Full);
        }
        let number = ends.div_euclid(SET_SECS);
        let index = usize::try_from(number.rem_euclid(SETS as i64)).unwrap_or_default();
        let set = &mut self.sets[index];
        if set.owned.is_empty() {
            set.number = number;
            set.owned = vec![0; OWNER_PLACES];
        }
        if set.proofs.len() >= MAX_PROOFS || set.owned[place] >= MAX_OWNED {
            return Err(ReplayError::Full);
        }
        set.owned[place] += 1;
        set.proofs.insert(fingerprint);
        Ok(())
    }
}

fn fingerprint(proof: &VerifiedProof) -> Fingerprint {
    // A thumbprint has 43 characters, so that no two pairs have the same text.
    let text = [proof.jkt.as_bytes(), proof.jti.as_bytes()].concat();
    let hash = digest(&SHA256, &text);
    array::from_fn(|index| hash.as_ref()[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

    fn proof(jti: impl ToString, iat: i64) -> VerifiedProof {
        VerifiedProof {
            jkt: JKT.into(),
            jti: jti.to_string(),
            iat,
            nonce: None,
        }
    }

    fn at(secs: i64) -> UnixMillis {
        UnixMillis::from_millis(secs * 1000)
    }

    #[test]
    fn a_proof_is_accepted_once_for_as_long_as_it_is_not_too_old() {
        for iat in [NOW - MAX_AGE_SECS, NOW - 1, NOW, NOW + 9, NOW + MAX_AHEAD_SECS] {
            let cache = ReplayCache::default();
            let used = proof("a", iat);
            assert_eq!(cache.accept("c", &used, at(NOW)), Ok(()), "{iat}");
            for now in NOW..=iat + MAX_AGE_SECS {
                assert_eq!(
                    cache.accept("c", &used, at(now)),
                    Err(ReplayError::Used),
                    "{iat} {now}"
                );
                // The same id in another proof, too.
                let again = cache.accept("d", &proof("a", now), at(now));
                assert_eq!(again, Err(ReplayError::Used), "{iat} {now}");
                // Others go on.
                assert_eq!(cache.accept("c", &proof(now, now), at(now)), Ok(()));
            }
        }
    }

    #[test]
    fn the_same_id_under_another_key_is_another_proof() {
        let cache = ReplayCache::default();
        let other = VerifiedProof {
            jkt: JKT.replace('0', "1"),
            ..proof("a", NOW)
        };
        assert_eq!(cache.accept("c", &proof("a", NOW), at(NOW)), Ok(()));
        assert_eq!(cache.accept("c", &other, at(NOW)), Ok(()));
    }

    #[test]
    fn a_clock_set_back_brings_back_no_used_proof() {
        let cache = ReplayCache::default();
        let used = proof("a", NOW);
        assert_eq!(cache.accept("c", &used, at(NOW)), Ok(()));
        cache.drop_ended(at(NOW + 100));
        assert!(cache.is_empty());
        assert_eq!(cache.accept("c", &used, at(NOW)), Err(ReplayError::Full));
    }

    #[test]
    fn after_a_clock_was_set_back_new_proofs_are_accepted_once_the_old_ones_are_too_old() {
        const HOUR: i64 = 3_600;
        let cache = ReplayCache::default();
        // The clock was an hour ahead, for a moment.
        let mut used = vec![proof("before", NOW + MAX_AHEAD_SECS)];
        assert_eq!(cache.accept("c", &used[0], at(NOW)), Ok(()));
        cache.drop_ended(at(NOW + HOUR));
        cache.drop_ended(at(NOW + 1));
        for now in NOW + 1..=NOW + 1 + WINDOW_SECS {
            assert_eq!(
                cache.accept("c", &used[0], at(now)),
                Err(ReplayError::Full),
                "{now}"
            );
            assert_eq!(
                cache.accept("c", &proof(now, now), at(now)),
                Err(ReplayError::Full),
                "{now}"
            );
        }
        for now in NOW + 2 + WINDOW_SECS..NOW + 200 {
            used.push(proof(now, now));
            assert_eq!(cache.accept("c", &used[used.len() - 1], at(now)), Ok(()), "{now}");
        }
        for used in used.iter().filter(|used| used.iat >= NOW + 200 - MAX_AGE_SECS) {
            assert_eq!(cache.accept("c", used, at(NOW + 200)), Err(ReplayError::Used));
        }
        // A small step back closes nothing that is known.
        assert_eq!(
            cache.accept("c", &proof("step", NOW + 190), at(NOW + 190)),
            Ok(())
        );
    }

    #[test]
    fn when_there_is_no_room_new_proofs_are_rejected_and_old_ones_are_not_forgotten() {
        let cache = ReplayCache::default();
        let mut accepted = Vec::new();
        // Owners enough that none meets its own bound first.
        for number in 0.. {
            let new = proof(number, NOW);
            match cache.accept(&number.to_string(), &new, at(NOW)) {
                Ok(()) => accepted.push(new),
                Err(error) => {
                    assert_eq!(error, ReplayError::Full);
                    break;
                }
            }
        }
        assert!(
            accepted.len() > SHARDS * MAX_PROOFS * 9 / 10,
            "{}",
            accepted.len()
        );
        for used in &accepted {
            assert_eq!(cache.accept("x", used, at(NOW + 60)), Err(ReplayError::Used));
        }
        // No set has grown beyond its table.
        let capacity = |index| {
            let shard = cache.shard(index);
            shard.sets.iter().map(|set| set.proofs.capacity()).max()
        };
        assert!((0..SHARDS).all(|index| capacity(index) <= Some(MAX_PROOFS)));
        let later = NOW + MAX_AGE_SECS + SET_SECS + 1;
        assert_eq!(cache.accept("c", &proof("new", later), at(later)), Ok(()));
    }

    #[test]
    fn one_owner_leaves_room_for_others() {
        let cache = ReplayCache::default();
        let full = (0..).find(|number| {
            let accepted = cache.accept("greedy", &proof(number, NOW), at(NOW));
            accepted == Err(ReplayError::Full)
        });
        let full = full.unwrap_or_default();
        assert!(full > 100_000, "{full}");
        for number in 0..10_000 {
            let new = proof(format!("other {number}"), NOW);
            assert_eq!(cache.accept("modest", &new, at(NOW)), Ok(()), "{number}");
        }
    }

    #[test]
    fn one_of_many_threads_wins() {
        let cache = ReplayCache::default();
        let used = proof("a", NOW);
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32)
                .map(|_| scope.spawn(|| cache.accept("c", &used, at(NOW)).is_ok()))
                .collect();
            let won = threads.into_iter().map(|thread| thread.join().unwrap_or(true));
            won.filter(|won| *won).count()
        });
        assert_eq!(winners, 1);
    }
}
