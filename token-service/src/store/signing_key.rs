//! Signing keys in the database. A data key seals the private half, with the key's id as context.
//!
//! A partial unique index allows one key NEXT and one ACTIVE, whatever replicas do at the same time.

use accord::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{
        Creation, StoreError, Transaction,
        audit::{self, Actor, ActorKind, Event, Origin},
        change::{self, Change},
        idempotency::Outcome,
    },
    text::page::{Page, PageRequest},
};
use sea_orm::{
    ActiveValue::Set, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*, sea_query::ExprTrait,
};
use zeroize::Zeroizing;

use super::{
    Store, change_kind,
    entity::signing_key::{ActiveModel, Column, Entity, Model},
    revocation::{self, Revocation},
};
use crate::{
    error::{Error, Result},
    model::{
        purpose,
        revocation::RevocationKind,
        signing_key::{ALGORITHM, SigningKey, State, generate},
    },
};

const CORRUPT: StoreError = StoreError::Corrupt("signing_keys");
/// How often a promotion retries when the next key is revoked meanwhile.
const ATTEMPTS: usize = 3;

impl Store {
    /// Creates an active key and a next one where they are missing.
    pub async fn ensure_signing_keys(&self) -> Result<()> {
        for state in [State::Active, State::Next] {
            if in_state(self.db.read(), state).await?.is_some() {
                continue;
            }
            let tx = self.db.write().await?;
            match self.insert_key(&tx, state).await {
                Ok(kid) => {
                    let event = Event::new("signing_key.create")
                        .subject(&kid)
                        .detail("state", state.as_ref());
                    self.audit(&tx, &system(), event).await?;
                    change::publish(&tx, &[changed(&kid)], self.now()).await?;
                    tx.commit().await?;
                }
                // Another replica was first.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the id of the key that signs now.
    ///
    /// # Errors
    /// [`Error::Signing`] if there is none.
    pub async fn active_signing_key(&self) -> Result<String> {
        let row = in_state(self.db.read(), State::Active).await?;
        row.map(|row| row.kid).ok_or(Error::Signing)
    }

    /// Unseals a key's private half, PKCS#8.
    ///
    /// # Errors
    /// [`Error::Signing`] for an unknown key; [`Error::Key`] if it can't be unsealed.
    pub async fn unseal_signing_key(&self, kid: &str) -> Result<Zeroizing<Vec<u8>>> {
        let row = Entity::find_by_id(kid).one(self.db.read()).await?;
        let row = row.ok_or(Error::Signing)?;
        let key = self.keyring.require(purpose::SIGNING_KEY, row.key_version)?;
        Ok(key.open(kid.as_bytes(), &row.sealed)?)
    }

    /// Reads every key that is not revoked, newest first.
    pub async fn live_signing_keys(&self) -> Result<Vec<SigningKey>> {
        let rows = live()
            .order_by_desc(Column::CreatedAt)
            .all(self.db.read())
            .await?;
        rows.into_iter().map(signing_key).collect()
    }

    /// Lists keys, newest first.
    pub async fn list_signing_keys(
        &self,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<SigningKey>> {
        let after = page.after().and_then(|after| after.split_once(' '));
        let rows = Entity::find()
            .apply_if(state, |query, state| {
                query.filter(Column::State.eq(state.as_ref()))
            })
            .apply_if(after, |query, (created_at, kid)| {
                let created_at: i64 = created_at.parse().unwrap_or_default();
                let is_later = Column::CreatedAt.eq(created_at).and(Column::Kid.lt(kid));
                query.filter(Column::CreatedAt.lt(created_at).or(is_later))
            })
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .limit(page.fetch())
            .all(self.db.read())
            .await?;
        let keys = rows.into_iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(keys, |key| format!("{} {}", key.created_at.as_millis(), key.kid)))
    }

    /// Retires the active key, makes the next one active, and creates a new next one.
    ///
    /// Unless `force` is set, the next key must have been published long enough: a verifier that keeps an older copy of the
    /// JWKS would reject good tokens.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::KeyNotYetPublished`].
    pub async fn rotate_signing_key(&self, creation: &Creation, force: bool) -> Result<SigningKey> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, .. } => return find(&tx, &resource_id).await,
            Outcome::New(reservation) => reservation,
        };
        let now = self.now();
        let active = in_state(&tx, State::Active).await?.ok_or(Error::Signing)?;
        if step(&tx, &active.kid, State::Active, State::Retired, now).await? == 0 {
            // Another rotation committed in between. This one would rotate a key that it has not read.
            return Err(StoreError::Busy.into());
        }
        let promoted = self.promote_next(&tx, now, force).await?;
        reservation.complete(&tx, &promoted).await?;
        let event = Event::new("signing_key.rotate")
            .subject(&promoted)
            .detail("retired", active.kid.as_str())
            .detail("force", force.to_string());
        self.audit(&tx, &creation.origin, event).await?;
        change::publish(&tx, &[changed(&active.kid), changed(&promoted)], now).await?;
        let key = find(&tx, &promoted).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Revokes a key. If it was active, the next one becomes active; if it was next, a new one takes its place.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_signing_key(&self, origin: &Origin, kid: &str, reason: &str) -> Result<SigningKey> {
        let tx = self.db.write().await?;
        let now = self.now();
        let row = Entity::find_by_id(kid).lock_exclusive().one(&tx).await?;
        let key = signing_key(row.ok_or(Error::NotFound("signing_key"))?)?;
        if key.state == State::Revoked {
            return Ok(key);
        }
        if step(&tx, kid, key.state, State::Revoked, now).await? == 0 {
            return Err(StoreError::Busy.into());
        }
        match key.state {
            // Nothing waits for verifiers: they must not accept the revoked key any longer.
            State::Active => drop(self.promote_next(&tx, now, true).await?),
            State::Next => drop(self.insert_key(&tx, State::Next).await?),
            State::Retired | State::Revoked => {}
        }
        let event = Event::new("signing_key.revoke")
            .subject(kid)
            .detail("reason", reason);
        self.audit(&tx, origin, event).await?;
        let revocation = Revocation::new(RevocationKind::Kid, kid, None, now);
        revocation::publish(&tx, vec![changed(kid)], vec![revocation], now).await?;
        let key = find(&tx, kid).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Makes the next key active and creates a new next one. Returns the id of the active key.
    async fn promote_next(&self, tx: &Transaction, now: UnixMillis, force: bool) -> Result<String> {
        for _ in 0..ATTEMPTS {
            let next = in_state(tx, State::Next).await?.ok_or(Error::Signing)?;
            let next = signing_key(next)?;
            if let Some(wait) = next.wait_before_use(now).filter(|_| !force) {
                return Err(Error::KeyNotYetPublished(wait));
            }
            if step(tx, &next.kid, State::Next, State::Active, now).await? == 1 {
                self.insert_key(tx, State::Next).await?;
                return Ok(next.kid);
            }
            // It was revoked since it was read, and another one is next.
        }
        Err(StoreError::Busy.into())
    }

    async fn insert_key(&self, tx: &Transaction, state: State) -> Result<String> {
        let new = generate()?;
        let key = self.keyring.current(purpose::SIGNING_KEY)?;
        let now = self.now().as_millis();
        let row = ActiveModel {
            kid: Set(new.kid.clone()),
            algorithm: Set(ALGORITHM.to_owned()),
            sealed: Set(key.seal(&*self.random, new.kid.as_bytes(), &new.pkcs8)?),
            key_version: Set(key.version()),
            public_key: Set(new.public_key),
            state: Set(state.as_ref().to_owned()),
            created_at: Set(now),
            activated_at: Set((state == State::Active).then_some(now)),
            ..Default::default()
        };
        row.insert(tx).await?;
        Ok(new.kid)
    }
}

/// Returns the service itself as the origin of an event.
fn system() -> Origin {
    Origin {
        actor: Actor {
            kind: ActorKind::System,
            id: "token-service".to_owned(),
        },
        request_id: String::new(),
    }
}

/// Revokes every key, for a database that was restored from a backup. Others may know the private half of a key that
/// was revoked after the backup.
pub(super) async fn revoke_all(
    tx: &Transaction,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let now = clock.now();
    let live = live().order_by_asc(Column::Kid).all(tx).await?;
    for key in &live {
        let from = key.state.parse().map_err(|_| CORRUPT)?;
        step(tx, &key.kid, from, State::Revoked, now).await?;
        let event = Event::new("signing_key.revoke")
            .subject(&key.kid)
            .detail("reason", "restored");
        audit::record(tx, clock, random, &system(), event).await?;
    }
    let changes = live.iter().map(|key| changed(&key.kid)).collect();
    let revocation = |key| Revocation::new(RevocationKind::Kid, key, None, now);
    let revocations = live.iter().map(|key| revocation(&key.kid)).collect();
    revocation::publish(tx, changes, revocations, now).await
}

/// Moves a key from one state to another. Returns how many keys moved.
async fn step(
    tx: &Transaction,
    kid: &str,
    from: State,
    to: State,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let when = match to {
        State::Next => Column::CreatedAt,
        State::Active => Column::ActivatedAt,
        State::Retired => Column::RetiredAt,
        State::Revoked => Column::RevokedAt,
    };
    let moved = Entity::update_many()
        .filter(Column::Kid.eq(kid))
        .filter(Column::State.eq(from.as_ref()))
        .col_expr(Column::State, to.as_ref().into())
        .col_expr(when, now.as_millis().into())
        .exec(tx)
        .await?;
    Ok(moved.rows_affected)
}

fn live() -> Select<Entity> {
    Entity::find().filter(Column::State.ne(State::Revoked.as_ref()))
}

async fn in_state(conn: &impl ConnectionTrait, state: State) -> Result<Option<Model>, StoreError> {
    let is_in_state = Column::State.eq(state.as_ref());
    Ok(Entity::find().filter(is_in_state).one(conn).await?)
}

/// Reads a key that must exist.
async fn find(conn: &impl ConnectionTrait, kid: &str) -> Result<SigningKey> {
    let row = Entity::find_by_id(kid).one(conn).await?;
    signing_key(row.ok_or(CORRUPT)?)
}

fn changed(kid: &str) -> Change {
    Change {
        kind: change_kind::SIGNING_KEY,
        id: kid.to_owned(),
        tenant_id: None,
    }
}

fn signing_key(row: Model) -> Result<SigningKey> {
    Ok(SigningKey {
        state: row.state.parse().map_err(|_| CORRUPT)?,
        kid: row.kid,
        public_key: row.public_key,
        created_at: UnixMillis::from_millis(row.created_at),
        activated_at: row.activated_at.map(UnixMillis::from_millis),
        retired_at: row.retired_at.map(UnixMillis::from_millis),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "tests/signing_key.rs"]
mod tests;
