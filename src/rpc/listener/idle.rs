//! The connections whose clients have begun to speak. When the listener is full, those that have been idle longest make room.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::lock::Lock;

/// How long a connection has no call before it may be asked to make room. A client that has just connected, or just received
/// a response, may be about to call.
const GRACE: Duration = Duration::from_secs(1);
/// How often a connection is checked. It is closed if it had no call since the last check, which is after one to two
/// such periods without a call. An HTTP/1 connection is closed earlier.
const CHECK_PERIOD: Duration = Duration::from_secs(300);
/// How many connections are asked at a time to make room: several clients may be waiting, and leaving takes a moment.
const AT_A_TIME: usize = 16;

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct Calls {
    opened: Instant,
    /// How many have begun.
    begun: AtomicU64,
    /// How many have not ended.
    running: AtomicUsize,
    /// When the last one ended, in milliseconds since the connection was opened.
    ended: AtomicU64,
    leave: Notify,
}

impl Calls {
    /// Counts a call until its guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveCall {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        ActiveCall(self.clone())
    }

    /// Waits until a whole [`CHECK_PERIOD`] has passed without a call.
    pub(super) async fn wait_until_unused(&self) {
        let mut begun = 0;
        loop {
            sleep(CHECK_PERIOD).await;
            let before = std::mem::replace(&mut begun, self.begun.load(Ordering::Relaxed));
            if before == begun && self.is_idle() {
                return;
            }
        }
    }

    /// Returns whether no call is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }

    /// Waits until the connection must make room.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }

    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }
}

/// Counts a call while it lasts.
#[derive(Debug)]
pub(super) struct ActiveCall(Arc<Calls>);

impl Drop for ActiveCall {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections that have begun, by the memory addresses of their [`Calls`].
#[derive(Debug, Default)]
pub(super) struct OpenConnections(Lock<HashMap<usize, Arc<Calls>>>);

impl OpenConnections {
    /// Adds a connection that has begun. Dropping the guard removes it.
    pub(super) fn add(&self) -> OpenGuard<'_> {
        let calls = Arc::new(Calls {
            opened: Instant::now(),
            begun: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            leave: Notify::new(),
        });
        self.map(|open| open.insert(key(&calls), calls.clone()));
        OpenGuard {
            connections: self,
            calls,
        }
    }

    /// Asks the connections that have been idle longest to leave. None is asked twice.
    pub(super) fn make_room(&self) {
        let now = Instant::now();
        self.map(|open| {
            let idle = open.values().filter(|calls| calls.is_idle());
            let idle = idle.map(|calls| (calls.idle_since(), key(calls)));
            let mut idle: Vec<_> = idle
                .filter(|(since, _)| now.duration_since(*since) >= GRACE)
                .collect();
            idle.sort_unstable();
            for (_, key) in idle.into_iter().take(AT_A_TIME) {
                if let Some(calls) = open.remove(&key) {
                    calls.leave.notify_one();
                }
            }
        });
    }

    fn map<T>(&self, access: impl FnOnce(&mut HashMap<usize, Arc<Calls>>) -> T) -> T {
        access(&mut self.0.lock())
    }
}

/// Removes a connection when it has ended.
#[derive(Debug)]
pub(super) struct OpenGuard<'a> {
    connections: &'a OpenConnections,
    /// The calls of the connection.
    pub(super) calls: Arc<Calls>,
}

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.connections.map(|open| open.remove(&key(&self.calls)));
    }
}

fn key(calls: &Arc<Calls>) -> usize {
    Arc::as_ptr(calls).addr()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_idle_longest_make_room_and_none_with_a_call() {
        let connections = OpenConnections::default();
        let busy = connections.add();
        let call = busy.calls.begin();
        let used = connections.add();
        let early = connections.add();
        advance(GRACE).await;
        drop(used.calls.begin());
        let late: Vec<_> = (0..AT_A_TIME).map(|_| connections.add()).collect();
        let must_leave = |open: &OpenGuard<'_>| open.calls.must_leave().now_or_never().is_some();
        connections.make_room();
        assert!(must_leave(&early) && !must_leave(&busy) && !must_leave(&used));
        assert!(!late.iter().any(must_leave), "they may be about to call");
        advance(GRACE).await;
        connections.make_room();
        assert!(must_leave(&used) && !must_leave(&busy));
        assert_eq!(late.iter().filter(|open| must_leave(open)).count(), AT_A_TIME - 1);
        drop(call);
        advance(GRACE).await;
        connections.make_room();
        assert!(must_leave(&busy));
        drop((busy, used, early, late));
        assert!(connections.map(|open| open.is_empty()));
    }
}
