//! The registry's database. A method of [`Store`] is one transaction, with its audit event and its change in the
//! feed; rules are in `model`.
//!
//! Tables that belong to a tenant are keyed by it, and their methods take it.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::{SharedClock, UnixMillis},
    keys::Keyring,
    position::Position,
    random::SharedRandom,
    store::{
        Creation, Database, StoreError,
        audit::{self, Event, Origin},
        change::{self, Change, FeedPage},
        idempotency::{self, Outcome},
    },
    text::{
        id::{ClientId, TenantId},
        opaque::{ClientSecret, SecretTagKey},
    },
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, sea_query::Expr,
};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    hashing::{Hasher, secret_tag},
    model::purpose,
};

mod caller;
mod client;
mod client_secret;
mod credentials;
mod delivery;
mod enrolment;
pub mod entity;
mod integration_request;
pub mod migration;
mod registration;
mod scope;
mod tenant;
#[cfg(test)]
pub(crate) mod testing;
mod user;

/// The purposes of every data key, that of request ids included.
pub const PURPOSES: &[&str] = &[
    purpose::ACCOUNT_NAME,
    purpose::PEPPER,
    purpose::DELIVERY,
    purpose::SECRET_TAG,
    idempotency::KEYRING_PURPOSE,
];

/// How far back a reader looks that wants to know what ended lately: four times the longest life of an
/// access token, so that replicas' clocks need not agree.
const RECENT: Duration = Duration::from_secs(3600);

/// The registry's database, keys, clock and randomness.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) db: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) hasher: Hasher,
}

impl Store {
    /// Joins the parts of a store. The database is migrated and the keyring holds
    /// [`PURPOSES`].
    pub fn new(db: Database, keyring: Keyring, clock: SharedClock, random: SharedRandom) -> Self {
        let keyring = Arc::new(keyring);
        Self {
            db,
            hasher: Hasher::new(keyring.clone(), random.clone()),
            keyring,
            clock,
            random,
        }
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Computes and checks hashes of secrets and passwords.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The change feed's position: what is read after this call reflects all changes up to it.
    pub async fn position(&self) -> Result<Position, Error> {
        Ok(change::position(self.db.read()).await?)
    }

    /// The feed after a position, at most `limit` changes; without one, the feed's position.
    pub async fn changes_after(&self, after: Option<&Position>, limit: u64) -> Result<FeedPage, Error> {
        Ok(change::read(self.db.read(), after, limit).await?)
    }

    /// The key that new Client Secrets are tagged with.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn secret_tag_key(&self) -> Result<SecretTagKey, Error> {
        Ok(secret_tag::current(&self.keyring)?)
    }

    /// Whether the registry tagged this text as a secret of this client. Takes the same time for every client.
    pub fn is_tagged_for(&self, secret: &ClientSecret, client_id: &ClientId) -> bool {
        let keys: Vec<_> = secret_tag::all(&self.keyring).collect();
        secret.is_tagged_for(client_id, &keys)
    }

    /// The keys that Client Secrets may be tagged with, by version.
    pub fn secret_tag_keys(&self) -> Vec<(i32, Zeroizing<[u8; 32]>)> {
        secret_tag::exposed(&self.keyring)
    }

    /// A position that all changes of the last hour come after: every access token that still lives was
    /// issued at this position or later.
    pub async fn recent_seq(&self) -> Result<i64, Error> {
        Ok(change::seq_before(self.db.read(), self.now().minus(RECENT)).await?)
    }

    /// Records an event that comes with no change of its own, such as a refused attempt.
    pub async fn record(&self, origin: &Origin, event: Event) -> Result<(), Error> {
        let tx = self.db.write().await?;
        self.audit(&tx, origin, event).await?;
        Ok(commit(tx).await?)
    }

    /// Begins a creating transaction: a new thing, or the answer to a repeated call.
    async fn begin_creation(&self, creation: &Creation) -> Result<(DatabaseTransaction, Outcome), Error> {
        let tx = self.db.write().await?;
        let outcome = idempotency::begin(&tx, &self.keyring, &*self.clock, &*self.random, creation).await?;
        Ok((tx, outcome))
    }

    async fn audit(
        &self,
        conn: &impl ConnectionTrait,
        origin: &Origin,
        event: Event,
    ) -> Result<(), StoreError> {
        audit::record(conn, &*self.clock, &*self.random, origin, event).await?;
        Ok(())
    }

    /// Records an event and publishes its change; the change's position. Call it last: all other writers wait from
    /// here to the commit.
    async fn publish(
        &self,
        tx: &DatabaseTransaction,
        origin: &Origin,
        event: Event,
        change: Change,
    ) -> Result<i64, StoreError> {
        self.audit(tx, origin, event).await?;
        change::publish(tx, &[change], self.now()).await
    }
}

/// Ends every one-time link that was not used: for a database that was restored from a copy.
///
/// # Errors
/// What the database says.
pub async fn end_links(tx: &DatabaseTransaction, now: UnixMillis) -> Result<(), StoreError> {
    use entity::{delivery, enrolment};
    enrolment::Entity::update_many()
        .filter(enrolment::Column::UsedAt.is_null())
        .filter(enrolment::Column::EndedAt.is_null())
        .col_expr(enrolment::Column::EndedAt, Expr::value(now.as_millis()))
        .exec(tx)
        .await?;
    delivery::Entity::update_many()
        .filter(delivery::Column::ClaimedAt.is_null())
        .filter(delivery::Column::EndedAt.is_null())
        .col_expr(delivery::Column::EndedAt, Expr::value(now.as_millis()))
        .col_expr(delivery::Column::Nonce, Expr::value(None::<Vec<u8>>))
        .exec(tx)
        .await?;
    Ok(())
}

/// A change of what has this id.
fn change(kind: &'static str, id: &impl ToString, tenant_id: Option<&TenantId>) -> Change {
    Change {
        kind,
        id: id.to_string(),
        tenant_id: tenant_id.cloned(),
    }
}

/// The error of an insert that only a natural key can refuse.
fn exists(resource: &'static str) -> impl Fn(DbErr) -> Error {
    move |error| match StoreError::from(error) {
        StoreError::Conflict => Error::AlreadyExists(resource),
        other => other.into(),
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// Commits, so that a failed commit is a failed call.
async fn commit(tx: DatabaseTransaction) -> Result<(), StoreError> {
    Ok(tx.commit().await?)
}

/// A stored value that this program does not write.
fn corrupt(what: &'static str) -> Error {
    Error::Store(StoreError::Corrupt(what))
}
