//! The registry's database. A method of [`Store`] runs one transaction, with its audit event and its entry in the
//! change feed. Rules are in `model`.
//!
//! A tenant's rows have the tenant's id in their key. A method that names such a row takes that id.

use std::collections::BTreeMap;

use accord::{
    clock::{Clock, SharedClock, UnixMillis},
    position::Position,
    random::{Random, SharedRandom},
    store::{
        Creation, Database, StoreError, Transaction,
        audit::{self, ActorKind, Event, EventRow, Origin, action, operator_actions},
        change::{self, Change},
        idempotency::{self, CreationOutcome, Derivation},
        keyring::SharedKeyring,
        log,
        rows::{self, Authentic, Lookup, Protected, RowTable},
    },
    text::{
        id::{EventId, TenantId},
        opaque::SecretTagKey,
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    hashing::{Hasher, secret_tag},
    model::purpose,
};

pub mod batch;
pub(crate) mod caller;
mod client;
mod client_secret;
mod credentials;
mod delivery;
#[cfg(test)]
#[path = "tests/edited.rs"]
mod edited;
mod enrolment;
pub mod entity;
mod integration_request;
pub mod migration;
mod release;
mod scope;
mod tenant;
#[cfg(test)]
#[path = "tests/testing.rs"]
pub(crate) mod testing;
mod user;

pub use enrolment::EnrollingUser;

/// The purposes of the registry's data keys.
pub const PURPOSES: &[&str] = &[
    purpose::ACCOUNT_NAME,
    purpose::PEPPER,
    purpose::DELIVERY,
    purpose::SECRET_TAG,
    audit::KEYRING_PURPOSE,
    rows::KEYRING_PURPOSE,
    log::KEYRING_PURPOSE,
    idempotency::KEYRING_PURPOSE,
];

/// The registry's database, keys, clock and randomness.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) db: Database,
    pub(crate) keyring: SharedKeyring,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    /// Hashes and verifies secrets and passwords.
    pub hasher: Hasher,
    /// Whether giving access to a tenant's data takes two operators, or one admin.
    pub second_operator: bool,
}

impl Store {
    /// Creates a store on a migrated database. The keyring holds a key for each of [`PURPOSES`].
    ///
    /// `second_operator` is the setting of that name.
    pub fn new(
        db: Database,
        keyring: SharedKeyring,
        clock: SharedClock,
        random: SharedRandom,
        second_operator: bool,
    ) -> Self {
        Self {
            db,
            second_operator,
            hasher: Hasher::new(keyring.clone(), random.clone()),
            keyring,
            clock,
            random,
        }
    }

    /// Returns the time.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Returns the position of the change feed. What is read after this call reflects all changes up to it.
    pub async fn position(&self) -> Result<Position> {
        Ok(self.db.position().await?)
    }

    /// Returns the key that new Client Secrets are tagged with.
    pub async fn secret_tag_key(&self) -> Result<SecretTagKey> {
        let keyring = self.keyring.get().await?;
        Ok(secret_tag::current(&keyring)?)
    }

    /// Records an event without a change, such as a rejected sign-in.
    pub async fn record(&self, origin: &Origin, event: Event) -> Result<()> {
        let tx = self.db.write().await?;
        self.audit(&tx, origin, event).await?;
        commit(tx, ()).await
    }

    /// Returns what operators did to a tenant, newest first: at most `limit` events, before the event `before` if it is given.
    pub async fn operator_actions(
        &self,
        tenant_id: &TenantId,
        before: Option<&EventId>,
        limit: u64,
    ) -> Result<Vec<EventRow>> {
        Ok(operator_actions(self.db.read(), tenant_id, before, limit).await?)
    }

    /// Begins the transaction of a creating call, which may be a repeated one.
    async fn begin_creation(&self, creation: &Creation) -> Result<(Transaction, CreationOutcome)> {
        // Without a version in use, an earlier call with the same request id would not be found.
        let keyring = self.keyring.complete().await?;
        let tx = self.db.write().await?;
        // Boxed, as others here: the futures of creating calls are deep.
        let begun = idempotency::begin(&tx, &keyring, &*self.clock, &*self.random, creation);
        let outcome = Box::pin(begun).await?;
        Ok((tx, outcome))
    }

    /// Begins the transaction of a creating call with secrets that were prepared for it.
    async fn begin_prepared(
        &self,
        creation: &Creation,
        secrets: Derivation,
    ) -> Result<(Transaction, CreationOutcome)> {
        let keyring = self.keyring.complete().await?;
        let tx = self.db.write().await?;
        let begun = idempotency::begin_prepared(&tx, &keyring, &*self.clock, creation, secrets);
        let outcome = Box::pin(begun).await?;
        Ok((tx, outcome))
    }

    /// Records that a repeated call shows the secret of `subject` again, and commits.
    async fn commit_repeated<T>(
        &self,
        tx: Transaction,
        creation: &Creation,
        subject: &str,
        result: T,
    ) -> Result<T> {
        let event = Event::new(action::SECRET_SHOW_AGAIN).subject(subject);
        let event = event.detail("method", creation.method);
        self.audit(&tx, &creation.origin, event).await?;
        commit(tx, result).await
    }

    /// Records an event, which the commit of the transaction writes. An operator's act on a client concerns the tenants that
    /// the client has now, whose Tenant Admins see it.
    async fn audit(&self, tx: &Transaction, origin: &Origin, event: Event) -> Result<()> {
        let event = self.with_tenants(tx, origin, event).await?;
        audit::record(tx, &*self.clock, &*self.random, origin, event).await;
        Ok(())
    }

    /// Adds the tenants that an operator's act on a client concerns.
    async fn with_tenants(&self, tx: &Transaction, origin: &Origin, event: Event) -> Result<Event> {
        Ok(match &event.client_id {
            Some(client_id) if origin.actor.kind == ActorKind::Operator => {
                let tenants = Box::pin(client::tenants_of(tx, client_id)).await?;
                event.concerning(tenants)
            }
            _ => event,
        })
    }

    /// Records an event and publishes its change. Returns the position of the change.
    ///
    /// Call it as late as possible: all other writers wait from here to the commit.
    async fn publish(&self, tx: &Transaction, origin: &Origin, event: Event, change: Change) -> Result<i64> {
        self.audit(tx, origin, event).await?;
        Ok(Box::pin(change::publish(tx, &[change], self.now())).await?)
    }

    /// Publishes the change of an end that was recorded before. Somebody may have put back the row from before it for a moment, in which
    /// memory has read it.
    async fn publish_again(&self, tx: &Transaction, change: Change) -> Result<()> {
        Box::pin(change::publish(tx, &[change], self.now())).await?;
        Ok(())
    }

    /// Records and publishes the end of something whose row was altered, so that nobody goes on with what memory holds. The row
    /// stays, and every read rejects it. Returns the error.
    async fn end_altered(
        &self,
        tx: Transaction,
        origin: &Origin,
        event: Event,
        change: Change,
        table: &'static str,
    ) -> Error {
        let event = event.altered(table);
        audit::record(&tx, &*self.clock, &*self.random, origin, event).await;
        let ended = async {
            Box::pin(change::publish(&tx, &[change], self.now())).await?;
            Box::pin(tx.commit()).await
        };
        match ended.await {
            Ok(()) => StoreError::Altered(table).into(),
            Err(error) => error.into(),
        }
    }

    /// Reads one page of a list, ordered by `key`, a text column without duplicates.
    async fn page<E: Protected, T>(
        &self,
        query: Lookup<E>,
        key: E::Column,
        order: Order,
        request: &PageRequest,
        convert: fn(Authentic<E>) -> Result<T>,
    ) -> Result<Page<T>> {
        let after = request.after().map(|after| match order {
            Order::Desc => key.lt(after),
            _ => key.gt(after),
        });
        let query = query.apply_if(after, Lookup::behind);
        let query = query.order_by(key, order).limit(request.fetch());
        let rows = query.read_all(self.db.read()).await?;
        let page = request.finish(rows, |row| match row.get(key) {
            Value::String(Some(key)) => key,
            _ => String::new(),
        });
        page.try_map(async |rows| rows.into_iter().map(convert).collect())
            .await
    }
}

/// Returns the tables that a verification compares.
pub fn recorded_tables() -> Vec<RowTable> {
    vec![
        RowTable::of::<entity::caller::Entity>(),
        RowTable::of::<entity::client::Entity>(),
        RowTable::compared::<entity::client_tenant::Entity>(|conn, _| {
            Box::pin(client::tenant_index::differences(conn))
        }),
        RowTable::of::<entity::client_secret::Entity>(),
        RowTable::of::<entity::delivery::Entity>(),
        RowTable::of::<entity::enrolment::Entity>(),
        RowTable::of::<entity::integration_request::Entity>(),
        RowTable::of::<entity::scope::Entity>(),
        RowTable::of::<entity::tenant::Entity>(),
        RowTable::of::<entity::user::Entity>(),
    ]
}

/// Ends every one-time link that was not used, for a database restored from a backup.
pub async fn end_links(db: &Database, clock: &dyn Clock, random: &dyn Random) -> Result<()> {
    let now = clock.now();
    let record = async |tx: &Transaction, kind: &'static str, count: usize| {
        let event = Event::new(action::EPOCH_END_LINKS)
            .detail("kind", kind)
            .detail("count", count.to_string());
        audit::record(tx, clock, random, &Origin::system("command-line"), event).await;
    };
    rows::change_in_batches::<entity::enrolment::Entity>(
        db,
        enrolment::unused(),
        |row| row.ended_at = Some(now.as_millis()),
        async |tx, count| record(tx, "enrolment", count).await,
    )
    .await?;
    rows::change_in_batches::<entity::delivery::Entity>(
        db,
        credentials::unopened(),
        |row| credentials::end_link(row, now),
        async |tx, count| record(tx, "delivery", count).await,
    )
    .await?;
    Ok(())
}

macro_rules! versioned {
    ($($row:ty),*) => {
        $(impl $row {
            /// Increments the etag, and sets when the row changed.
            fn set_next_version(&mut self, now: UnixMillis) {
                self.updated_at = now.as_millis();
                self.etag += 1;
            }
        })*
    };
}

versioned!(entity::client::Model, entity::scope::Model, entity::tenant::Model);

fn change(kind: &'static str, id: &impl ToString, tenant_id: Option<&TenantId>) -> Change {
    Change {
        kind,
        id: id.to_string(),
        tenant_id: tenant_id.cloned(),
    }
}

/// Adds the old and the new value of a field to the event of an update, if it sets the field.
fn replaced(
    event: Event,
    field: &'static str,
    old: &impl Serialize,
    new: &Option<impl Serialize>,
) -> Result<Event> {
    let Some(new) = new else { return Ok(event) };
    let values = BTreeMap::from([("old", json(old)?), ("new", json(new)?)]);
    Ok(event.detail(field, json(&values)?.to_string()))
}

/// Returns the error of who needs a second person. It holds the event of the rejection, so that a flood of them is counted as any
/// other.
fn second_operator_required(what: &'static str, event: Event) -> Error {
    let event = Box::new(event.refused());
    Error::SecondOperatorRequired { what, event }
}

/// Adds the reason to the event of what ends or suspends something, if there is one.
fn with_reason(event: Event, reason: &str) -> Event {
    match reason {
        "" => event,
        reason => event.detail("reason", reason),
    }
}

/// Maps a conflict of an insert to [`Error::AlreadyExists`]. Only the natural key may conflict.
fn exists(resource: &'static str) -> impl Fn(StoreError) -> Error {
    move |error| match error {
        StoreError::Conflict => Error::AlreadyExists(resource),
        other => other.into(),
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// Commits a transaction and returns its result.
async fn commit<T>(tx: Transaction, result: T) -> Result<T> {
    Box::pin(tx.commit()).await?;
    Ok(result)
}

/// Returns the error for a stored value that this program can't have written.
fn corrupt(what: &'static str) -> Error {
    Error::Store(StoreError::Corrupt(what))
}

fn json(value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|_| corrupt("a value that has no JSON form"))
}
