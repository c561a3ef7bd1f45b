//! Signing keys in the database. A data key seals the private half, with the key's id as context.
//!
//! A partial unique index allows one key NEXT and one ACTIVE, whatever replicas do at the same time. A key's algorithm is
//! in its row: no replica's setting changes it.

use accord::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{
        StoreError, Transaction,
        audit::{self, Event, Origin},
        change::{self, Change},
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
        signing_key::{Algorithm, NewKey, PublicKey, SigningKey, State},
    },
};

mod rotation;

const CORRUPT: StoreError = StoreError::Corrupt("signing_keys");

impl Store {
    /// Creates an active key and a next one where they are missing. They have the algorithm that signed last; `first` is
    /// for a database without any key.
    pub async fn ensure_signing_keys(&self, first: Algorithm) -> Result<()> {
        for state in [State::Active, State::Next] {
            if in_state(self.db.read(), state).await?.is_some() {
                continue;
            }
            let algorithm = self.last_algorithm().await?.unwrap_or(first);
            let new = new_key(algorithm).await?;
            let tx = self.db.write().await?;
            match self.insert_key(&tx, state, &new).await {
                Ok(()) => {
                    let event = Event::new("signing_key.create")
                        .subject(&new.kid)
                        .detail("state", state.as_ref())
                        .detail("algorithm", algorithm.as_ref());
                    self.audit(&tx, &Origin::system("token-service"), event).await;
                    change::publish(&tx, &[changed(&new.kid)], self.now()).await?;
                    tx.commit().await?;
                }
                // Another replica was first.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the algorithm of the key that began to sign last.
    async fn last_algorithm(&self) -> Result<Option<Algorithm>> {
        let last = Entity::find()
            .filter(Column::ActivatedAt.is_not_null())
            .order_by_desc(Column::ActivatedAt)
            .one(self.db.read())
            .await?;
        last.map(|row| Ok(signing_key(row)?.algorithm)).transpose()
    }

    /// Returns the id of the key that signs now.
    ///
    /// # Errors
    /// [`Error::Signing`] if there is none.
    pub async fn active_signing_key(&self) -> Result<String> {
        let row = in_state(self.db.read(), State::Active).await?;
        row.map(|row| row.kid).ok_or(Error::Signing)
    }

    /// Unseals a key's private half, PKCS#8. Returns it with the key's algorithm.
    ///
    /// # Errors
    /// [`Error::Signing`] for an unknown key; [`Error::Key`] if it can't be unsealed.
    pub async fn unseal_signing_key(&self, kid: &str) -> Result<(Algorithm, Zeroizing<Vec<u8>>)> {
        let row = Entity::find_by_id(kid).one(self.db.read()).await?;
        let row = row.ok_or(Error::Signing)?;
        let keyring = self.keyring.with_version(purpose::SIGNING_KEY, row.key_version);
        let keyring = keyring.await?;
        let key = keyring.require(purpose::SIGNING_KEY, row.key_version)?;
        let pkcs8 = key.open(kid.as_bytes(), &row.sealed)?;
        Ok((signing_key(row)?.algorithm, pkcs8))
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

    async fn insert_key(&self, tx: &Transaction, state: State, new: &NewKey) -> Result<()> {
        let keyring = self.keyring.get().await?;
        let key = keyring.current(purpose::SIGNING_KEY)?;
        let now = self.now().as_millis();
        let row = ActiveModel {
            kid: Set(new.kid.clone()),
            algorithm: Set(new.algorithm.as_ref().to_owned()),
            sealed: Set(key.seal(&*self.random, new.kid.as_bytes(), &new.pkcs8)?),
            key_version: Set(key.version()),
            public_key: Set(new.public_key.to_json()),
            state: Set(state.as_ref().to_owned()),
            created_at: Set(now),
            activated_at: Set((state == State::Active).then_some(now)),
            ..Default::default()
        };
        row.insert(tx).await?;
        Ok(())
    }
}

/// Generates a key pair on a thread that may block: call it before a transaction begins.
async fn new_key(algorithm: Algorithm) -> Result<NewKey> {
    let generated = tokio::task::spawn_blocking(move || NewKey::generate(algorithm));
    generated.await.map_err(|_| Error::Signing)?
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
        if step(tx, &key.kid, from, State::Revoked, now).await? == 0 {
            // A replica that still serves has moved it.
            return Err(StoreError::Busy);
        }
        let event = Event::new("signing_key.revoke")
            .subject(&key.kid)
            .detail("reason", "restored");
        audit::record(tx, clock, random, &Origin::system("token-service"), event).await;
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

/// Reads the key in this state, of which there is one.
async fn only(conn: &impl ConnectionTrait, state: State) -> Result<SigningKey> {
    signing_key(in_state(conn, state).await?.ok_or(Error::Signing)?)
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
        algorithm: row.algorithm.parse().map_err(|_| CORRUPT)?,
        public_key: PublicKey::parse(&row.public_key).map_err(|_| CORRUPT)?,
        created_at: UnixMillis::from_millis(row.created_at),
        activated_at: row.activated_at.map(UnixMillis::from_millis),
        retired_at: row.retired_at.map(UnixMillis::from_millis),
        revoked_at: row.revoked_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "../tests/signing_key.rs"]
mod tests;
