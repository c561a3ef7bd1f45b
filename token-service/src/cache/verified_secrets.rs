//! The Client Secrets that were verified, kept with their client as MACs. Their key belongs to this process and is
//! never written, so that nobody can recover a secret from the MACs or test guesses elsewhere.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, SecretId},
};
use arc_swap::ArcSwap;

use super::lock::Lock;
use crate::model::client::{Client, SecretUse};

/// The most secrets of a client that are kept as verified, and as rejected.
const MAX_SECRETS: usize = 16;

/// A client as the registry described it, with its verified and rejected secrets.
#[derive(Debug)]
pub struct KnownClient {
    client: Client,
    /// Secrets that were verified, live or not. They stay when the client is read again.
    verified: ArcSwap<Vec<Arc<VerifiedSecret>>>,
    /// Secrets that this description does not list and that the registry rejected.
    rejected: ArcSwap<Vec<SecretId>>,
}

impl Deref for KnownClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A secret that was verified.
#[derive(derive_more::Debug)]
#[debug("{secret_id:?}")]
pub(super) struct VerifiedSecret {
    mac: [u8; 32],
    secret_id: SecretId,
    /// The last use that is not reported yet, in Unix milliseconds; 0 for none.
    used_at: AtomicI64,
}

impl KnownClient {
    /// Joins a client with the secrets that were verified `before`.
    pub(super) fn new(client: Client, before: Option<&Self>) -> Self {
        let verified = before.map_or_else(Vec::new, |before| before.verified.load().to_vec());
        Self {
            client,
            verified: ArcSwap::from_pointee(verified),
            rejected: ArcSwap::default(),
        }
    }

    /// Adds a secret that was verified.
    pub(super) fn verify(&self, mac: &[u8; 32], secret_id: &SecretId) {
        let verified = Arc::new(VerifiedSecret {
            mac: *mac,
            secret_id: secret_id.clone(),
            used_at: AtomicI64::new(0),
        });
        self.verified.rcu(|known| {
            let others = known.iter().filter(|known| known.secret_id != verified.secret_id);
            let all = std::iter::once(&verified).chain(others);
            all.take(MAX_SECRETS).cloned().collect::<Vec<_>>()
        });
    }

    /// Returns the verified secret with this MAC, if it is live.
    pub(super) fn verified(&self, mac: &[u8; 32], now: UnixMillis) -> Option<Arc<VerifiedSecret>> {
        let verified = self.verified.load();
        // Nobody else knows the key of these MACs, so the time of a comparison reveals nothing.
        let secret = verified.iter().find(|secret| secret.mac == *mac)?;
        self.lists_secret(&secret.secret_id, now).then(|| secret.clone())
    }

    /// Records that the registry rejected a secret that this description does not list.
    pub(super) fn reject(&self, secret_id: &SecretId) {
        self.rejected.rcu(|rejected| {
            let all = std::iter::once(secret_id).chain(rejected.iter());
            all.take(MAX_SECRETS).cloned().collect::<Vec<_>>()
        });
    }

    pub(super) fn is_rejected(&self, secret_id: &SecretId) -> bool {
        self.rejected.load().contains(secret_id)
    }
}

/// Secrets that were used since their last use was reported.
#[derive(Default)]
pub(super) struct SecretUses(Lock<Vec<(ClientId, Arc<VerifiedSecret>)>>);

impl SecretUses {
    /// Records a use. Takes a lock once in each report's interval for each secret.
    pub(super) fn record(&self, client_id: &ClientId, secret: Arc<VerifiedSecret>, now: UnixMillis) {
        if secret.used_at.fetch_max(now.as_millis(), Relaxed) == 0 {
            self.0.lock().push((client_id.clone(), secret));
        }
    }

    /// Takes at most `limit` uses out. A use that can't be reported is recorded again.
    pub(super) fn take(&self, limit: usize) -> Vec<(Arc<VerifiedSecret>, SecretUse)> {
        let mut used = self.0.lock();
        let rest = used.len().saturating_sub(limit);
        let taken = used.drain(rest..).map(|(client_id, secret)| {
            let used = SecretUse {
                client_id,
                secret_id: secret.secret_id.clone(),
                used_at: UnixMillis::from_millis(secret.used_at.swap(0, Relaxed)),
            };
            (secret, used)
        });
        taken.collect()
    }
}
