//! The state of a [`Checker`](super::Checker): keys, revocations, and the connection to refresh them.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use zeroize::Zeroizing;

use super::{KeySet, Revocations, revocations::Applied};
use crate::{
    clock::SharedClock,
    token::v1::{self as pb, token_service_client::TokenServiceClient},
};

/// How long keys count after they were requested. The feed names a revoked key for longer than this.
const KEYS_LIFE: Duration = Duration::from_secs(600);

/// The state that the clones of a checker share with its background task.
pub(super) struct Shared {
    pub(super) client: TokenServiceClient<Channel>,
    pub(super) token: WorkloadToken,
    pub(super) clock: SharedClock,
    pub(super) poll_every: Duration,
    pub(super) call_timeout: Duration,
    pub(super) revocations: RwLock<Revocations>,
    /// The keys, and when the request for them was sent.
    pub(super) keys: RwLock<Option<(Arc<KeySet>, Instant)>>,
    pub(super) reading_keys: tokio::sync::Mutex<LastRead>,
    /// Requests another read of the keys.
    pub(super) keys_changed: Notify,
    /// Notified after every update.
    pub(super) updated: watch::Sender<()>,
}

/// The last attempt to read the keys.
#[derive(Default)]
pub(super) struct LastRead {
    pub(super) started: Option<Instant>,
    pub(super) failed: bool,
}

/// A workload's bearer token.
pub(super) struct WorkloadToken(Zeroizing<String>);

impl WorkloadToken {
    /// Returns `None` for a text that no header can hold.
    pub(super) fn new(text: &str) -> Option<Self> {
        let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the `authorization` header, whose `Debug` hides it.
    pub(super) fn header(&self) -> MetadataValue<Ascii> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        // Visible ASCII is always a legal value.
        let mut value = MetadataValue::try_from(text.as_str()).unwrap_or(MetadataValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl Shared {
    /// Returns the keys unless they are too old: the feed forgets the revocation of a key after a while.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (keys, sent_at) = keys.as_ref()?;
        (sent_at.elapsed() <= KEYS_LIFE).then(|| keys.clone())
    }

    /// Replaces the keys by those that were requested at `sent_at`, unless the epoch changed since.
    pub(super) fn set_keys(&self, keys: KeySet, sent_at: Instant) {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        if revocations.epoch_since().is_none_or(|since| sent_at >= since) {
            let keys = Some((Arc::new(keys), sent_at));
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }

    /// Applies an answer of the feed. A new epoch drops the keys too: the old database may have been replaced
    /// because its keys leaked.
    pub(super) fn apply(&self, answer: pb::ListRevocationsResponse, sent_at: Instant) -> Applied {
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        let applied = revocations.apply(answer, sent_at);
        if applied.new_epoch {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        applied
    }

    pub(super) fn with_revocations<T>(&self, read: impl FnOnce(&Revocations) -> T) -> T {
        read(&self.revocations.read().unwrap_or_else(PoisonError::into_inner))
    }
}
