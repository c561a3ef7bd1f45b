#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    store::audit::{Renewal, RowVersion},
    testing::TEST_START,
    text::id::ulid_at,
};

const FAMILY: u128 = 7;

/// The events of a log: each hands out a generation, and has its place there as its id.
fn log(from: u128, generations: &[u32]) -> Renewals {
    let mut renewals = Renewals::default();
    for (id, generation) in (from..).zip(generations) {
        let family_id = FamilyId::of(ulid_at(TEST_START, FAMILY));
        renewals.add(family_id, (*generation, *generation), event(id));
    }
    renewals
}

fn event(id: u128) -> EventId {
    EventId::of(ulid_at(TEST_START, id))
}

/// Returns what is said of the family with this newest generation; of one that has ended for `None`.
fn fault(renewals: &Renewals, generation: Option<u32>) -> Option<(String, EventId)> {
    let renewal = generation.map(|generation| Renewal {
        family_id: FamilyId::of(ulid_at(TEST_START, FAMILY)),
        generation,
    });
    let found = renewals.fault(&StoredRow {
        version: RowVersion {
            row: "families/acme/one".into(),
            digest: [0; 16],
            before: None,
        },
        newest: None,
        is_altered: false,
        renewal,
    });
    found.map(|fault| (fault.what, EventId::parse(&fault.event_id).unwrap()))
}

fn older(id: u128) -> Option<(String, EventId)> {
    let what = "the row families/acme/one is older than the event";
    Some((what.into(), event(id)))
}

fn put_back(id: u128) -> Option<(String, EventId)> {
    let what = "the row families/acme/one was put back before the event";
    Some((what.into(), event(id)))
}

#[test]
fn a_row_behind_its_newest_event_is_named_and_no_other() {
    let renewals = log(1, &[2, 3, 4]);
    assert_eq!(fault(&renewals, Some(3)), older(3));
    assert_eq!(fault(&renewals, Some(1)), older(3));
    assert_eq!(fault(&renewals, Some(4)), None);
    // A renewal whose event is not sealed yet.
    assert_eq!(fault(&renewals, Some(5)), None);
    // It has ended, by itself or by a replay.
    assert_eq!(fault(&renewals, None), None);
    // Retention has removed its events.
    assert_eq!(fault(&log(1, &[]), Some(1)), None);
}

#[test]
fn generations_that_a_failover_has_lost_are_no_fault() {
    let renewals = log(1, &[2, 3, 7, 8]);
    assert_eq!(renewals.ranges.len(), 2);
    assert_eq!(fault(&renewals, Some(8)), None);
    assert_eq!(fault(&renewals, Some(3)), older(4));
}

#[test]
fn a_generation_that_was_handed_out_twice_is_named_although_the_row_has_moved_on() {
    for (generations, repeating) in [
        (&[2, 3, 4, 3, 4, 5][..], 5),
        (&[2, 3, 2], 3),
        (&[2, 3, 7, 8, 2], 5),
        (&[2, 2, 3], 2),
    ] {
        let renewals = log(1, generations);
        assert_eq!(fault(&renewals, Some(9)), put_back(repeating), "{generations:?}");
        assert_eq!(fault(&renewals, None), None, "{generations:?}");
    }
}

#[test]
fn logs_are_joined_in_their_order() {
    let joined = |older: &[u32], later: &[u32]| {
        let mut renewals = log(1, older);
        renewals.append(log(11, later));
        renewals
    };
    let renewals = joined(&[2, 3], &[4, 5]);
    assert_eq!(renewals.ranges.len(), 1);
    assert_eq!(fault(&renewals, Some(5)), None);
    assert_eq!(fault(&renewals, Some(4)), older(12));
    let renewals = joined(&[2, 3, 4, 5], &[4, 5, 6]);
    assert_eq!(fault(&renewals, Some(6)), put_back(13));
    let renewals = joined(&[2, 3, 4, 5], &[4]);
    assert_eq!(fault(&renewals, Some(5)), put_back(11));
    let renewals = joined(&[2, 3, 3], &[4]);
    assert_eq!(fault(&renewals, Some(4)), put_back(3));
}

#[test]
fn beyond_the_most_in_memory_the_oldest_families_are_left_out() {
    let mut renewals = log(1, &[2, 3]);
    for number in 1..=MOST_RANGES as u128 {
        if number == MOST_RANGES as u128 {
            assert_eq!(fault(&renewals, Some(2)), older(2));
        }
        let family_id = FamilyId::of(ulid_at(TEST_START, FAMILY + number));
        renewals.add(family_id, (2, 2), event(3));
    }
    assert_eq!(renewals.ranges.len(), MOST_RANGES);
    assert_eq!(fault(&renewals, Some(2)), None);
}

proptest! {
    /// A log holds the groups of two replicas in any order.
    #[test]
    fn the_order_of_events_does_not_matter(generations in Just((2..20).collect::<Vec<u32>>()).prop_shuffle()) {
        let renewals = log(1, &generations);
        let newest = generations.iter().position(|generation| *generation == 19).unwrap();
        prop_assert_eq!(renewals.ranges.len(), 1);
        prop_assert_eq!(fault(&renewals, Some(19)), None);
        prop_assert_eq!(fault(&renewals, Some(18)), older(newest as u128 + 1));
    }
}
