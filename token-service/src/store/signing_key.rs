//! Signing keys in the database: the private half sealed by a data key, with the key's id as context.
//!
//! A partial unique index allows one key NEXT and one ACTIVE, whatever replicas do at the same time.

use accord::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{
        Creation, StoreError,
        audit::{self, Actor, ActorKind, Event, Origin},
        change::Change,
        idempotency::Outcome,
    },
    text::page::{Page, PageRequest},
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction,
    EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use zeroize::Zeroizing;

use super::{
    Store, change_kind, corrupt,
    entity::signing_key::{ActiveModel, Column, Entity, Model},
    revocation::{self, Revocation},
};
use crate::{
    error::Error,
    model::{
        purpose,
        revocation::RevocationKind,
        signing_key::{ALGORITHM, SigningKey, State, generate},
    },
};

/// How often a promotion retries when the next key is revoked meanwhile.
const ATTEMPTS: usize = 3;

impl Store {
    /// Makes an active key and a next one where they are missing.
    ///
    /// # Errors
    /// [`Error::Signing`], [`Error::Key`].
    pub async fn ensure_signing_keys(&self) -> Result<(), Error> {
        for state in [State::Active, State::Next] {
            if in_state(self.db.read(), state).await?.is_some() {
                continue;
            }
            let tx = self.db.write().await?;
            match self.insert_key(&tx, state).await {
                Ok(kid) => {
                    let origin = system();
                    let event = Event::new("signing_key.create")
                        .subject(&kid)
                        .detail("state", state.name());
                    self.audit(&tx, &origin, event).await?;
                    self.bump(&tx, &[changed(&kid)]).await?;
                    tx.commit().await?;
                }
                // Another replica was faster.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The id of the key that signs now.
    ///
    /// # Errors
    /// [`Error::Signing`] when there is none.
    pub async fn active_signing_key(&self) -> Result<String, Error> {
        let row = in_state(self.db.read(), State::Active).await?;
        row.map(|row| row.kid).ok_or(Error::Signing)
    }

    /// A key's private half, PKCS#8.
    ///
    /// # Errors
    /// [`Error::Signing`] for an unknown key, [`Error::Key`] when it can't be unsealed.
    pub async fn unseal_signing_key(&self, kid: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let row = Entity::find_by_id(kid)
            .one(self.db.read())
            .await?
            .ok_or(Error::Signing)?;
        let key = self.keyring.require(purpose::SIGNING_KEY, row.key_version)?;
        Ok(key.open(kid.as_bytes(), &row.sealed)?)
    }

    /// Every key that is not revoked.
    pub async fn live_signing_keys(&self) -> Result<Vec<SigningKey>, Error> {
        let rows = Entity::find()
            .filter(Column::State.ne(State::Revoked.name()))
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
    ) -> Result<Page<SigningKey>, Error> {
        let mut query = Entity::find()
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .limit(page.fetch());
        if let Some(state) = state {
            query = query.filter(Column::State.eq(state.name()));
        }
        if let Some((created_at, kid)) = page.after().and_then(|after| after.split_once(' ')) {
            let created_at: i64 = created_at.parse().unwrap_or_default();
            query = query.filter(
                Condition::any().add(Column::CreatedAt.lt(created_at)).add(
                    Condition::all()
                        .add(Column::CreatedAt.eq(created_at))
                        .add(Column::Kid.lt(kid)),
                ),
            );
        }
        let rows = query.all(self.db.read()).await?;
        let keys = rows.into_iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(keys, |key| format!("{} {}", key.created_at.as_millis(), key.kid)))
    }

    /// Active becomes retired, next becomes active, and a new next is made.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`].
    pub async fn rotate_signing_key(&self, creation: &Creation) -> Result<SigningKey, Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, .. } => {
                return find(&tx, &resource_id).await?.ok_or(corrupt("idempotency"));
            }
            Outcome::New(reservation) => reservation,
        };
        let now = self.now();
        let active = in_state(&tx, State::Active).await?.ok_or(Error::Signing)?;
        let stepped = step(&tx, &active.kid, State::Active, State::Retired, now).await?;
        if stepped == 0 {
            // Another rotation committed in between; this one would have rotated what it never saw.
            return Err(StoreError::Unavailable.into());
        }
        let promoted = self.promote_next(&tx, now).await?;
        reservation.complete(&tx, &promoted).await?;
        let event = Event::new("signing_key.rotate")
            .subject(&promoted)
            .detail("retired", active.kid.as_str());
        self.audit(&tx, &creation.origin, event).await?;
        self.bump(&tx, &[changed(&active.kid), changed(&promoted)])
            .await?;
        let key = find(&tx, &promoted).await?.ok_or(corrupt("signing_keys"))?;
        tx.commit().await?;
        Ok(key)
    }

    /// Revokes a key; if it was in use, the next one or a new one takes its place.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_signing_key(
        &self,
        origin: &Origin,
        kid: &str,
        reason: &str,
    ) -> Result<SigningKey, Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        let row = Entity::find_by_id(kid).lock_exclusive().one(&tx).await?;
        let key = signing_key(row.ok_or(Error::NotFound("signing_key"))?)?;
        if key.state == State::Revoked {
            return Ok(key);
        }
        if step(&tx, kid, key.state, State::Revoked, now).await? == 0 {
            return Err(StoreError::Unavailable.into());
        }
        match key.state {
            State::Active => {
                self.promote_next(&tx, now).await?;
            }
            State::Next => {
                self.insert_key(&tx, State::Next).await?;
            }
            State::Retired | State::Revoked => {}
        }
        let event = Event::new("signing_key.revoke")
            .subject(kid)
            .detail("reason", reason);
        self.audit(&tx, origin, event).await?;
        let revocation = Revocation::new(RevocationKind::Kid, kid, None, now);
        revocation::publish(&tx, vec![changed(kid)], vec![revocation], now).await?;
        let key = find(&tx, kid).await?.ok_or(corrupt("signing_keys"))?;
        tx.commit().await?;
        Ok(key)
    }

    /// Makes the next key active and a new one next. Returns the promoted key's id.
    async fn promote_next(&self, tx: &DatabaseTransaction, now: UnixMillis) -> Result<String, Error> {
        for _ in 0..ATTEMPTS {
            let next = in_state(tx, State::Next).await?.ok_or(Error::Signing)?;
            if step(tx, &next.kid, State::Next, State::Active, now).await? == 1 {
                self.insert_key(tx, State::Next).await?;
                return Ok(next.kid);
            }
            // It was revoked since it was read, and another one is next.
        }
        Err(StoreError::Unavailable.into())
    }

    async fn insert_key(&self, tx: &DatabaseTransaction, state: State) -> Result<String, Error> {
        let new = generate()?;
        let key = self.keyring.current(purpose::SIGNING_KEY)?;
        let now = self.now().as_millis();
        let row = ActiveModel {
            kid: Set(new.kid.clone()),
            algorithm: Set(ALGORITHM.to_owned()),
            sealed: Set(key.seal(&*self.random, new.kid.as_bytes(), &new.pkcs8)?),
            key_version: Set(key.version()),
            public_key: Set(new.public_key),
            state: Set(state.name().to_owned()),
            created_at: Set(now),
            activated_at: Set((state == State::Active).then_some(now)),
            retired_at: Set(None),
            revoked_at: Set(None),
        };
        row.insert(tx).await?;
        Ok(new.kid)
    }
}

/// The service itself as the actor of an event.
fn system() -> Origin {
    Origin {
        actor: Actor {
            kind: ActorKind::System,
            id: "token-service".to_owned(),
        },
        request_id: String::new(),
    }
}

/// Revokes every key, for a database that was restored from a backup: one that was revoked after the backup
/// may be known to others.
pub(super) async fn revoke_all(
    tx: &DatabaseTransaction,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let now = clock.now();
    let live = Entity::find()
        .filter(Column::State.ne(State::Revoked.name()))
        .order_by_asc(Column::Kid)
        .all(tx)
        .await?;
    for key in &live {
        let from = State::from_name(&key.state).ok_or(StoreError::Corrupt("signing_keys"))?;
        step(tx, &key.kid, from, State::Revoked, now).await?;
        let event = Event::new("signing_key.revoke")
            .subject(&key.kid)
            .detail("reason", "restored");
        audit::record(tx, clock, random, &system(), event).await?;
    }
    let changes = live.iter().map(|key| changed(&key.kid)).collect();
    let revocations = live
        .iter()
        .map(|key| Revocation::new(RevocationKind::Kid, &key.kid, None, now));
    revocation::publish(tx, changes, revocations.collect(), now).await
}

/// Moves a key from one state to another. Returns how many keys moved.
async fn step(
    tx: &DatabaseTransaction,
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
        .filter(Column::State.eq(from.name()))
        .col_expr(Column::State, Expr::value(to.name()))
        .col_expr(when, Expr::value(now.as_millis()))
        .exec(tx)
        .await?;
    Ok(moved.rows_affected)
}

async fn in_state(conn: &impl ConnectionTrait, state: State) -> Result<Option<Model>, StoreError> {
    Ok(Entity::find()
        .filter(Column::State.eq(state.name()))
        .one(conn)
        .await?)
}

async fn find(conn: &impl ConnectionTrait, kid: &str) -> Result<Option<SigningKey>, Error> {
    let row = Entity::find_by_id(kid).one(conn).await?;
    row.map(signing_key).transpose()
}

fn changed(kid: &str) -> Change {
    Change {
        kind: change_kind::SIGNING_KEY,
        id: kid.to_owned(),
        tenant_id: None,
    }
}

fn signing_key(row: Model) -> Result<SigningKey, Error> {
    Ok(SigningKey {
        state: State::from_name(&row.state).ok_or(corrupt("signing_keys"))?,
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
