//! Persons behind operators, as the rule of two people tells them apart. Names are compared without regard to case.

use super::id::OperatorId;

/// Returns whether a text names a person. An operator without a known person has its own id in that place.
pub fn is_named(person: &str) -> bool {
    OperatorId::parse(person).is_err()
}

/// Returns whether these are known to be two persons: both are named, and differ.
pub fn are_different_persons(one: &str, other: &str) -> bool {
    is_named(one) && is_named(other) && !is_same(one, other)
}

/// Returns whether two spellings name one person.
pub fn is_same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}
