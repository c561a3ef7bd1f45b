//! The state of a [`Checker`](super::Checker): keys, revocations, and the client that updates them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use zeroize::Zeroizing;

use super::{KeySet, Revocations, VerifyError, connection::Connection, revocations::Applied};
use crate::{clock::SharedClock, dpop::ReplayCache, token::v1 as pb};

/// How long keys are valid after they were requested. The feed lists a revoked key for longer than this.
const KEYS_LIFETIME: Duration = Duration::from_secs(600);

/// The state that the clones of a checker share with its background task.
pub(super) struct Shared {
    pub(super) connection: Connection,
    /// A workload's bearer token; empty with a client certificate.
    pub(super) token: Zeroizing<String>,
    pub(super) clock: SharedClock,
    pub(super) poll_every: Duration,
    pub(super) call_timeout: Duration,
    pub(super) revocations: RwLock<Revocations>,
    /// The keys, and when the request for them was sent.
    pub(super) keys: RwLock<Option<(Arc<KeySet>, Instant)>>,
    /// The start of the last read of the keys, and its result.
    pub(super) last_read: tokio::sync::Mutex<LastRead>,
    /// Requests another read of the keys.
    pub(super) keys_changed: Notify,
    /// The DPoP proofs of the last minute.
    pub(super) proofs: ReplayCache,
    /// Notified after every update.
    pub(super) updated: watch::Sender<()>,
}

pub(super) type LastRead = Option<(Instant, Result<(), VerifyError>)>;

impl Shared {
    /// Returns the keys unless they are too old: after a while the feed drops the revocation of a key.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, sent_at) = keys.as_ref()?;
        (sent_at.elapsed() <= KEYS_LIFETIME).then(|| keys.clone())
    }

    /// Replaces the keys by those that were requested at `sent_at`, unless a new epoch started since.
    pub(super) fn set_keys(&self, keys: KeySet, sent_at: Instant) {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        if revocations.epoch_since().is_none_or(|since| sent_at >= since) {
            let keys = Some((Arc::new(keys), sent_at));
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }

    /// Applies a response of the feed. A new epoch drops the keys too: the old database may have been replaced because
    /// its keys leaked.
    pub(super) fn apply(&self, response: pb::ListRevocationsResponse, sent_at: Instant) -> Applied {
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let applied = revocations.apply(response, sent_at);
        if applied.new_epoch {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        applied
    }

    pub(super) fn with_revocations<T>(&self, read: impl FnOnce(&Revocations) -> T) -> T {
        read(&self.revocations.read().unwrap_or_else(PoisonError::into_inner))
    }
}
