//! DPoP proofs at this service's endpoints (RFC 9449 §5): which key a client may prove, the nonce, and that each proof counts
//! once. What a proof must be is in [`accord::dpop`].
//!
//! The order is: [`check`] after the client was authenticated and its calls were limited, [`BoundKey::spend`] after everything
//! else that may reject the call. A call that is limited or challenged can therefore be repeated with the same proof.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    dpop::{Expected, ProofError, ReplayCache, ReplayError, VerifiedProof, verify},
    error::v1::ErrorReason,
    log_limit::LogLimit,
    metrics::DPOP_PROOFS_REJECTED,
    store::audit::{Event, action},
    text::id::{ClientId, TenantId},
    verify::Confirmation,
};
use metrics::counter;

use super::{OAuth, note_rejected_client};
use crate::{
    error::{Error, Result},
    model::{
        client::Client,
        dpop_nonce::{self, NoncePolicy},
    },
};

/// What a client that is limited to keys must do.
const KNOWN_KEY: &str =
    "the client must send a proof, and jwk must be a key whose thumbprint is in the client's dpop_jkts";

/// What proofs are checked against.
#[derive(Debug, Default)]
pub struct Dpop {
    /// The proofs that were used, here and at the resources whose services ask for introspection. A proof names the URL that it
    /// is for, so that none is of use at both, and one memory serves both with one bound.
    used: ReplayCache,
    nonces: NoncePolicy,
}

impl Dpop {
    /// Creates the state of a process that has seen no proof.
    pub fn new(nonces: NoncePolicy) -> Self {
        counter!(DPOP_PROOFS_REJECTED, "rule" => "replay").increment(0);
        Self {
            used: ReplayCache::default(),
            nonces,
        }
    }

    /// Spends a proof. The owner is whose proofs are bounded together. Counts a rejection.
    ///
    /// # Errors
    /// [`ReplayError`]. The proof is then not remembered.
    pub fn spend(&self, owner: &str, proof: &VerifiedProof, now: UnixMillis) -> Result<(), ReplayError> {
        let spent = self.used.accept(owner, proof, now);
        spent.inspect_err(|error| {
            count(match error {
                ReplayError::Used => "replay",
                ReplayError::Full => "full",
            });
        })
    }

    /// Frees the memory of proofs that have ended.
    pub fn drop_ended(&self, now: UnixMillis) {
        self.used.drop_ended(now);
    }
}

/// A key that a client has proven to hold.
#[derive(Debug)]
pub struct BoundKey {
    proof: VerifiedProof,
    is_spent: bool,
}

impl BoundKey {
    /// Returns the thumbprint of the key (RFC 7638).
    pub fn jkt(&self) -> &str {
        &self.proof.jkt
    }

    /// Returns the claim of a token that is bound to the key (RFC 9449 §6.1).
    pub fn confirmation(&self) -> Confirmation {
        Confirmation::Jkt(self.proof.jkt.clone())
    }

    /// Spends the proof. Repeated calls have no effect.
    ///
    /// # Errors
    /// [`Error::InvalidDpopProof`] if the proof, or another one with its `jti`, was spent before (RFC 9449 §11.1);
    /// [`Error::TooManyProofs`].
    pub fn spend(&mut self, oauth: &OAuth, client_id: &ClientId) -> Result<()> {
        if self.is_spent {
            return Ok(());
        }
        let spent = oauth
            .dpop
            .spend(client_id.as_str(), &self.proof, oauth.store.now());
        spent.map_err(|error| {
            log_rejection(client_id, &error);
            match error {
                ReplayError::Used => Error::InvalidDpopProof(error.to_string()),
                ReplayError::Full => Error::TooManyProofs,
            }
        })?;
        self.is_spent = true;
        Ok(())
    }
}

/// Checks the proof of an authenticated client for a POST to one of these URLs. Returns `None` without a proof, if the client
/// needs none.
///
/// # Errors
/// [`Error::InvalidDpopProof`]; [`Error::UseDpopNonce`] for a proof that is right but for its nonce.
pub async fn check(
    oauth: &OAuth,
    client: &Client,
    tenant_id: &TenantId,
    proof: Option<&str>,
    urls: &[String],
) -> Result<Option<BoundKey>> {
    let Some(proof) = proof else {
        return require_known_key(client, tenant_id, None).map(|()| None);
    };
    let now = oauth.store.now();
    let expected = Expected {
        method: "POST",
        urls,
        access_token: None,
        now,
    };
    let proof = verify(proof, &expected).map_err(|error| {
        log_rejection(&client.client_id, &error);
        rejected(error)
    })?;
    require_known_key(client, tenant_id, Some(&proof.jkt))?;
    let is_valid = match &proof.nonce {
        // A nonce of another server, or an old one, is replaced even if none is required.
        Some(nonce) => dpop_nonce::is_valid(&*oauth.store.keyring.get().await?, nonce, now),
        None => oauth.dpop.nonces == NoncePolicy::Optional,
    };
    if !is_valid {
        count("nonce");
        return Err(Error::UseDpopNonce(nonce(oauth).await?));
    }
    Ok(Some(BoundKey {
        proof,
        is_spent: false,
    }))
}

/// Rejects a missing key, and one that the client is not limited to. Records it: the other credentials may be stolen, or the
/// client has changed its key without registering it.
///
/// # Errors
/// [`Error::InvalidDpopProof`].
pub fn require_known_key(client: &Client, tenant_id: &TenantId, jkt: Option<&str>) -> Result<()> {
    if client.may_use_dpop_key(jkt) {
        return Ok(());
    }
    let event = Event::new(action::DPOP_KEY_REFUSE)
        .tenant(tenant_id)
        .detail_if("jkt", jkt);
    note_rejected_client(&client.client_id, ErrorReason::InvalidDpopProof, event);
    count("key");
    log_rejection(&client.client_id, &KNOWN_KEY);
    Err(Error::InvalidDpopProof(KNOWN_KEY.to_owned()))
}

/// Returns the nonce for the next proof of a client whose proof was accepted, if nonces are required or it uses them. Without
/// it each renewal after ten minutes would begin with a challenge (RFC 9449 §8.2).
pub async fn next_nonce(oauth: &OAuth, key: &BoundKey) -> Result<Option<String>> {
    match (oauth.dpop.nonces, &key.proof.nonce) {
        (NoncePolicy::Optional, None) => Ok(None),
        _ => nonce(oauth).await.map(Some),
    }
}

async fn nonce(oauth: &OAuth) -> Result<String> {
    let keyring = oauth.store.keyring.get().await?;
    Ok(dpop_nonce::issue(&keyring, oauth.store.now())?)
}

/// Counts a rejected proof, and converts the error.
pub fn rejected(error: ProofError) -> Error {
    count(error.name());
    Error::InvalidDpopProof(error.to_string())
}

fn count(rule: &'static str) {
    counter!(DPOP_PROOFS_REJECTED, "rule" => rule).increment(1);
}

/// Logs a rejection, at most once a second for each client.
fn log_rejection(client_id: &ClientId, why: &dyn std::fmt::Display) {
    static LIMIT: LogLimit = LogLimit::new(Duration::from_secs(1));
    if let Some(unlogged) = LIMIT.check(client_id.as_str()) {
        tracing::warn!(%client_id, %why, unlogged, "a DPoP proof was rejected");
    }
}
