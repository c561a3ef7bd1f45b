//! Locks of the cache. Tests count how often they are taken.

use std::sync::MutexGuard;

/// A lock that tests count.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(accord::lock::Lock<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(accord::lock::Lock::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        count();
        self.0.lock()
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
