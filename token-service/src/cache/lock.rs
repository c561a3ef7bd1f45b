//! A mutex that stays usable after a panic. Tests count how often locks are taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex for state that is sound after every statement.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        count();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a lock; the cache crate takes one for each look-up.
#[inline]
pub(super) fn count() {
    #[cfg(test)]
    TAKEN.with(|taken| taken.set(taken.get() + 1));
}

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Returns how many locks this thread has taken since the last call.
#[cfg(test)]
pub fn taken() -> usize {
    TAKEN.with(std::cell::Cell::take)
}
