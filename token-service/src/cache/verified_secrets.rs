//! The Client Secrets that were verified, remembered with their client as MACs under a key of this process that is
//! never written anywhere: nothing in memory gives a secret back, or lets one be tried elsewhere.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, SecretId},
};
use arc_swap::ArcSwap;

use super::lock::Lock;
use crate::model::client::{Client, SecretUse};

/// The most secrets of a client that are remembered, and the most that are known to be rejected.
const MAX_SECRETS: usize = 16;

/// A client as the registry described it, and what is known of its secrets.
#[derive(Debug)]
pub struct KnownClient {
    client: Client,
    /// Secrets that were verified, live or not. They stay when the client is read anew.
    verified: ArcSwap<Vec<Arc<VerifiedSecret>>>,
    /// Secrets that this description does not list and that the registry rejected. They go with it.
    rejected: ArcSwap<Vec<SecretId>>,
}

impl Deref for KnownClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A secret that was verified.
pub(super) struct VerifiedSecret {
    mac: [u8; 32],
    secret_id: SecretId,
    /// The last use that is not reported yet, in milliseconds; 0 for none.
    used_at: AtomicI64,
}

impl std::fmt::Debug for VerifiedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.secret_id.fmt(f)
    }
}

impl VerifiedSecret {
    pub(super) fn new(mac: [u8; 32], secret_id: SecretId) -> Self {
        Self {
            mac,
            secret_id,
            used_at: AtomicI64::new(0),
        }
    }
}

impl KnownClient {
    /// A client with the secrets that were verified `before`.
    pub(super) fn new(client: Client, before: Option<&Self>) -> Self {
        let verified = before.map_or_else(Vec::new, |before| before.verified.load().to_vec());
        Self {
            client,
            verified: ArcSwap::from_pointee(verified),
            rejected: ArcSwap::default(),
        }
    }

    /// Remembers a secret that was verified.
    pub(super) fn verify(&self, verified: VerifiedSecret) {
        let verified = Arc::new(verified);
        self.verified.rcu(|known| {
            let others = known.iter().filter(|known| known.secret_id != verified.secret_id);
            let all = std::iter::once(&verified).chain(others);
            all.take(MAX_SECRETS).cloned().collect::<Vec<_>>()
        });
    }

    /// The verified secret with this MAC, if it is live.
    pub(super) fn verified(&self, mac: &[u8; 32], now: UnixMillis) -> Option<Arc<VerifiedSecret>> {
        let verified = self.verified.load();
        // Nobody knows the key of these MACs, so the time of a comparison reveals nothing.
        let secret = verified.iter().find(|secret| secret.mac == *mac)?;
        self.lists_secret(&secret.secret_id, now).then(|| secret.clone())
    }

    /// Remembers that the registry rejected a secret that this description does not list.
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
pub(super) struct SecretUses(Lock<Vec<Used>>);

type Used = (ClientId, Arc<VerifiedSecret>);

impl SecretUses {
    /// Notes a use. Takes a lock once in each report's interval for each secret.
    pub(super) fn note(&self, client_id: &ClientId, secret: Arc<VerifiedSecret>, now: UnixMillis) {
        if secret.used_at.swap(now.as_millis(), Ordering::Relaxed) == 0 {
            self.0.lock().push((client_id.clone(), secret));
        }
    }

    /// Takes at most `limit` of them, to be reported and then settled.
    pub(super) fn take(&self, limit: usize) -> Vec<(Arc<VerifiedSecret>, SecretUse)> {
        let mut used = self.0.lock();
        let rest = used.len().saturating_sub(limit);
        let report = |(client_id, secret): Used| {
            let used = SecretUse {
                client_id,
                secret_id: secret.secret_id.clone(),
                used_at: UnixMillis::from_millis(secret.used_at.load(Ordering::Relaxed)),
            };
            (secret, used)
        };
        used.drain(rest..).map(report).collect()
    }

    /// Puts back what was not reported, and what was used again meanwhile.
    pub(super) fn settle(&self, taken: Vec<(Arc<VerifiedSecret>, SecretUse)>, reported: bool) {
        let is_settled = |(secret, sent): &(Arc<VerifiedSecret>, SecretUse)| {
            let sent = sent.used_at.as_millis();
            let swap = || {
                secret
                    .used_at
                    .compare_exchange(sent, 0, Ordering::Relaxed, Ordering::Relaxed)
            };
            reported && swap().is_ok()
        };
        let rest = taken.into_iter().filter(|taken| !is_settled(taken));
        let rest: Vec<_> = rest.map(|(secret, sent)| (sent.client_id, secret)).collect();
        self.0.lock().extend(rest);
    }
}
