//! The connections whose clients have not begun to speak. When the listener is full, they make room.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// How long a client has to begin before it may be asked to make room. Where all others have begun, a client would
/// otherwise lose its connection to the next one before it could speak.
const GRACE: Duration = Duration::from_secs(1);

/// The connections that have not begun.
#[derive(Debug, Default)]
pub(super) struct PendingConnections {
    /// Those of them whose grace is over.
    waiting: AtomicUsize,
    /// Wakes the one that has waited longest.
    leave: Notify,
}

impl PendingConnections {
    /// Waits until the client has begun. Returns `None` if it must make room before.
    pub(super) async fn wait_for_start<T>(&self, beginning: impl Future<Output = T>) -> Option<T> {
        let leaving = async {
            sleep(GRACE).await;
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _leaving = CountGuard(&self.waiting);
            self.leave.notified().await;
        };
        tokio::select! {
            biased;
            begun = beginning => Some(begun),
            () = leaving => None,
        }
    }

    /// Ends the connection that has waited longest. Returns whether there is one.
    pub(super) fn make_room(&self) -> bool {
        let is_waiting = self.waiting.load(Ordering::Relaxed) > 0;
        if is_waiting {
            self.leave.notify_one();
        }
        is_waiting
    }
}

/// Counts a connection down when it has begun or ended.
struct CountGuard<'a>(&'a AtomicUsize);

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_waited_longest_makes_room() {
        let connections = PendingConnections::default();
        // Nobody waits, and nobody leaves for it later.
        assert!(!connections.make_room());
        let mut oldest = Box::pin(connections.wait_for_start(pending::<()>()));
        let mut newest = Box::pin(connections.wait_for_start(pending::<()>()));
        assert_eq!((&mut oldest).now_or_never(), None);
        assert_eq!((&mut newest).now_or_never(), None);
        assert!(!connections.make_room());
        assert_eq!((&mut oldest).now_or_never(), None, "it may still begin");
        advance(GRACE).await;
        assert_eq!((&mut oldest).now_or_never(), None);
        assert_eq!((&mut newest).now_or_never(), None);
        assert!(connections.make_room());
        assert_eq!((&mut newest).now_or_never(), None);
        assert_eq!((&mut oldest).now_or_never(), Some(None));
        assert_eq!(
            connections.wait_for_start(async { 7 }).now_or_never(),
            Some(Some(7))
        );
        drop((oldest, newest));
        assert_eq!(connections.waiting.load(Ordering::Relaxed), 0);
    }
}
