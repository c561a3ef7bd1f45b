//! The revocations that `ListRevocations` returns, and the lease during which they count as complete. No I/O. Time is
//! [`tokio::time::Instant`], which tests can pause.

use std::{collections::HashMap, fmt, time::Duration};

use tokio::time::Instant;

use super::{AccessTokenClaims, VerifyError};
use crate::token::v1::{self as pb, RevocationKind};

/// How long tokens can be accepted after the time up to which all revocations are known.
pub const LEASE: Duration = Duration::from_secs(2);

/// How long a revocation is stored: the longest life of an access token is 15 minutes, and clocks may differ by one.
const RETENTION: Duration = Duration::from_secs(16 * 60);

/// How often old revocations are removed.
const REMOVAL_PERIOD: Duration = Duration::from_secs(60);

/// The revocations that a reader of the feed knows.
///
/// Within an epoch a revocation is never undone, so responses may arrive in any order. Revocations that a new snapshot
/// leaves out concern only expired tokens; they are removed when they are old enough.
#[derive(Default)]
pub struct Revocations {
    epoch: String,
    /// When this epoch replaced another one; `None` for the first.
    epoch_since: Option<Instant>,
    cursor: String,
    /// Whether a snapshot of this epoch has started, so that no revocation before `cursor` is missing.
    has_snapshot: bool,
    /// When the request of the latest applied response was sent.
    sent_at: Option<Instant>,
    /// The time up to which all revocations are known.
    complete_at: Option<Instant>,
    swept_at: Option<Instant>,
    revocations: HashMap<RevocationKind, HashMap<String, Revocation>>,
    /// The highest position of the revocations of an unknown kind, and when the latest of them was received.
    unknown: Option<Revocation>,
}

#[derive(Clone, Copy)]
struct Revocation {
    seq: i64,
    received_at: Instant,
}

impl Revocation {
    fn is_recent(&self) -> bool {
        self.received_at.elapsed() < RETENTION
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("epoch", &self.epoch)
            .field("complete_at", &self.complete_at)
            .field("len", &self.revocations.values().map(HashMap::len).sum::<usize>())
            .finish_non_exhaustive()
    }
}

/// The effects of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// More revocations follow. Set only if the response moved the cursor.
    pub more: bool,
    /// A key is newly revoked: the key set should be read again.
    pub key_revoked: bool,
    /// A new epoch replaced a known one: the keys may have changed too.
    pub new_epoch: bool,
}

impl Revocations {
    /// Returns the cursor for the next request; an empty one requests a snapshot.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Returns when this epoch replaced another one; `None` for the first.
    pub(super) fn epoch_since(&self) -> Option<Instant> {
        self.epoch_since
    }

    /// Clears the cursor after the server has rejected it, so that the next request is for a snapshot. Keeps all
    /// revocations.
    pub fn forget_cursor(&mut self) {
        self.cursor.clear();
        self.has_snapshot = false;
    }

    /// Applies the response to a request that was *sent* at `sent_at` with [`Revocations::cursor`].
    ///
    /// After a response without `more`, all revocations up to `sent_at` minus its age are known, and the lease starts
    /// there. A response that arrives after the response to a later request only adds its revocations.
    pub fn apply(&mut self, response: pb::ListRevocationsResponse, sent_at: Instant) -> Applied {
        let late = self.sent_at.is_some_and(|last| sent_at < last);
        let same_epoch = response.epoch == self.epoch;
        if response.epoch.is_empty() || (late && !same_epoch) {
            return Applied::default();
        }
        let now = Instant::now();
        let mut applied = Applied::default();
        if !same_epoch {
            // Positions of different epochs can't be compared. No token is valid until this epoch is complete.
            applied.new_epoch = !self.epoch.is_empty();
            *self = Self {
                epoch: response.epoch,
                epoch_since: applied.new_epoch.then_some(now),
                ..Self::default()
            };
        }
        for revocation in response.revocations {
            applied.key_revoked |= self.insert(revocation, now);
        }
        self.remove_expired(now);
        if late {
            return applied;
        }
        self.sent_at = Some(sent_at);
        self.has_snapshot |= response.snapshot;
        if !self.has_snapshot {
            return applied;
        }
        applied.more = response.more && self.cursor != response.next_cursor;
        self.cursor = response.next_cursor;
        if !response.more {
            let age = response.age.and_then(|age| Duration::try_from(age).ok());
            let complete_at = age.and_then(|age| sent_at.checked_sub(age));
            self.complete_at = self.complete_at.max(complete_at);
        }
        applied
    }

    /// Adds a revocation. Returns whether it revokes a key that was not revoked before.
    fn insert(&mut self, revocation: pb::Revocation, now: Instant) -> bool {
        let new = Revocation {
            seq: revocation.seq,
            received_at: now,
        };
        let kind = match RevocationKind::try_from(revocation.kind) {
            Ok(RevocationKind::Unspecified) | Err(_) => {
                let seq = self.unknown.map_or(new.seq, |old| old.seq.max(new.seq));
                self.unknown = Some(Revocation { seq, ..new });
                return false;
            }
            Ok(kind) => kind,
        };
        let of_kind = self.revocations.entry(kind).or_default();
        let is_new = !of_kind.contains_key(&revocation.id);
        let known = of_kind.entry(revocation.id).or_insert(new);
        if known.seq < new.seq {
            *known = new;
        }
        is_new && kind == RevocationKind::Kid
    }

    /// Removes revocations that concern only expired tokens. Keeps those of keys: a stolen key can sign tokens of any
    /// time and position, and there are few keys.
    fn remove_expired(&mut self, now: Instant) {
        let last = *self.swept_at.get_or_insert(now);
        if now.saturating_duration_since(last) < REMOVAL_PERIOD {
            return;
        }
        self.swept_at = Some(now);
        for (kind, of_kind) in &mut self.revocations {
            if *kind != RevocationKind::Kid {
                of_kind.retain(|_, revocation| revocation.is_recent());
            }
        }
    }

    /// Returns whether all revocations up to [`LEASE`] ago are known.
    pub fn is_fresh(&self) -> bool {
        self.complete_at.is_some_and(|at| at.elapsed() <= LEASE)
    }

    /// Checks a genuine token that the key `kid` signed.
    ///
    /// # Errors
    /// [`VerifyError::Stale`] without a lease, [`VerifyError::Revoked`].
    pub fn check(&self, claims: &AccessTokenClaims, kid: &str) -> Result<(), VerifyError> {
        // Checked first: without a lease, a token of another epoch may be valid.
        if !self.is_fresh() {
            return Err(VerifyError::Stale);
        }
        if self.is_revoked(claims, kid) {
            return Err(VerifyError::Revoked);
        }
        Ok(())
    }

    /// Returns whether a genuine token that the key `kid` signed is revoked, as far as known.
    ///
    /// The positions of its `rev` claim decide, not clocks: that of the registry for client, tenant and user, that of
    /// token-service for `jti`, family and grant. A revoked key ends all tokens that it signed, whatever their
    /// position: it may be stolen. A revocation of an unknown kind, while it is recent, ends every token with a lower
    /// position in either feed: clients recover from a wrong rejection by a renewal, but nothing undoes a wrong
    /// acceptance. A token without a readable `rev`, or of another epoch, is revoked.
    pub fn is_revoked(&self, claims: &AccessTokenClaims, kid: &str) -> bool {
        let Some((_, registry, token)) = parse_rev(&claims.rev).filter(|rev| rev.0 == self.epoch) else {
            return true;
        };
        let revoked_after = |position: i64, kind, id: &str| {
            let revocation = self.revocations.get(&kind).and_then(|of_kind| of_kind.get(id));
            revocation.is_some_and(|revocation| revocation.seq > position)
        };
        let family_id = claims.family_id.as_deref();
        let unknown = self.unknown.filter(Revocation::is_recent);

        revoked_after(registry, RevocationKind::Client, &claims.client_id)
            || revoked_after(registry, RevocationKind::Tenant, &claims.tenant_id)
            || revoked_after(registry, RevocationKind::User, &claims.sub)
            || revoked_after(token, RevocationKind::Jti, &claims.jti)
            || revoked_after(token, RevocationKind::Grant, &claims.grant_id)
            || family_id.is_some_and(|id| revoked_after(token, RevocationKind::Family, id))
            || revoked_after(i64::MIN, RevocationKind::Kid, kid)
            || unknown.is_some_and(|revocation| revocation.seq > registry.min(token))
    }
}

/// Parses a `rev` claim, `<epoch>.<registry seq>.<token seq>`.
fn parse_rev(claim: &str) -> Option<(&str, i64, i64)> {
    let parts: Vec<_> = claim.split('.').collect();
    match parts[..] {
        [epoch, registry, token] if !epoch.is_empty() => {
            Some((epoch, registry.parse().ok()?, token.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "tests/revocations.rs"]
mod tests;
