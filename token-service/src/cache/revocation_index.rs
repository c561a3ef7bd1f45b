//! The revocations of one feed that may still have live tokens, by what they name and in the feed's order.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::Duration,
};

use strum::EnumCount;
use tokio::time::Instant;

use crate::model::revocation::{Revocation, RevocationKind};

/// How long a revocation is kept: longer than the life of an access token.
const KEEP: Duration = Duration::from_secs(20 * 60);
/// The most revocations that are kept, about 200 bytes each.
const MAX: usize = 500_000;

/// The revocations of one feed that still matter.
#[derive(Debug)]
pub(super) struct RevocationIndex {
    by_seq: BTreeMap<i64, (Revocation, Instant)>,
    /// The last position of each id, by kind.
    last: [HashMap<String, i64>; RevocationKind::COUNT],
    /// The most revocations.
    max: usize,
    /// Whether a revocation was left out.
    full: bool,
    /// When a revocation of a kind was read that this version does not know.
    unknown_at: Option<Instant>,
}

impl Default for RevocationIndex {
    fn default() -> Self {
        Self::new(MAX)
    }
}

impl RevocationIndex {
    fn new(max: usize) -> Self {
        Self {
            by_seq: BTreeMap::new(),
            last: Default::default(),
            max,
            full: false,
            unknown_at: None,
        }
    }

    /// Adds a revocation. A repeated one changes nothing.
    pub(super) fn insert(&mut self, revocation: Revocation, now: Instant) {
        let last = &mut self.last[revocation.kind as usize];
        match last.get(&revocation.id) {
            Some(known) if *known >= revocation.seq => return,
            Some(known) => drop(self.by_seq.remove(known)),
            None if self.by_seq.len() >= self.max => return self.mark_incomplete(),
            None => {}
        }
        last.insert(revocation.id.clone(), revocation.seq);
        self.by_seq.insert(revocation.seq, (revocation, now));
    }

    /// Records a revocation of a kind that this version does not know. Reading it again would not help.
    pub(super) fn note_unknown(&mut self, now: Instant) {
        tracing::warn!("there is a revocation of an unknown kind");
        self.unknown_at = Some(now);
    }

    fn mark_incomplete(&mut self) {
        if !self.full {
            tracing::error!("not every revocation fits into memory");
        }
        self.full = true;
    }

    /// Returns whether the index holds every revocation that matters.
    pub(super) fn is_complete(&self) -> bool {
        !self.full && self.unknown_at.is_none()
    }

    /// Returns whether there is room again for the revocations that were left out. They have to be read again.
    pub(super) fn may_catch_up(&self) -> bool {
        self.full && self.by_seq.len() < self.max / 2
    }

    /// Returns the last position at which one of these was revoked, if any was.
    pub(super) fn last(&self, named: &[(RevocationKind, &str)]) -> Option<i64> {
        let seqs = named
            .iter()
            .filter_map(|(kind, id)| self.last[*kind as usize].get(*id));
        seqs.copied().max()
    }

    /// Returns at most `limit` revocations after a position, in order.
    pub(super) fn after(&self, seq: i64, limit: usize) -> Vec<Revocation> {
        let after = (Bound::Excluded(seq), Bound::Unbounded);
        let revocations = self.by_seq.range(after).take(limit);
        revocations
            .map(|(_, (revocation, _))| revocation.clone())
            .collect()
    }

    /// Removes the revocations that no longer matter. They are the first ones, because revocations come in order.
    pub(super) fn remove_expired(&mut self, now: Instant) {
        while let Some(first) = self.by_seq.first_entry() {
            if now.saturating_duration_since(first.get().1) <= KEEP {
                break;
            }
            let (revocation, _) = first.remove();
            self.last[revocation.kind as usize].remove(&revocation.id);
        }
        let matters = |at: &Instant| now.saturating_duration_since(*at) <= KEEP;
        self.unknown_at = self.unknown_at.filter(matters);
    }

    /// Removes everything, because the feed is another one.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(kind: RevocationKind, id: &str, seq: i64) -> Revocation {
        Revocation {
            kind,
            id: id.into(),
            seq,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_position_counts_and_repetition_changes_nothing() {
        use RevocationKind::{Family, Grant, Jti};
        let (mut index, now) = (RevocationIndex::default(), Instant::now());
        for (kind, id, seq) in [
            (Jti, "a", 1),
            (Grant, "a", 2),
            (Grant, "a", 5),
            (Grant, "a", 2),
            (Family, "b", 3),
            (Family, "b", 3),
        ] {
            index.insert(revocation(kind, id, seq), now);
        }
        assert_eq!(index.last(&[(Jti, "a")]), Some(1));
        assert_eq!(index.last(&[(Jti, "a"), (Grant, "a")]), Some(5));
        assert_eq!(index.last(&[(Jti, "b"), (Grant, "b")]), None);
        assert_eq!(
            index.after(0, 9),
            [
                revocation(Jti, "a", 1),
                revocation(Family, "b", 3),
                revocation(Grant, "a", 5)
            ]
        );
        assert_eq!(index.after(1, 1), [revocation(Family, "b", 3)]);
        assert!(index.after(5, 9).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn revocations_go_when_their_tokens_have_expired() {
        use RevocationKind::Jti;
        let mut index = RevocationIndex::default();
        index.insert(revocation(Jti, "a", 1), Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        index.insert(revocation(Jti, "b", 2), Instant::now());
        tokio::time::advance(KEEP - Duration::from_secs(30)).await;
        index.remove_expired(Instant::now());
        assert_eq!(index.after(0, 9), [revocation(Jti, "b", 2)]);
        assert_eq!(index.last(&[(Jti, "a")]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_index_knows_that_it_is_incomplete() {
        use RevocationKind::Jti;
        let mut index = RevocationIndex::new(2);
        let now = Instant::now();
        index.insert(revocation(Jti, "a", 1), now);
        index.insert(revocation(Jti, "b", 2), now);
        index.insert(revocation(Jti, "b", 3), now);
        assert!(index.is_complete());
        index.insert(revocation(Jti, "c", 4), now);
        assert!(!index.is_complete() && !index.may_catch_up());
        index.remove_expired(now + KEEP + Duration::from_secs(1));
        assert!(!index.is_complete() && index.may_catch_up());
        index.clear();
        assert!(index.is_complete() && index.after(0, 9).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_kind_makes_the_index_incomplete_for_a_while_and_is_not_read_again() {
        let (mut index, now) = (RevocationIndex::default(), Instant::now());
        index.note_unknown(now);
        index.remove_expired(now + KEEP);
        assert!(!index.is_complete() && !index.may_catch_up());
        index.remove_expired(now + KEEP + Duration::from_secs(1));
        assert!(index.is_complete());
    }
}
