//! The replicas of a service that calls are balanced over.
//!
//! A replica that fails a call gets no further calls until its health check says that it serves, so that no call waits for
//! a replica that is known to hang. If all have failed, calls go to any of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::target::{ResolvedAddress, Target};
use crate::lock::Lock;

/// How often names are resolved and the files of TLS are read, while there are calls.
const REFRESH_PERIOD: Duration = Duration::from_secs(2);
/// The shortest time between two refreshes, while calls fail.
const SHORTEST_REFRESH_PERIOD: Duration = Duration::from_millis(100);
/// How often a replica out of the rotation is asked for its health.
const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// How long a replica may take to say that it serves.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The replicas of a service.
#[derive(Debug)]
pub(super) struct Peers {
    target: Target,
    state: Lock<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: Vec<Arc<Peer>>,
    /// The generation of the TLS files that the channels were opened with.
    generation: u64,
    /// The newest refresh.
    refresh: Option<Refresh>,
    /// Whether a call has failed since it began.
    is_doubtful: bool,
    /// Makes calls take turns among replicas with equally many calls.
    turn: usize,
}

/// A refresh of the replicas, in a task of its own: it goes on when the caller that began it goes away. There is one at a
/// time, so that none replaces the list of a newer one.
#[derive(Debug)]
struct Refresh {
    began: Instant,
    /// Its result, and `None` before there is one.
    result: watch::Receiver<Option<Result<(), String>>>,
}

impl State {
    /// Returns whether a refresh must begin.
    fn is_refresh_due(&self) -> bool {
        let is_urgent = self.is_doubtful || self.peers.is_empty();
        let period = if is_urgent {
            SHORTEST_REFRESH_PERIOD
        } else {
            REFRESH_PERIOD
        };
        self.refresh.as_ref().is_none_or(|refresh| {
            // Its task has dropped the sender.
            let has_ended = refresh.result.has_changed().is_err();
            has_ended && refresh.began.elapsed() >= period
        })
    }
}

/// A replica.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) resolved: ResolvedAddress,
    pub(super) channel: Channel,
    is_set_aside: AtomicBool,
    calls: AtomicUsize,
}

/// Counts a call to a replica while it lasts.
pub(super) struct PeerCall(pub(super) Arc<Peer>);

impl PeerCall {
    fn new(peer: &Arc<Peer>) -> Self {
        peer.calls.fetch_add(1, Ordering::Relaxed);
        Self(peer.clone())
    }
}

impl Drop for PeerCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            state: Lock::default(),
        }
    }

    /// Chooses the replica with the fewest calls among those that serve, and another one than `failed` if there is one.
    ///
    /// # Errors
    /// Why no name can be resolved.
    pub(super) async fn choose(self: &Arc<Self>, failed: Option<&Peer>) -> Result<PeerCall, String> {
        let first = self.state(|state| {
            if state.is_refresh_due() {
                state.is_doubtful = false;
                state.refresh = Some(self.clone().begin_refresh());
            }
            let refresh = state.refresh.as_ref().filter(|_| state.peers.is_empty());
            refresh.map(|refresh| refresh.result.clone())
        });
        if let Some(mut first) = first {
            let ended = first.wait_for(Option::is_some).await;
            ended.ok().and_then(|result| result.clone()).transpose()?;
        }
        self.state(|state| {
            state.turn = state.turn.wrapping_add(1);
            let (count, turn) = (state.peers.len(), state.turn);
            let rank = |index: usize| {
                let peer = &state.peers[index];
                let has_failed = failed.is_some_and(|failed| std::ptr::eq(failed, &**peer));
                let is_set_aside = peer.is_set_aside.load(Ordering::Relaxed);
                let calls = peer.calls.load(Ordering::Relaxed);
                // The failed one is the last resort, even if the others are out of the rotation.
                (has_failed, is_set_aside, calls, (index + turn) % count)
            };
            let best = (0..count).min_by_key(|index| rank(*index));
            let best = best.ok_or("no address is known")?;
            Ok(PeerCall::new(&state.peers[best]))
        })
    }

    /// Returns whether another replica than this one serves.
    pub(super) fn has_other(&self, than: &Peer) -> bool {
        self.state(|state| {
            let mut peers = state.peers.iter();
            peers.any(|peer| !std::ptr::eq(than, &**peer) && !peer.is_set_aside.load(Ordering::Relaxed))
        })
    }

    /// Takes a replica out of the rotation until its health check says that it serves, if there are others. Resolves names
    /// soon.
    pub(super) fn eject(&self, peer: &Arc<Peer>) {
        let is_alone = self.state(|state| {
            state.is_doubtful = true;
            state.peers.len() < 2
        });
        if is_alone || peer.is_set_aside.swap(true, Ordering::Relaxed) {
            return;
        }
        // Ends when the replica serves, or is no longer one.
        let replica = Arc::downgrade(peer);
        tokio::spawn(async move {
            loop {
                sleep(PROBE_PERIOD).await;
                let Some(peer) = replica.upgrade() else {
                    return;
                };
                let mut health = HealthClient::new(peer.channel.clone());
                let check = health.check(HealthCheckRequest::default());
                if let Ok(Ok(response)) = timeout(PROBE_TIMEOUT, check).await
                    && response.get_ref().status() == ServingStatus::Serving
                {
                    tracing::info!(address = %peer.resolved.address, "the registry answers at this address again");
                    peer.is_set_aside.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    fn begin_refresh(self: Arc<Self>) -> Refresh {
        let (sender, result) = watch::channel(None);
        tokio::spawn(async move {
            let refreshed = self.refresh().await;
            sender.send_replace(Some(refreshed));
        });
        let began = Instant::now();
        Refresh { began, result }
    }

    /// Resolves names and reads the files of TLS. Keeps the channels of addresses that stay, unless the files changed.
    async fn refresh(&self) -> Result<(), String> {
        let generation = self.target.reload().await;
        let known = self.state(|state| {
            state
                .peers
                .iter()
                .map(|peer| peer.resolved.clone())
                .collect::<Vec<_>>()
        });
        let addresses = self.target.resolve(&known).await;
        let addresses = addresses.map_err(|error| format!("its name can't be resolved: {error}"))?;
        let mut known: HashMap<_, _> = self.state(|state| {
            let is_same = state.generation == generation;
            let peers = state.peers.iter().filter(|_| is_same);
            peers.map(|peer| (peer.resolved.clone(), peer.clone())).collect()
        });
        let peers = addresses.into_iter().map(|resolved| {
            if let Some(peer) = known.remove(&resolved) {
                return Ok(peer);
            }
            Ok(Arc::new(Peer {
                channel: self.target.channel(&resolved)?,
                resolved,
                is_set_aside: AtomicBool::new(false),
                calls: AtomicUsize::new(0),
            }))
        });
        let peers = peers.collect::<Result<Vec<_>, &str>>()?;
        self.state(|state| {
            state.peers = peers;
            state.generation = generation;
        });
        Ok(())
    }

    fn state<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        access(&mut self.state.lock())
    }
}
