//! What a verification finds wrong. It goes on after a fault: it reports the first one, and a digest pins them all, so that what
//! two persons have accepted hides nothing that changes later.

use super::{super::extent::Extent, Fault, whole};

/// What was found wrong in a log, or beside all logs.
#[derive(Clone)]
pub(super) struct Findings {
    first: Option<Fault>,
    extent: Extent,
}

impl Findings {
    pub(super) fn none() -> Self {
        Self {
            first: None,
            extent: Extent::new(),
        }
    }

    /// Adds a fault, with the digest of what was found in place of what should be there.
    pub(super) fn add(&mut self, fault: Fault, found: &str) {
        for field in [&*fault.event_id, &*fault.what, found] {
            self.extent.add(field.as_bytes());
        }
        self.first.get_or_insert(fault);
    }

    /// Adds a fault of the whole, whose words say what was found.
    pub(super) fn add_whole(&mut self, what: impl Into<String>) {
        self.add(whole(what), "");
    }

    pub(super) fn first(&self) -> Option<&Fault> {
        self.first.as_ref()
    }

    /// Returns the digest of all faults. It does not change while the log grows behind them.
    pub(super) fn pin(&self) -> String {
        self.extent.clone().finish()
    }
}

/// The numbers of events with rows of their own that are not what was sealed, or that no log holds: nothing is taken from them.
#[derive(Clone, Debug, Default)]
pub struct Untrusted {
    ranges: Vec<(i64, i64)>,
    /// The number of the last event that is sealed, for a verification without keys: it takes nothing from later ones.
    sealed_through: Option<i64>,
}

/// The most ranges. Beyond them the last one takes in what follows, so that memory stays bounded.
const MOST_RANGES: usize = 100_000;

impl Untrusted {
    pub(super) fn add(&mut self, from: i64, through: i64) {
        let is_full = self.ranges.len() >= MOST_RANGES;
        match self.ranges.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) && from >= last.0 => last.1 = last.1.max(through),
            Some(last) if is_full => {
                *last = (last.0.min(from), last.1.max(through));
            }
            _ => self.ranges.push((from, through)),
        }
    }

    /// Takes nothing from the events after a number, which are not sealed: without the keys nothing shows who has written them.
    pub(super) fn leave_out_after(&mut self, sealed_through: i64) {
        self.sealed_through = Some(sealed_through);
    }

    /// Returns whether nothing is taken from events that are not sealed.
    pub(super) fn has_unsealed(&self) -> bool {
        self.sealed_through.is_some()
    }

    /// Returns whether nothing is taken from the event with a number because it is not sealed.
    pub(super) fn is_unsealed(&self, number: i64) -> bool {
        self.sealed_through.is_some_and(|sealed| number > sealed)
    }

    /// Puts the ranges in order, for the other methods.
    pub(super) fn sort(&mut self) {
        self.ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (from, through) in std::mem::take(&mut self.ranges) {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(through),
                _ => merged.push((from, through)),
            }
        }
        self.ranges = merged;
    }

    /// Returns whether nothing is taken from the event with a number.
    pub(super) fn holds(&self, number: i64) -> bool {
        self.any_between(number, number)
    }

    /// Returns whether there is such an event from one number to another.
    pub(super) fn any_between(&self, from: i64, through: i64) -> bool {
        let next = self.ranges.partition_point(|range| range.1 < from);
        self.ranges.get(next).is_some_and(|range| range.0 <= through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_numbers_are_ranges_in_order() {
        let mut untrusted = Untrusted::default();
        for (from, through) in [(9, 9), (3, 4), (5, 5), (20, 30)] {
            untrusted.add(from, through);
        }
        untrusted.sort();
        assert_eq!(untrusted.ranges, [(3, 5), (9, 9), (20, 30)]);
        for (number, held) in [
            (2, false),
            (3, true),
            (5, true),
            (6, false),
            (9, true),
            (25, true),
            (31, false),
        ] {
            assert_eq!(untrusted.holds(number), held, "{number}");
        }
        assert!(untrusted.any_between(6, 9) && !untrusted.any_between(10, 19));
    }

    #[test]
    fn a_digest_changes_with_every_fault() {
        let (mut one, mut other) = (Findings::none(), Findings::none());
        one.add_whole("it is gone");
        other.add_whole("it is gone");
        assert_eq!(one.pin(), other.pin());
        other.add(Fault::default(), "ab");
        assert_ne!(one.pin(), other.pin());
        assert_eq!(other.first().map(|fault| &*fault.what), Some("it is gone"));
    }
}
