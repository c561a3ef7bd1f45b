//! Lets one call at a time ask about the same secret: those that come meanwhile find it in memory then. A client
//! that starts with many calls at once costs one run of the registry's slow hash, not one for each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Of client and secret, under this process's key.
type Mac = [u8; 32];

/// The secrets that are being asked about.
#[derive(Debug, Default)]
pub(super) struct Checking {
    turns: Mutex<HashMap<Mac, Arc<Turn<()>>>>,
}

/// One that asks, or waits to.
pub(super) struct Check<'a> {
    checking: &'a Checking,
    mac: Mac,
    turn: Arc<Turn<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Checking {
    /// Begins to wait for a turn.
    pub(super) fn begin(&self, mac: Mac) -> Check<'_> {
        let turn = self.turns().entry(mac).or_default().clone();
        Check {
            checking: self,
            mac,
            turn,
            held: None,
        }
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<Mac, Arc<Turn<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check<'_> {
    /// Waits until nobody else has the turn, and has it until the end; whether somebody else had it before.
    pub(super) async fn turn(&mut self) -> bool {
        let free = self.turn.clone().try_lock_owned().ok();
        let waited = free.is_none();
        self.held = match free {
            Some(held) => Some(held),
            None => Some(self.turn.clone().lock_owned().await),
        };
        waited
    }

    /// Gives the turn to the next one.
    pub(super) fn pass_on(&mut self) {
        self.held = None;
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        let mut turns = self.checking.turns();
        self.held = None;
        // This one and the map's: nobody else is there.
        if Arc::strong_count(&self.turn) == 2 {
            turns.remove(&self.mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_has_the_turn_of_a_secret_and_nothing_stays() {
        let checking = Checking::default();
        let begin = || checking.begin([1; 32]);
        let (mut one, mut other, mut gave_up) = (begin(), begin(), begin());
        assert!(!one.turn().await);
        assert!(!checking.begin([2; 32]).turn().await, "another secret");
        assert!(gave_up.turn().now_or_never().is_none());
        drop(gave_up);
        {
            let mut next = pin!(other.turn());
            assert!((&mut next).now_or_never().is_none());
            drop(one);
            assert!(next.await);
        }
        assert!(begin().turn().now_or_never().is_none());
        assert_eq!(checking.turns().len(), 1);
        drop(other);
        assert!(checking.turns().is_empty());
    }
}
