//! What ended before its time, as `ListRevocations` told it, and how long that may be relied on. No I/O:
//! answers come in, judgements go out. Time is [`tokio::time::Instant`], which tests can pause.

use std::{collections::HashMap, fmt, time::Duration};

use tokio::time::Instant;

use super::{AccessTokenClaims, VerifyError};
use crate::token::v1::{self as pb, RevocationKind};

/// How long after a moment for which everything was known tokens are still judged.
pub const LEASE: Duration = Duration::from_secs(2);

/// How long a revocation is kept after it was learnt: no access token lives longer than 15 minutes, and a
/// minute is for clocks.
const KEPT: Duration = Duration::from_secs(16 * 60);

/// How often what need not be kept any longer is looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(60);

/// What ended: the state of one follower of the revocation feed.
///
/// It only ever grows, within an epoch: what ended does not come back, so nothing that was told before
/// becomes wrong, whichever order answers come in. What a new snapshot leaves out has ended by itself, and
/// is dropped in its time.
#[derive(Default)]
pub struct Revocations {
    epoch: String,
    /// When this epoch took over from another one.
    epoch_since: Option<Instant>,
    cursor: String,
    /// A snapshot of this epoch was begun: what `cursor` stands for is told completely.
    begun: bool,
    asked_at: Option<Instant>,
    complete_at: Option<Instant>,
    swept_at: Option<Instant>,
    ended: HashMap<RevocationKind, HashMap<String, Ended>>,
    /// The highest position of a revocation whose kind this program does not know.
    unknown: Option<Ended>,
}

#[derive(Clone, Copy)]
struct Ended {
    seq: i64,
    learnt_at: Instant,
}

impl Ended {
    fn counts_at(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.learnt_at) < KEPT
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("epoch", &self.epoch)
            .field("complete_at", &self.complete_at)
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

/// What an answer brought, besides what ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// More waits: ask again at once. Only said when the answer led further.
    pub more: bool,
    /// A key was revoked that was not known to be: the key set should be read again.
    pub key_revoked: bool,
    /// Another epoch took over from one that was known before: so may have other keys.
    pub new_epoch: bool,
}

impl Revocations {
    /// The cursor to ask with; empty asks for a snapshot.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// When this epoch took over from another one; `None` for the first.
    pub(super) fn epoch_since(&self) -> Option<Instant> {
        self.epoch_since
    }

    /// Asks for a snapshot next, since the server does not know the cursor. What is known stays known.
    pub fn forget_cursor(&mut self) {
        self.cursor.clear();
        self.begun = false;
    }

    /// Takes an answer to the question that was *sent* at `asked_at` with [`Revocations::cursor`].
    ///
    /// Without `more` it holds all that had been revoked by `asked_at` less its age, and renews the lease
    /// from there. An answer that comes after that to a later question adds what it tells, and moves
    /// nothing else.
    pub fn apply(&mut self, answer: pb::ListRevocationsResponse, asked_at: Instant) -> Applied {
        let late = self.asked_at.is_some_and(|last| asked_at < last);
        let same_epoch = answer.epoch == self.epoch;
        if answer.epoch.is_empty() || (late && !same_epoch) {
            return Applied::default();
        }
        let now = Instant::now();
        let mut applied = Applied::default();
        if !same_epoch {
            // Numbers of different epochs can't be compared. Nothing counts until this one is complete.
            applied.new_epoch = !self.epoch.is_empty();
            *self = Self {
                epoch: answer.epoch,
                epoch_since: applied.new_epoch.then_some(now),
                ..Self::default()
            };
        }
        for revocation in answer.revocations {
            applied.key_revoked |= self.learn(revocation, now);
        }
        self.sweep(now);
        if late {
            return applied;
        }
        self.asked_at = Some(asked_at);
        self.begun |= answer.snapshot;
        if !self.begun {
            // The rest of something whose beginning nobody told.
            return applied;
        }
        applied.more = answer.more && self.cursor != answer.next_cursor;
        self.cursor = answer.next_cursor;
        if !answer.more {
            let age = answer.age.and_then(|age| Duration::try_from(age).ok());
            let complete_at = age.and_then(|age| asked_at.checked_sub(age));
            self.complete_at = self.complete_at.max(complete_at);
        }
        applied
    }

    /// Takes one revocation; whether it is a key's that was not known.
    fn learn(&mut self, revocation: pb::Revocation, now: Instant) -> bool {
        let new = Ended {
            seq: revocation.seq,
            learnt_at: now,
        };
        match RevocationKind::try_from(revocation.kind) {
            Ok(RevocationKind::Unspecified) | Err(_) => {
                let seq = self.unknown.map_or(new.seq, |old| old.seq.max(new.seq));
                self.unknown = Some(Ended { seq, ..new });
                false
            }
            Ok(kind) => {
                let of_kind = self.ended.entry(kind).or_default();
                let first = !of_kind.contains_key(&revocation.id);
                let known = of_kind.entry(revocation.id).or_insert(new);
                if known.seq < new.seq {
                    *known = new;
                }
                first && kind == RevocationKind::Kid
            }
        }
    }

    /// Drops what can end no token any more. Keys stay: whoever stole one can make tokens of any time and
    /// position, and there are few.
    fn sweep(&mut self, now: Instant) {
        let last = *self.swept_at.get_or_insert(now);
        if now.saturating_duration_since(last) < SWEPT_EVERY {
            return;
        }
        self.swept_at = Some(now);
        for (kind, of_kind) in &mut self.ended {
            if *kind != RevocationKind::Kid {
                of_kind.retain(|_, ended| ended.counts_at(now));
            }
        }
    }

    /// Whether what is known is complete up to [`LEASE`] ago.
    pub fn is_fresh(&self) -> bool {
        let age = self
            .complete_at
            .map(|at| Instant::now().saturating_duration_since(at));
        age.is_some_and(|age| age <= LEASE)
    }

    /// Judges a genuine token that the key `kid` signed.
    ///
    /// # Errors
    /// [`VerifyError::Stale`] when the lease has passed, [`VerifyError::Revoked`].
    pub fn judge(&self, claims: &AccessTokenClaims, kid: &str) -> Result<(), VerifyError> {
        // First, for a token of an epoch that is not known here yet may be as good as any.
        if !self.is_fresh() {
            return Err(VerifyError::Stale);
        }
        if self.is_revoked(claims, kid) {
            return Err(VerifyError::Revoked);
        }
        Ok(())
    }

    /// Whether a genuine token that the key `kid` signed has ended before its time, as far as was told.
    ///
    /// The positions of its `rev` claim decide, whatever the clocks say: the registry's for client, tenant
    /// and user, token-service's for `jti`, family and grant. A revoked key ends all that it signed,
    /// whatever position it states: it may be in other hands. A revocation of a kind that this program does
    /// not know ends every token with a lower position in either feed, for as long as it is kept: refusing
    /// too much passes when clients renew their tokens, accepting too much can't be made good. A token
    /// without a readable `rev`, or of another epoch, has ended.
    pub fn is_revoked(&self, claims: &AccessTokenClaims, kid: &str) -> bool {
        let Some(rev) = Rev::parse(&claims.rev).filter(|rev| rev.epoch == self.epoch) else {
            return true;
        };
        let after = |position: i64, kind, id: &str| {
            let ended = self.ended.get(&kind).and_then(|of_kind| of_kind.get(id));
            ended.is_some_and(|ended| ended.seq > position)
        };
        let in_registry = |kind, id: &str| after(rev.registry_seq, kind, id);
        let in_tokens = |kind, id: &str| after(rev.token_seq, kind, id);
        let unknown = self.unknown.filter(|ended| ended.counts_at(Instant::now()));

        in_registry(RevocationKind::Client, &claims.client_id)
            || in_registry(RevocationKind::Tenant, &claims.tenant_id)
            || in_registry(RevocationKind::User, &claims.sub)
            || in_tokens(RevocationKind::Jti, &claims.jti)
            || in_tokens(RevocationKind::Grant, &claims.grant_id)
            || claims
                .family_id
                .as_deref()
                .is_some_and(|id| in_tokens(RevocationKind::Family, id))
            || after(i64::MIN, RevocationKind::Kid, kid)
            || unknown.is_some_and(|ended| ended.seq > rev.registry_seq.min(rev.token_seq))
    }

    /// How many revocations are kept.
    pub fn kept(&self) -> usize {
        self.ended.values().map(HashMap::len).sum()
    }
}

/// A `rev` claim: `<epoch>.<registry seq>.<token seq>`.
struct Rev<'a> {
    epoch: &'a str,
    registry_seq: i64,
    token_seq: i64,
}

impl<'a> Rev<'a> {
    fn parse(claim: &'a str) -> Option<Self> {
        let mut parts = claim.split('.');
        let (epoch, registry, token) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || epoch.is_empty() {
            return None;
        }
        Some(Self {
            epoch,
            registry_seq: registry.parse().ok()?,
            token_seq: token.parse().ok()?,
        })
    }
}

#[cfg(test)]
#[path = "tests/revocations.rs"]
mod tests;
