//! What ended before its time and may still have tokens that live: the revocations of one feed, by what
//! they name and in the feed's order. Asks nobody.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::Duration,
};

use accord::position::Position;
use tokio::time::Instant;

use crate::{
    error::Error,
    model::{revocation::RevocationKind, watermark::At},
};

/// How long a revocation is kept after it was learnt: no access token that it ends lives longer than
/// fifteen minutes, and none is issued later than a second after it.
const KEEP: Duration = Duration::from_secs(20 * 60);
/// The most revocations that are kept, about two hundred bytes each.
const MOST: usize = 500_000;

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it names.
    pub kind: RevocationKind,
    /// Which one.
    pub id: String,
    /// Its position in the feed.
    pub seq: i64,
}

/// The revocations of one feed that still matter.
#[derive(Debug)]
pub struct Recent {
    by_seq: BTreeMap<i64, (RevocationKind, String, Instant)>,
    /// The last position of each, per kind.
    last: [HashMap<String, i64>; RevocationKind::ALL.len()],
    most: usize,
    /// Something had to be left out: what is here is not all there is.
    full: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            by_seq: BTreeMap::new(),
            last: Default::default(),
            most: MOST,
            full: false,
        }
    }
}

impl Recent {
    /// Adds a revocation. Told again, it changes nothing.
    pub fn insert(&mut self, ended: Ended, now: Instant) {
        let Ended { kind, id, seq } = ended;
        let last = &mut self.last[kind as usize];
        match last.get_mut(&id) {
            Some(known) if *known >= seq => return,
            Some(known) => {
                self.by_seq.remove(known);
                *known = seq;
            }
            None if self.by_seq.len() >= self.most => return self.leave_out(),
            None => {
                last.insert(id.clone(), seq);
            }
        }
        self.by_seq.insert(seq, (kind, id, now));
    }

    /// Says that there is a revocation which is not here.
    pub fn leave_out(&mut self) {
        if !self.full {
            tracing::error!("there are revocations that are not kept in memory");
        }
        self.full = true;
    }

    /// Whether all that matters is here.
    pub fn is_complete(&self) -> bool {
        !self.full
    }

    /// Whether something was left out that there is room for now. It has to be told again.
    pub fn may_catch_up(&self) -> bool {
        self.full && self.by_seq.len() < self.most / 2
    }

    /// The last position at which one of these was revoked, if any was.
    pub fn last(&self, named: &[(RevocationKind, &str)]) -> Option<i64> {
        let seqs = named
            .iter()
            .filter_map(|(kind, id)| self.last[*kind as usize].get(*id));
        seqs.copied().max()
    }

    /// Revocations behind a position, in order, at most so many.
    pub fn after(&self, seq: i64, limit: usize) -> Vec<Ended> {
        let behind = (Bound::Excluded(seq), Bound::Unbounded);
        let ended = self.by_seq.range(behind).take(limit);
        ended
            .map(|(seq, (kind, id, _))| Ended {
                kind: *kind,
                id: id.clone(),
                seq: *seq,
            })
            .collect()
    }

    /// [`Self::after`] under a lease on the feed: up to its position and as of its moment, that is all.
    ///
    /// # Errors
    /// [`Error::TooManyRevocations`] when something was left out.
    pub fn told_after(
        &self,
        (position, asked_at): (Position, Instant),
        seq: i64,
        limit: usize,
    ) -> Result<At<Vec<Ended>>, Error> {
        if !self.is_complete() {
            return Err(Error::TooManyRevocations);
        }
        Ok(At {
            value: self.after(seq, limit),
            position,
            asked_at,
        })
    }

    /// Forgets what can't matter any more. Revocations are learnt about in their order, so that it is
    /// the first ones.
    pub fn tidy(&mut self, now: Instant) {
        while let Some(first) = self.by_seq.first_entry() {
            if now.saturating_duration_since(first.get().2) <= KEEP {
                break;
            }
            let (kind, id, _) = first.remove();
            self.last[kind as usize].remove(&id);
        }
    }

    /// Forgets everything: the feed is another one.
    pub fn clear(&mut self) {
        *self = Self {
            most: self.most,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: RevocationKind, id: &str, seq: i64) -> Ended {
        Ended {
            kind,
            id: id.into(),
            seq,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_position_counts_and_repetition_changes_nothing() {
        use RevocationKind::{Family, Grant, Jti};
        let (mut recent, now) = (Recent::default(), Instant::now());
        for (kind, id, seq) in [
            (Jti, "a", 1),
            (Grant, "a", 2),
            (Grant, "a", 5),
            (Grant, "a", 2),
            (Family, "b", 3),
            (Family, "b", 3),
        ] {
            recent.insert(ended(kind, id, seq), now);
        }
        assert_eq!(recent.last(&[(Jti, "a")]), Some(1));
        assert_eq!(recent.last(&[(Jti, "a"), (Grant, "a")]), Some(5));
        assert_eq!(recent.last(&[(Jti, "b"), (Grant, "b")]), None);
        assert_eq!(
            recent.after(0, 9),
            [ended(Jti, "a", 1), ended(Family, "b", 3), ended(Grant, "a", 5)]
        );
        assert_eq!(recent.after(1, 1), [ended(Family, "b", 3)]);
        assert!(recent.after(5, 9).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_token_can_outlive_is_forgotten() {
        use RevocationKind::Jti;
        let mut recent = Recent::default();
        recent.insert(ended(Jti, "a", 1), Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        recent.insert(ended(Jti, "b", 2), Instant::now());
        tokio::time::advance(KEEP - Duration::from_secs(30)).await;
        recent.tidy(Instant::now());
        assert_eq!(recent.after(0, 9), [ended(Jti, "b", 2)]);
        assert_eq!(recent.last(&[(Jti, "a")]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_known_to_be() {
        use RevocationKind::Jti;
        let mut recent = Recent {
            most: 2,
            ..Recent::default()
        };
        let now = Instant::now();
        recent.insert(ended(Jti, "a", 1), now);
        recent.insert(ended(Jti, "b", 2), now);
        recent.insert(ended(Jti, "b", 3), now);
        assert!(recent.is_complete());
        recent.insert(ended(Jti, "c", 4), now);
        assert!(!recent.is_complete() && !recent.may_catch_up());
        recent.tidy(now + KEEP + Duration::from_secs(1));
        assert!(!recent.is_complete() && recent.may_catch_up());
        recent.clear();
        assert!(recent.is_complete() && recent.after(0, 9).is_empty());
    }
}
