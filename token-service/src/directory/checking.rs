//! Of calls that bring the same Client Secret at the same time one asks the registry, and the others wait for their
//! turn: who brings the right one then finds the answer in memory, so that a client that starts with many calls
//! at once costs one run of the slow hash; who brings wrong ones with the id of a secret of its own has one place
//! in the registry's line, whatever it sends, and does not hold up the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::id::{ClientId, SecretId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a turn is waited for: about as long as the registry takes for the last one in a full line of right
/// secrets.
const PATIENCE: Duration = Duration::from_secs(1);

/// A secret, right or not. Its id is as hard to guess as the secret, so that strangers can't take a client's turn.
pub(super) type Name = (ClientId, SecretId);

/// The secrets that are being asked about.
#[derive(Debug, Default)]
pub(super) struct Checking {
    under_way: Mutex<HashMap<Name, Queue>>,
}

/// Those who bring a secret.
#[derive(Debug)]
struct Queue {
    /// One.
    turns: Arc<Semaphore>,
    /// Who has the turn, and who waits.
    callers: usize,
}

/// Leave to ask about a secret.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// Goes first: the next one must find the queue.
    _permit: OwnedSemaphorePermit,
    _place: Place<'a>,
}

/// A place in a queue. The last one takes the queue along.
#[derive(Debug)]
struct Place<'a> {
    checking: &'a Checking,
    name: Name,
}

impl Checking {
    /// Waits for the turn of a secret; `None` if it does not come in time.
    pub(super) async fn turn(&self, name: Name) -> Option<Turn<'_>> {
        let (turns, place) = self.queue(name);
        let permit = timeout(PATIENCE, turns.acquire_owned()).await;
        Some(Turn {
            _permit: permit.ok()?.ok()?,
            _place: place,
        })
    }

    fn queue(&self, name: Name) -> (Arc<Semaphore>, Place<'_>) {
        let mut under_way = self.under_way();
        let queue = under_way.entry(name.clone()).or_insert_with(|| Queue {
            turns: Arc::new(Semaphore::new(1)),
            callers: 0,
        });
        queue.callers += 1;
        let checking = self;
        (queue.turns.clone(), Place { checking, name })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Name, Queue>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut under_way = self.checking.under_way();
        if let Some(queue) = under_way.get_mut(&self.name) {
            queue.callers -= 1;
            if queue.callers == 0 {
                under_way.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::pin;

    use accord::{random::SeededRandom, testing::test_clock};
    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    fn name(seed: u64) -> Name {
        let random = SeededRandom::new(seed);
        (
            ClientId::generate(&*test_clock(), &random),
            SecretId::generate(&*test_clock(), &random),
        )
    }

    #[tokio::test]
    async fn those_who_bring_a_secret_take_turns() {
        let checking = Checking::default();
        let first = checking.turn(name(1)).await.unwrap();
        let mut second = pin!(checking.turn(name(1)));
        let mut third = Box::pin(checking.turn(name(1)));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        let other = (name(1).0, name(2).1);
        assert!(checking.turn(other).await.is_some(), "another secret");
        drop(first);
        let second = second.now_or_never().flatten().unwrap();
        assert!((&mut third).now_or_never().is_none());
        // Who gives up is no longer in the way.
        drop(third);
        let mut fourth = pin!(checking.turn(name(1)));
        assert!((&mut fourth).now_or_never().is_none());
        drop(second);
        assert!(fourth.now_or_never().flatten().is_some());
        assert!(checking.under_way().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_not_waited_for_long() {
        let checking = Checking::default();
        let first = checking.turn(name(1)).await.unwrap();
        let begun = Instant::now();
        assert!(checking.turn(name(1)).await.is_none());
        let waited = begun.elapsed();
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
        drop(first);
        assert!(checking.under_way().is_empty());
    }
}
