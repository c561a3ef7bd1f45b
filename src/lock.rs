//! A mutex that stays usable after a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A mutex for state that is sound after every statement, so that a panic of one holder ends nothing but its own call.
#[derive(Debug, Default)]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// Creates a lock around a value.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the value. Blocks the thread.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_panic_of_a_holder_leaves_the_value_usable() {
        let lock = Lock::new(1);
        let panicked = catch_unwind(|| {
            *lock.lock() += 1;
            let _held = lock.lock();
            panic!("a holder");
        });
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 2);
    }
}
