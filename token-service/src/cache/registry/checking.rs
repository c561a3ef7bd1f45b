//! One question at a time about the Client Secrets of one id, right or wrong. A client that starts with many calls at
//! once costs one run of the registry's slow hash: the others find the answer in memory when their turn has come.
//! Whoever brings wrong ones with the id of a secret of its own has one place in the registry's line, whatever it
//! sends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::text::id::{ClientId, SecretId};
use tokio::{
    sync::{self, OwnedMutexGuard, Semaphore},
    time::timeout,
};

use crate::cache::lease;

/// How long a turn is waited for: about as long as the registry takes for the last one in a full line of right
/// secrets, and longer than a lease, so that a registry that hangs is known to.
const PATIENCE: Duration = Duration::from_secs(1);
const _: () = assert!(PATIENCE.as_millis() > lease::LIFE.as_millis());
/// How many may wait, whatever for: few of the calls that a gateway lets be under way at once.
const MOST_WAITING: usize = 256;

/// Client and secret, whether there are such or not. The secret's id is too hard to guess for strangers to take a
/// client's turn; a Client ID is not.
pub(super) type Name = (ClientId, SecretId);

/// The secrets that are being asked about.
#[derive(Debug)]
pub(super) struct Checking {
    under_way: Mutex<HashMap<Name, Queue>>,
    waiting: Semaphore,
}

/// Those who bring a secret.
#[derive(Debug, Default)]
struct Queue {
    turns: Arc<sync::Mutex<()>>,
    /// Who has the turn, and who waits.
    callers: usize,
}

/// Leave to ask about a secret.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _turn: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

/// A place in a queue. The last one takes the queue along.
#[derive(Debug)]
struct Place<'a> {
    checking: &'a Checking,
    name: Name,
}

impl Default for Checking {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

impl Checking {
    /// Waits for the turn of a secret; `None` if it does not come in time, or too many wait.
    pub(super) async fn turn(&self, name: Name) -> Option<Turn<'_>> {
        let (turns, place) = self.queue(name);
        let turn = match turns.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_taken) => {
                let _waiting = self.waiting.try_acquire().ok()?;
                timeout(PATIENCE, turns.lock_owned()).await.ok()?
            }
        };
        Some(Turn {
            _turn: turn,
            _place: place,
        })
    }

    fn queue(&self, name: Name) -> (Arc<sync::Mutex<()>>, Place<'_>) {
        let mut under_way = self.under_way();
        let queue = under_way.entry(name.clone()).or_default();
        queue.callers += 1;
        let checking = self;
        (queue.turns.clone(), Place { checking, name })
    }

    /// Takes all places of those who wait.
    #[cfg(test)]
    pub(super) fn fill(&self) -> sync::SemaphorePermit<'_> {
        let all = self.waiting.try_acquire_many(MOST_WAITING as u32);
        all.unwrap_or_else(|_| unreachable!())
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

    #[tokio::test]
    async fn few_wait_at_a_time_whatever_for() {
        let checking = Checking::default();
        let held = [name(1), name(2)].map(|name| checking.turn(name).now_or_never().flatten().unwrap());
        let mut waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| Box::pin(checking.turn(name(1))))
            .collect();
        for caller in &mut waiting {
            assert!(caller.now_or_never().is_none());
        }
        assert!(checking.turn(name(2)).await.is_none());
        assert!(checking.turn(name(3)).await.is_some(), "who need not wait");
        waiting.pop();
        assert!(checking.turn(name(2)).now_or_never().is_none());
        drop((waiting, held));
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
