//! Whom to call for next: uniformly at random, the same in every run.

use std::sync::Arc;

use super::stock::Person;

/// A caller's picks of people (SplitMix64).
pub struct Picks {
    people: Arc<[Person]>,
    state: u64,
}

impl Picks {
    /// Those of the caller with this number.
    pub fn new(people: &Arc<[Person]>, caller: usize) -> Self {
        Self {
            people: people.clone(),
            state: (caller as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d),
        }
    }

    pub fn next(&mut self) -> &Person {
        let count = self.people.len() as u64;
        let index = (self.number() % count) as usize;
        &self.people[index]
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
