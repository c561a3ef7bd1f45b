//! Rejected calls as audit events. The first ones of a caller in a minute are listed. Further ones are counted, and each count
//! becomes one event when the minute is over.
//!
//! Who called is what [`crate::rpc::context`] has noted: operators, Tenant Admins, and whoever brought a credential that was not
//! accepted. Other callers are not recorded.
//!
//! A call waits for its event for a moment at most, and never fails because of it. What the database does not take is counted
//! with the calls of the current minute. A process that is killed loses these counts.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio::{task::JoinHandle, time::timeout};

use super::limits::network;
use crate::{
    clock::{SharedClock, UnixMillis},
    lock::Lock,
    random::SystemRandom,
    rpc::context::NotedCaller,
    store::{
        Database, StoreError,
        audit::{self, Actor, ActorKind, Event, Origin, action},
    },
};

/// How long calls are counted until their counts are written.
const PERIOD: Duration = Duration::from_secs(60);
/// How many calls of one caller are listed in a period.
const LISTED: u32 = 10;
/// How many calls are listed in a period of all callers whom no credential names.
const LISTED_UNNAMED: u32 = 100;
/// The most callers with a count of their own in a period.
const MAX_CALLERS: usize = 1_024;
/// The most counts of a period. Beyond it, calls are counted without caller, method and reason.
const MAX_COUNTS: usize = 1_024;
/// How long a call waits for its event. A later commit is as good.
const WAIT: Duration = Duration::from_millis(500);

/// A call that was rejected.
#[derive(Debug)]
pub(super) struct RejectedCall {
    /// Who called.
    pub(super) caller: NotedCaller,
    /// The method, or the method of HTTP and the route.
    pub(super) method: String,
    /// The reason of the answer, as `ErrorInfo` has it.
    pub(super) reason: &'static str,
}

/// Records rejected calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::rpc) struct RejectedCalls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    clock: SharedClock,
    minute: Lock<Minute>,
    /// Held during a write, so that floods use one connection, and the last write waits for one that runs.
    writing: tokio::sync::Mutex<()>,
}

/// Whose calls are counted together: a named caller, or the network of those whom no credential names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CallerKey {
    kind: ActorKind,
    id: String,
    network: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CountKey {
    caller: CallerKey,
    method: String,
    reason: &'static str,
}

#[derive(Clone, Debug)]
struct Count {
    calls: u64,
    first: UnixMillis,
    last: UnixMillis,
    /// The newest of the calls.
    newest: Origin,
}

/// The calls of the current minute.
#[derive(Debug, Default)]
struct Minute {
    number: i64,
    listed: HashMap<CallerKey, u32>,
    listed_unnamed: u32,
    counts: HashMap<CountKey, Count>,
}

type Counts = Vec<(CountKey, Count)>;

/// The write of a rejected call, which goes on if this is dropped. The default has nothing to write.
#[derive(Debug, Default)]
pub(super) struct Recording(Option<JoinHandle<()>>);

impl Recording {
    /// Waits for the write, for half a second at most.
    pub(super) async fn finish(self) {
        if let Some(writing) = self.0 {
            let _ = timeout(WAIT, writing).await;
        }
    }
}

impl RejectedCalls {
    pub(in crate::rpc) fn new(db: Database, clock: SharedClock) -> Self {
        Self(Arc::new(Inner {
            db,
            clock,
            minute: Lock::default(),
            writing: tokio::sync::Mutex::default(),
        }))
    }

    /// Begins to record a call as an event, or counts it.
    pub(super) fn record(&self, call: RejectedCall) -> Recording {
        let RejectedCall {
            caller: NotedCaller { origin, event },
            method,
            reason,
        } = call;
        let now = self.0.clock.now();
        let key = CountKey {
            caller: CallerKey::of(&origin),
            method,
            reason,
        };
        let count = Count {
            calls: 1,
            first: now,
            last: now,
            newest: origin,
        };
        let (ended, is_listed) = {
            let mut minute = self.minute();
            let ended = minute.end_before(now);
            let is_listed = minute.lists(&key.caller);
            if !is_listed {
                minute.add(key.clone(), count.clone());
            }
            (ended, is_listed)
        };
        if ended.is_empty() && !is_listed {
            return Recording::default();
        }
        // In a task, because a caller that goes away must not prevent it.
        let this = self.clone();
        Recording(Some(tokio::spawn(async move {
            this.write_counts(ended).await;
            if is_listed {
                let listed = event.map(|event| *event);
                let event = listed.unwrap_or_else(|| described(&key));
                let events = vec![(count.newest.clone(), event.refused())];
                if this.write(events).await.is_err() {
                    this.minute().add(key, count);
                }
            }
        })))
    }

    /// Writes the counts of a minute that is over.
    pub(in crate::rpc) async fn write_ended(&self) {
        let ended = self.minute().end_before(self.0.clock.now());
        self.write_counts(ended).await;
    }

    /// Writes all counts, before the database closes.
    pub(in crate::rpc) async fn write_all(&self) {
        let counts = std::mem::take(&mut self.minute().counts);
        self.write_counts(counts.into_iter().collect()).await;
        drop(self.0.writing.lock().await);
    }

    async fn write_counts(&self, counts: Counts) {
        if counts.is_empty() {
            return;
        }
        let events = counts
            .iter()
            .map(|(key, count)| (count.newest.clone(), counted(key, count)));
        if self.write(events.collect()).await.is_err() {
            let mut minute = self.minute();
            for (key, count) in counts {
                minute.add(key, count);
            }
        }
    }

    /// Writes events in one transaction. After an error the events may have been written; they are then recorded twice.
    async fn write(&self, events: Vec<(Origin, Event)>) -> Result<(), StoreError> {
        let Inner {
            db, clock, writing, ..
        } = &*self.0;
        let _writing = writing.lock().await;
        let written = async {
            let tx = db.write().await?;
            for (origin, event) in events {
                audit::record(&tx, &**clock, &SystemRandom, &origin, event).await;
            }
            tx.commit().await
        };
        written
            .await
            .inspect_err(|error| tracing::warn!(%error, "rejected calls are not recorded yet"))
    }

    fn minute(&self) -> MutexGuard<'_, Minute> {
        self.0.minute.lock()
    }
}

impl Minute {
    /// Begins the minute of `now`. Returns the counts of another one, if there are any.
    fn end_before(&mut self, now: UnixMillis) -> Counts {
        let number = now.as_secs() / PERIOD.as_secs().cast_signed();
        if number == self.number {
            return Vec::new();
        }
        let ended = std::mem::take(self);
        self.number = number;
        ended.counts.into_iter().collect()
    }

    /// Returns whether a further call of this caller is listed, and counts it as listed.
    fn lists(&mut self, caller: &CallerKey) -> bool {
        let is_named = !caller.id.is_empty();
        if !is_named && self.listed_unnamed >= LISTED_UNNAMED {
            return false;
        }
        let has_room = self.listed.len() < MAX_CALLERS;
        let listed = match self.listed.get_mut(caller) {
            Some(listed) => listed,
            None if has_room => self.listed.entry(caller.clone()).or_default(),
            None => return false,
        };
        if *listed >= LISTED {
            return false;
        }
        *listed += 1;
        self.listed_unnamed += u32::from(!is_named);
        true
    }

    fn add(&mut self, key: CountKey, mut more: Count) {
        let is_full = self.counts.len() >= MAX_COUNTS && !self.counts.contains_key(&key);
        let key = if is_full { CountKey::others() } else { key };
        if key == CountKey::others() {
            // They are of different callers.
            more.newest = Origin::outside_of_calls(ActorKind::Anonymous, "");
        }
        match self.counts.get_mut(&key) {
            Some(count) => {
                count.calls += more.calls;
                count.first = count.first.min(more.first);
                if more.last >= count.last {
                    (count.last, count.newest) = (more.last, more.newest);
                }
            }
            None => {
                self.counts.insert(key, more);
            }
        }
    }
}

impl CallerKey {
    fn of(origin: &Origin) -> Self {
        let Actor { kind, id } = origin.actor.clone();
        let is_named = !id.is_empty();
        let network_of = |address: audit::CallerAddress| network(address.ip(), 0);
        Self {
            kind,
            id,
            network: origin.address.map(network_of).filter(|_| !is_named),
        }
    }
}

impl CountKey {
    /// The key of all calls that have no count of their own.
    fn others() -> Self {
        Self {
            caller: CallerKey {
                kind: ActorKind::Anonymous,
                id: String::new(),
                network: None,
            },
            method: String::new(),
            reason: "",
        }
    }
}

/// Returns the event of a call about which nothing else is known.
fn described(key: &CountKey) -> Event {
    let event = Event::new(action::CALL_REJECT);
    match key.method.as_str() {
        "" => event,
        method => event.detail("method", method).detail("error_reason", key.reason),
    }
}

/// Returns the event of calls that were counted. Its actor is theirs; its address and request id are those of the newest one.
fn counted(key: &CountKey, count: &Count) -> Event {
    described(key)
        .detail("count", count.calls.to_string())
        .detail("first_time", count.first.to_timestamp().to_string())
        .detail("last_time", count.last.to_timestamp().to_string())
        .refused()
}

#[cfg(test)]
#[path = "../tests/rejected_calls.rs"]
mod tests;
