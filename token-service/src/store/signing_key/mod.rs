//! Signing keys in the database. A data key seals the private half, with the key's id as context.
//!
//! Whoever could write a row could sign as every tenant, so that one row with a wrong MAC fails every read of the published
//! keys: nothing is signed or verified until it is gone.
//!
//! A partial unique index allows one key NEXT and one ACTIVE, whatever replicas do at the same time. A key's algorithm is
//! in its row: no replica's setting changes it.

use accord::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{
        Keyed, StoreError, Transaction,
        audit::{self, Event, Origin, action},
        change::{self, Change},
        rows::{self, Authentic, Checked, Locked, Lookup, ProtectedRows},
    },
    text::page::{Page, PageRequest},
};
use sea_orm::{QueryOrder, QuerySelect, QueryTrait, entity::prelude::*, sea_query::ExprTrait};
use zeroize::Zeroizing;

use super::{
    Store, change_kind,
    entity::signing_key::{Column, Entity, Model},
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
            if in_state(state).read_one(self.db.read()).await?.is_some() {
                continue;
            }
            let algorithm = self.last_algorithm().await?.unwrap_or(first);
            let new = new_key(algorithm).await?;
            self.keyring.get().await?;
            let tx = self.db.write().await?;
            match self.insert_key(&tx, state, &new).await {
                Ok(()) => {
                    let event = Event::new(action::SIGNING_KEY_CREATE)
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

    /// Returns the algorithms of the active key and of the next one, as far as there are both.
    pub async fn signing_algorithms(&self) -> Result<Vec<Algorithm>> {
        let mut algorithms = Vec::with_capacity(2);
        for state in [State::Active, State::Next] {
            if let Some(row) = in_state(state).read_one(self.db.read()).await? {
                algorithms.push(signing_key(&row)?.algorithm);
            }
        }
        Ok(algorithms)
    }

    /// Returns the algorithm of the keys that [`Self::ensure_signing_keys`] creates; `None` if none is missing.
    pub async fn missing_signing_algorithm(&self, first: Algorithm) -> Result<Option<Algorithm>> {
        match self.signing_algorithms().await?.len() {
            2 => Ok(None),
            _ => Ok(Some(self.last_algorithm().await?.unwrap_or(first))),
        }
    }

    /// Returns the algorithm of the key that began to sign last.
    async fn last_algorithm(&self) -> Result<Option<Algorithm>> {
        let last = Entity::look_up()
            .not_null(Column::ActivatedAt)
            .order_by_desc(Column::ActivatedAt)
            .read_one(self.db.read())
            .await?;
        last.map(|row| Ok(signing_key(&row)?.algorithm)).transpose()
    }

    /// Returns the id of the key that signs now.
    ///
    /// # Errors
    /// [`Error::Signing`] if there is none.
    pub async fn active_signing_key(&self) -> Result<String> {
        let row = in_state(State::Active).read_one(self.db.read()).await?;
        Ok(row.ok_or(Error::Signing)?.into_row().kid)
    }

    /// Unseals a key's private half, PKCS#8. Returns it with the key's algorithm.
    ///
    /// # Errors
    /// [`Error::Signing`] for an unknown key; [`Error::Internal`] if it can't be unsealed.
    pub async fn unseal_signing_key(&self, kid: &str) -> Result<(Algorithm, Zeroizing<Vec<u8>>)> {
        let row = Entity::look_up_by_id(kid).read_one(self.db.read()).await?;
        let row = row.ok_or(Error::Signing)?;
        let keyring = self.keyring.with_version(purpose::SIGNING_KEY, row.key_version);
        let keyring = keyring.await?;
        let key = keyring.require(purpose::SIGNING_KEY, row.key_version)?;
        let pkcs8 = key.open(kid.as_bytes(), &row.sealed)?;
        Ok((signing_key(&row)?.algorithm, pkcs8))
    }

    /// Reads every key that is not revoked, newest first.
    pub async fn live_signing_keys(&self) -> Result<Vec<SigningKey>> {
        let rows = live()
            .order_by_desc(Column::CreatedAt)
            .read_all(self.db.read())
            .await?;
        rows.iter().map(signing_key).collect()
    }

    /// Lists keys, newest first.
    pub async fn list_signing_keys(
        &self,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<SigningKey>> {
        let after = page.after().and_then(|after| after.split_once(' '));
        let rows = Entity::look_up()
            .apply_if(state, |query, state| query.equal(Column::State, state.as_ref()))
            .apply_if(after, |query, (created_at, kid)| {
                let created_at: i64 = created_at.parse().unwrap_or_default();
                let is_later = Column::CreatedAt.eq(created_at).and(Column::Kid.lt(kid));
                query.behind(Column::CreatedAt.lt(created_at).or(is_later))
            })
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Kid)
            .limit(page.fetch())
            .read_all(self.db.read())
            .await?;
        let keys = rows.iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(keys, |key| format!("{} {}", key.created_at.as_millis(), key.kid)))
    }

    /// Inserts a key, sealed by the keyring in memory: call [`SharedKeyring::get`](accord::store::keyring::SharedKeyring::get)
    /// before the transaction begins.
    async fn insert_key(&self, tx: &Transaction, state: State, new: &NewKey) -> Result<()> {
        let keyring = self.keyring.loaded();
        let key = keyring.current(purpose::SIGNING_KEY)?;
        let now = self.now().as_millis();
        let row = Model {
            kid: new.kid.clone(),
            algorithm: new.algorithm.as_ref().to_owned(),
            sealed: key.seal(&*self.random, new.kid.as_bytes(), &new.pkcs8)?,
            key_version: key.version(),
            public_key: new.public_key.to_json(),
            state: state.as_ref().to_owned(),
            created_at: now,
            activated_at: (state == State::Active).then_some(now),
            retired_at: None,
            revoked_at: None,
            mac: Vec::new(),
        };
        rows::insert::<Entity>(tx, row).await?;
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
    let mut kids = Vec::new();
    for key in live().order_by_asc(Column::Kid).lock_all(tx).await? {
        let key = step(tx, key, State::Revoked, now).await?;
        let event = Event::new(action::SIGNING_KEY_REVOKE)
            .subject(&key.kid)
            .detail("reason", "restored");
        audit::record(tx, clock, random, &Origin::system("token-service"), event).await;
        kids.push(key.into_row().kid);
    }
    let changes = kids.iter().map(|kid| changed(kid)).collect();
    let revocation = |kid| Revocation::new(RevocationKind::Kid, kid, None, now);
    let revocations = kids.iter().map(|kid| revocation(kid)).collect();
    revocation::publish(tx, changes, revocations, now).await
}

/// Moves a key to another state.
async fn step(
    tx: &Transaction,
    mut key: Locked<Entity>,
    to: State,
    now: UnixMillis,
) -> Result<Authentic<Entity>, StoreError> {
    let now = now.as_millis();
    match to {
        State::Next => key.created_at = now,
        State::Active => key.activated_at = Some(now),
        State::Retired => key.retired_at = Some(now),
        State::Revoked => key.revoked_at = Some(now),
    }
    key.state = to.as_ref().to_owned();
    key.save(tx).await?;
    Ok(key.stored())
}

fn live() -> Lookup<Entity> {
    let is_live = Column::State.ne(State::Revoked.as_ref());
    Entity::look_up().filter(is_live, |row| row.state != State::Revoked.as_ref())
}

/// Returns the query for the key in this state. At most one is next, and one is active.
fn in_state(state: State) -> Lookup<Entity> {
    Entity::look_up().equal(Column::State, state.as_ref())
}

/// Reads the key in this state, of which there is one.
async fn only(conn: &impl Keyed, state: State) -> Result<SigningKey> {
    let row = in_state(state).read_one(conn).await?;
    signing_key(&row.ok_or(Error::Signing)?)
}

/// Reads a key that must exist.
async fn find(conn: &impl Keyed, kid: &str) -> Result<SigningKey> {
    let row = Entity::look_up_by_id(kid).read_one(conn).await?;
    signing_key(&row.ok_or(CORRUPT)?)
}

fn changed(kid: &str) -> Change {
    Change {
        kind: change_kind::SIGNING_KEY,
        id: kid.to_owned(),
        tenant_id: None,
    }
}

fn signing_key(row: &impl Checked<Entity>) -> Result<SigningKey> {
    Ok(SigningKey {
        state: row.state.parse().map_err(|_| CORRUPT)?,
        kid: row.kid.clone(),
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
