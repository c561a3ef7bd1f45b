//! Of calls that bring the same secret at the same time one asks about it, and the others find the answer in
//! memory: a client that starts with many calls at once costs one run of the registry's slow hash, not one for each.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long somebody else's question is waited for: about as long as the registry takes for the last one in a full line
/// of right secrets. A registry that takes longer, or hangs, should be seen by each for himself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of client and secret, under this process's key.
type Mac = [u8; 32];

/// The secrets that are being asked about, and when that is over.
#[derive(Debug, Default)]
pub(super) struct Checking {
    under_way: Mutex<HashMap<Mac, CancellationToken>>,
}

/// The first one who asks about a secret. The others wait for its end.
#[derive(Debug)]
pub(super) struct First<'a> {
    checking: &'a Checking,
    mac: Mac,
    over: CancellationToken,
}

impl Checking {
    /// Begins to ask; or, if somebody does so already, waits until that is over, whatever came of it, but not for long.
    pub(super) async fn begin(&self, mac: Mac) -> Option<First<'_>> {
        let over = match self.under_way().entry(mac) {
            Entry::Occupied(other) => other.get().clone(),
            Entry::Vacant(free) => {
                let over = free.insert(CancellationToken::new()).clone();
                let checking = self;
                return Some(First { checking, mac, over });
            }
        };
        let _ = timeout(PATIENCE, over.cancelled()).await;
        None
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Mac, CancellationToken>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.checking.under_way().remove(&self.mac);
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::pin;

    use futures_util::{FutureExt, future::join};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_the_first_one_but_not_for_long() {
        let checking = Checking::default();
        let begin = || checking.begin([1; 32]);
        let first = begin().await.unwrap();
        assert!(checking.begin([2; 32]).await.is_some(), "another secret");
        let mut others = pin!(join(begin(), begin()));
        assert!((&mut others).now_or_never().is_none());
        drop(first);
        let told = others.now_or_never().unwrap();
        assert!(told.0.is_none() && told.1.is_none());

        let first = begin().await.unwrap();
        let begun = Instant::now();
        assert!(begin().await.is_none());
        let waited = begun.elapsed();
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
        drop(first);
        assert!(checking.under_way().is_empty());
    }
}
