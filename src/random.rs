//! Randomness. Code receives a [`Random`] as a parameter, so that tests can repeat a run.

use std::{fmt, sync::Arc};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::lock::Lock;

/// A source of random bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A shared source of random bytes.
pub type SharedRandom = Arc<dyn Random>;

/// Cryptographically secure randomness: one generator for each thread, seeded and reseeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    // The only place that reads the system's randomness.
    #[allow(clippy::disallowed_methods)]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// Returns the same bytes for the same seed. For tests only.
#[derive(derive_more::Debug)]
#[debug("SeededRandom {{ .. }}")]
pub struct SeededRandom(Lock<StdRng>);

impl SeededRandom {
    /// Creates a source from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Lock::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut generator = self.0.lock();
        generator.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(random: &dyn Random) -> [u8; 32] {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_seed_repeats_its_bytes_and_the_system_does_not() {
        assert_eq!(draw(&SeededRandom::new(1)), draw(&SeededRandom::new(1)));
        assert_ne!(draw(&SeededRandom::new(1)), draw(&SeededRandom::new(2)));
        assert_ne!(draw(&SystemRandom), draw(&SystemRandom));
    }
}
