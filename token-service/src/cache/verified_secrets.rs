//! The Client Secrets that the registry found to be right, remembered with their client as MACs under a key of this
//! process that is never written anywhere: nothing in memory gives a secret back, or lets one be tried elsewhere.

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

/// The most secrets of a client that are remembered.
const MAX_SECRETS: usize = 16;

/// A client, and its verified secrets. These stay when the client is read anew.
#[derive(Debug)]
pub struct KnownClient {
    client: Client,
    secrets: ArcSwap<Vec<Arc<VerifiedSecret>>>,
}

impl Deref for KnownClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// A secret that the registry found to be right.
pub(super) struct VerifiedSecret {
    pub(super) mac: [u8; 32],
    pub(super) secret_id: SecretId,
    pub(super) expires_at: Option<UnixMillis>,
    /// The last use that is not reported yet, in milliseconds; 0 for none.
    used_at: AtomicI64,
}

impl std::fmt::Debug for VerifiedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.secret_id.fmt(f)
    }
}

impl VerifiedSecret {
    pub(super) fn new(mac: [u8; 32], secret_id: SecretId, expires_at: Option<UnixMillis>) -> Self {
        Self {
            mac,
            secret_id,
            expires_at,
            used_at: AtomicI64::new(0),
        }
    }
}

impl KnownClient {
    /// A client with the secrets that were known `before`, and one more if there is one.
    pub(super) fn new(client: Client, before: Option<&Self>, verified: Option<VerifiedSecret>) -> Self {
        let mut secrets = before.map_or_else(Vec::new, |before| before.secrets.load().to_vec());
        if let Some(verified) = verified {
            secrets.retain(|known| known.secret_id != verified.secret_id);
            secrets.truncate(MAX_SECRETS - 1);
            secrets.insert(0, Arc::new(verified));
        }
        let secrets = ArcSwap::from_pointee(secrets);
        Self { client, secrets }
    }

    /// The secret with this MAC, unless it has expired.
    pub(super) fn verified(&self, mac: &[u8; 32], now: UnixMillis) -> Option<Arc<VerifiedSecret>> {
        let secrets = self.secrets.load();
        // Nobody knows the key of these MACs: how long a comparison takes tells nothing.
        let secret = secrets.iter().find(|secret| secret.mac == *mac)?;
        let has_expired = secret.expires_at.is_some_and(|end| end <= now);
        (!has_expired).then(|| secret.clone())
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
