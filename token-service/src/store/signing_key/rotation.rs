//! How keys follow each other: by an operator's call, by the schedule, after a revocation.
//!
//! Each change locks the key that it read and moves it to another state. If another replica moved it first, nothing
//! changes.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    store::{
        Creation, StoreError, Transaction,
        audit::{Event, Origin, action},
        change,
        idempotency::CreationOutcome,
        rows::ProtectedRows,
    },
};

use super::{changed, find, in_state, new_key, only, signing_key, step};
use crate::{
    error::{Error, Result},
    model::{
        revocation::RevocationKind,
        signing_key::{Algorithm, NewKey, SigningKey, State},
    },
    store::{
        Store,
        entity::signing_key::Entity,
        revocation::{self, Revocation},
    },
};

/// How often a promotion retries when the next key is revoked meanwhile.
const ATTEMPTS: usize = 3;

impl Store {
    /// Retires the active key, makes the next one active, and creates a new next one. If the next one has another
    /// algorithm than the requested one, replaces the next one and leaves the active one, so that a key is published
    /// before its first use. Returns the key that is active now, or the new next one.
    ///
    /// Unless `force` is set, the next key must have been published long enough: a verifier that keeps an older copy of the
    /// JWKS would reject good tokens. With `force` a next key of another algorithm is replaced and its successor is
    /// active at once.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::KeyNotYetPublished`].
    pub async fn rotate_signing_key(
        &self,
        creation: &Creation,
        algorithm: Option<Algorithm>,
        force: bool,
    ) -> Result<SigningKey> {
        let next = only(self.db.read(), State::Next).await?;
        let algorithm = algorithm.unwrap_or(next.algorithm);
        let replacement = match next.algorithm == algorithm {
            true => None,
            false => Some(new_key(algorithm).await?),
        };
        let successor = match replacement.is_none() || force {
            true => Some(new_key(algorithm).await?),
            false => None,
        };

        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            CreationOutcome::Repeated { resource_id, .. } => return find(&tx, &resource_id).await,
            CreationOutcome::New(reservation) => reservation,
        };
        let now = self.now();
        let mut changes = Vec::new();
        if let Some(replacement) = &replacement {
            move_on(&tx, &next, State::Retired, now).await?;
            self.insert_key(&tx, State::Next, replacement).await?;
            let event = Event::new(action::SIGNING_KEY_REPLACE_NEXT)
                .subject(&replacement.kid)
                .detail("retired", next.kid.as_str())
                .detail("algorithm", algorithm.as_ref());
            self.audit(&tx, &creation.origin, event).await;
            changes.extend([changed(&next.kid), changed(&replacement.kid)]);
        }
        let kid = match (&successor, &replacement) {
            (Some(successor), _) => {
                let active = only(&tx, State::Active).await?;
                let kid = self.succeed(&tx, &active, successor, force).await?;
                let event = rotated(&kid, &active).detail("force", force.to_string());
                self.audit(&tx, &creation.origin, event).await;
                changes.extend([changed(&active.kid), changed(&kid)]);
                kid
            }
            (None, Some(replacement)) => replacement.kid.clone(),
            (None, None) => return Err(Error::Signing),
        };
        reservation.complete(&tx, &kid).await?;
        change::publish(&tx, &changes, now).await?;
        let key = find(&tx, &kid).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Rotates as the schedule demands: once the active key has signed for `period`, and the next one was published long
    /// enough. If several replicas try at once, one of them does it. Returns the id of the key that is active then, if this
    /// call made it so.
    pub async fn rotate_signing_key_when_due(&self, period: Duration) -> Result<Option<String>> {
        let active = only(self.db.read(), State::Active).await?;
        let next = only(self.db.read(), State::Next).await?;
        let now = self.now();
        if !active.has_signed_for(period, now) || next.wait_before_use(now).is_some() {
            return Ok(None);
        }
        let successor = new_key(next.algorithm).await?;
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let kid = match self.succeed(&tx, &active, &successor, false).await {
            Ok(kid) => kid,
            // Somebody else was first, or replaced the next key.
            Err(Error::Unavailable | Error::KeyNotYetPublished(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let event = rotated(&kid, &active).detail("reason", "schedule");
        self.audit(&tx, &Origin::system("token-service"), event).await;
        change::publish(&tx, &[changed(&active.kid), changed(&kid)], now).await?;
        tx.commit().await?;
        Ok(Some(kid))
    }

    /// Revokes a key. If it was active, the next one becomes active; if it was next, a new one takes its place.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`StoreError::Altered`], after the revocation was recorded and published.
    pub async fn revoke_signing_key(&self, origin: &Origin, kid: &str, reason: &str) -> Result<SigningKey> {
        let state = match Entity::look_up_by_id(kid).read_one(self.db.read()).await {
            Err(error @ StoreError::Altered(table)) => {
                self.revoke_altered(origin, kid, reason, table).await?;
                return Err(error.into());
            }
            row => signing_key(&row?.ok_or(Error::NotFound("signing_key"))?)?.state,
        };
        let successor = match state {
            State::Active | State::Next => {
                Some(new_key(only(self.db.read(), State::Next).await?.algorithm).await?)
            }
            State::Retired | State::Revoked => None,
        };
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let now = self.now();
        let row = Entity::look_up_by_id(kid).lock_one(&tx).await?;
        let row = row.ok_or(Error::NotFound("signing_key"))?;
        let key = signing_key(&row)?;
        let revocation = || Revocation::new(RevocationKind::Kid, kid, None, now);
        if key.state == State::Revoked {
            // Somebody may have put back the row from before for a moment, in which memory has read it.
            revocation::publish(&tx, vec![changed(kid)], vec![revocation()], now).await?;
            tx.commit().await?;
            return Ok(key);
        }
        let revoked = signing_key(&step(&tx, row, State::Revoked, now).await?)?;
        match (key.state, &successor) {
            // Nothing waits for verifiers: they must not accept the revoked key any longer.
            (State::Active, Some(successor)) => drop(self.promote_next(&tx, successor, true).await?),
            (State::Next, Some(successor)) => self.insert_key(&tx, State::Next, successor).await?,
            (State::Retired | State::Revoked, _) => {}
            // Keys never return to these states.
            (State::Active | State::Next, None) => return Err(Error::Signing),
        }
        let event = Event::new(action::SIGNING_KEY_REVOKE)
            .subject(kid)
            .detail("reason", reason);
        self.audit(&tx, origin, event).await;
        revocation::publish(&tx, vec![changed(kid)], vec![revocation()], now).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    /// Records and publishes the revocation of a key whose row was altered, so that nobody goes on with what memory holds. The
    /// row stays, and every read rejects it.
    async fn revoke_altered(
        &self,
        origin: &Origin,
        kid: &str,
        reason: &str,
        table: &'static str,
    ) -> Result<()> {
        let tx = self.db.write().await?;
        let event = Event::new(action::SIGNING_KEY_REVOKE)
            .subject(kid)
            .detail("reason", reason)
            .altered(table);
        self.audit(&tx, origin, event).await;
        let now = self.now();
        let revocation = Revocation::new(RevocationKind::Kid, kid, None, now);
        revocation::publish(&tx, vec![changed(kid)], vec![revocation], now).await?;
        Ok(tx.commit().await?)
    }

    /// Retires the active key, makes the next one active, and inserts `successor` as the next one. Returns the id of the
    /// active key.
    async fn succeed(
        &self,
        tx: &Transaction,
        active: &SigningKey,
        successor: &NewKey,
        force: bool,
    ) -> Result<String> {
        // Fails if another rotation committed in between: this one would rotate a key that it has not read.
        move_on(tx, active, State::Retired, self.now()).await?;
        self.promote_next(tx, successor, force).await
    }

    /// Makes the next key active and inserts `successor` as the next one. Returns the id of the active key.
    async fn promote_next(&self, tx: &Transaction, successor: &NewKey, force: bool) -> Result<String> {
        let now = self.now();
        for _ in 0..ATTEMPTS {
            let Some(row) = in_state(State::Next).lock_one(tx).await? else {
                // It was revoked while this transaction waited for it, and another one is next.
                continue;
            };
            let next = signing_key(&row)?;
            if next.algorithm != successor.algorithm {
                // Somebody has just replaced it.
                return Err(StoreError::Busy.into());
            }
            if let Some(wait) = next.wait_before_use(now).filter(|_| !force) {
                return Err(Error::KeyNotYetPublished(wait));
            }
            step(tx, row, State::Active, now).await?;
            self.insert_key(tx, State::Next, successor).await?;
            return Ok(next.kid);
        }
        Err(StoreError::Busy.into())
    }
}

/// Moves a key from the state in which it was read.
///
/// # Errors
/// [`Error::Unavailable`] if it is no longer in that state.
async fn move_on(tx: &Transaction, key: &SigningKey, to: State, now: UnixMillis) -> Result<()> {
    let row = Entity::look_up_by_id(&key.kid).lock_one(tx).await?;
    let row = row.filter(|row| row.state == key.state.as_ref());
    step(tx, row.ok_or(StoreError::Busy)?, to, now).await?;
    Ok(())
}

fn rotated(kid: &str, retired: &SigningKey) -> Event {
    Event::new(action::SIGNING_KEY_ROTATE)
        .subject(kid)
        .detail("retired", retired.kid.as_str())
}
