//! One call at a time for each key.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::lock::Lock;

/// The keys for which calls run.
pub(super) struct SingleFlight<K: Eq + Hash>(Lock<HashMap<K, Arc<Mutex<()>>>>);

/// A call that runs or waits.
pub(super) struct Flight<'a, K: Eq + Hash> {
    flights: &'a SingleFlight<K>,
    key: K,
    mutex: Arc<Mutex<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> SingleFlight<K> {
    pub(super) fn new() -> Self {
        Self(Lock::default())
    }

    /// Waits until no other call for `key` is under way.
    pub(super) async fn enter(&self, key: K) -> Flight<'_, K> {
        let mutex = self.0.lock().entry(key.clone()).or_default().clone();
        let mut flight = Flight {
            flights: self,
            key,
            mutex,
            guard: None,
        };
        flight.guard = Some(flight.mutex.clone().lock_owned().await);
        flight
    }
}

impl<K: Eq + Hash> Drop for Flight<'_, K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut under_way = self.flights.0.lock();
        // One is this call's and one the map's, so no other call waits.
        if Arc::strong_count(&self.mutex) == 2 {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn calls_for_one_key_wait_for_each_other_and_leave_nothing_behind() {
        let flights = SingleFlight::new();
        let first = flights.enter(1).await;
        let mut second = pin!(flights.enter(1));
        let mut third = Box::pin(flights.enter(1));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert!(flights.enter(2).now_or_never().is_some(), "another key");
        drop(first);
        let second = second.now_or_never().unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(third);
        drop(second);
        assert!(flights.enter(1).now_or_never().is_some());
        assert!(flights.0.lock().is_empty());
    }
}
