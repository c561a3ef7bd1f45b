//! token-service's database. A method of [`Store`] is one transaction, with its audit event and its changes. The rules
//! are in `model`.
//!
//! Tables that a tenant owns are keyed by tenant, and their methods take the tenant.

use std::sync::Arc;

use accord::{
    clock::{Clock, SharedClock, UnixMillis},
    keys::KeyError,
    metrics::FEED_HEAD,
    position::Position,
    random::{Random, SharedRandom},
    store::{
        Creation, Database, StoreError, Transaction,
        audit::{self, Event, GroupWriter, Origin, Record},
        batch::{audit::RecordEvents, group_commit::GroupCommit},
        change::{self, FeedPage},
        idempotency::{self, CreationOutcome},
        keyring::SharedKeyring,
        log,
        rows::{self, RowTable, delete_all},
    },
};
use metrics::gauge;
use sea_orm::{DbErr, QueryResult, TryGetable};

use crate::{
    error::{Error, Result},
    model::purpose,
};

mod admin_session;
mod batch;
pub mod entity;
mod evidence;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
mod grant;
pub mod migration;
mod reopening;
mod revocation;
mod setup;
mod signing_key;
mod usage;
mod verified_secret;

pub use batch::{
    assertion::Assertion,
    code::StoredCode,
    redemption::{Redemption, RedemptionOutcome},
};
use batch::{
    assertion::Assertions, code::CodeLookups, family_advance::Advances, grant::CurrentGrants,
    pushed_request::PushedRequests, redemption::Redemptions, stored::Stored, verified_secret::SecretLookups,
};
pub use family::StoredFamily;
pub use grant::StoredGrant;
pub use reopening::PendingAnswer;
use reopening::Reopenings;
use usage::rejection::Rejections;

/// The purposes of every data key, that of request ids included.
pub const PURPOSES: &[&str] = &[
    purpose::AUTHORIZATION_REQUEST,
    purpose::DPOP_NONCE,
    purpose::REFRESH,
    purpose::SIGNING_KEY,
    purpose::VERIFIED_SECRET,
    audit::KEYRING_PURPOSE,
    rows::KEYRING_PURPOSE,
    log::KEYRING_PURPOSE,
    idempotency::KEYRING_PURPOSE,
];

/// Kinds of changes in the feed, as they are stored.
pub mod change_kind {
    /// A grant became active, ended, or runs as another user.
    pub const GRANT: &str = "grant";
    /// Something was revoked; the `revocations` row of the same position says what.
    pub const REVOCATION: &str = "revocation";
    /// A signing key changed its state.
    pub const SIGNING_KEY: &str = "signing-key";
}

/// token-service's database, keys, clock and randomness.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) db: Database,
    pub(crate) keyring: SharedKeyring,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    events: GroupCommit<RecordEvents>,
    assertions: GroupCommit<Assertions>,
    codes: GroupCommit<CodeLookups>,
    current_grants: GroupCommit<CurrentGrants>,
    secret_lookups: GroupCommit<SecretLookups>,
    advances: GroupCommit<Advances>,
    redemptions: GroupCommit<Redemptions>,
    pushed_requests: GroupCommit<PushedRequests>,
    reopenings: Arc<Reopenings>,
    rejections: Arc<Rejections>,
}

/// Returns the tables that a verification compares.
pub fn recorded_tables() -> Vec<RowTable> {
    vec![
        RowTable::of::<entity::grant::Entity>(),
        RowTable::of::<entity::grant_receipt::Entity>(),
        RowTable::of::<entity::signing_key::Entity>(),
        RowTable::of::<entity::setup::Entity>(),
        RowTable::of::<entity::admin_session::Entity>(),
        RowTable::of::<entity::code::Entity>(),
        RowTable::of::<entity::family::Entity>(),
        RowTable::compared::<entity::revocation::Entity>(|conn, now| Box::pin(revocation::gone(conn, now))),
    ]
}

impl Store {
    /// Opens a store on a migrated database and a keyring that holds [`PURPOSES`]. Must be called inside a tokio
    /// runtime.
    pub fn new(db: Database, keyring: SharedKeyring, clock: SharedClock, random: SharedRandom) -> Self {
        let reopenings = Reopenings::new(db.clone(), clock.clone(), random.clone());
        let writer = || GroupWriter::new(clock.clone(), random.clone());
        let events = RecordEvents {
            db: db.clone(),
            writer: writer(),
        };
        let advances = Advances {
            db: db.clone(),
            writer: writer(),
        };
        let redemptions = Redemptions {
            db: db.clone(),
            clock: clock.clone(),
            random: random.clone(),
            writer: writer(),
            reopenings: reopenings.clone(),
        };
        let pushed_requests = PushedRequests {
            db: db.clone(),
            clock: clock.clone(),
            random: random.clone(),
        };
        Self {
            events: GroupCommit::start(events),
            assertions: GroupCommit::start(Assertions(db.clone())),
            codes: GroupCommit::start(CodeLookups(db.clone())),
            current_grants: GroupCommit::start(CurrentGrants(db.clone())),
            secret_lookups: GroupCommit::start(SecretLookups(db.clone())),
            advances: GroupCommit::start(advances),
            redemptions: GroupCommit::start(redemptions),
            pushed_requests: GroupCommit::start(pushed_requests),
            reopenings,
            rejections: Rejections::start(db.clone()),
            db,
            keyring,
            clock,
            random,
        }
    }

    /// Records how many items wait for the end of their transaction.
    pub fn record_gauges(&self) {
        self.events.record_gauges();
        self.assertions.record_gauges();
        self.codes.record_gauges();
        self.current_grants.record_gauges();
        self.secret_lookups.record_gauges();
        self.advances.record_gauges();
        self.redemptions.record_gauges();
        self.pushed_requests.record_gauges();
    }

    /// Returns the time now.
    pub fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Returns the change feed's position: what is read after this call reflects all changes up to it.
    pub async fn position(&self) -> Result<Position> {
        Ok(self.db.position().await?)
    }

    /// Reads at most `limit` changes after a position; without a position, the feed's own. Fails if the database can't
    /// be written: what an old primary answers is out of date.
    pub async fn changes_after(&self, after: Option<&Position>, limit: u64) -> Result<FeedPage> {
        self.db.check_current().await?;
        let sealed = audit::sealed_number(self.db.read()).await?;
        let page = change::read(self.db.read(), sealed, after, limit).await?;
        gauge!(FEED_HEAD, "feed" => "own").set(page.head as f64);
        Ok(page)
    }

    /// Returns a position that all changes since `since` come after.
    pub async fn seq_before(&self, since: UnixMillis) -> Result<i64> {
        Ok(change::seq_before(self.db.read(), since).await?)
    }

    /// Records an event without a change: an issued token with others in a group, anything else in a row of its own.
    pub async fn record(&self, origin: Origin, event: Event) -> Result<()> {
        if event.issued_token.is_some() {
            let record = Record::new(&*self.clock, &*self.random, origin, event);
            return Ok(self.events.submit(record).await?);
        }
        let tx = self.db.write().await?;
        self.audit(&tx, &origin, event).await;
        Ok(tx.commit().await?)
    }

    /// Begins a transaction that creates something, or finds what an earlier call with this id created.
    async fn begin_creation(&self, creation: &Creation) -> Result<(Transaction, CreationOutcome)> {
        // Without a version in use, an earlier call with the same request id would not be found.
        let keyring = self.keyring.complete().await?;
        let tx = self.db.write().await?;
        let outcome = idempotency::begin(&tx, &keyring, &*self.clock, &*self.random, creation).await?;
        Ok((tx, outcome))
    }

    /// Returns whether a creation was committed before, so that a repeated call gets the answer of the first one.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`].
    pub async fn was_created(&self, creation: &Creation) -> Result<bool> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        tx.rollback().await?;
        Ok(matches!(outcome, CreationOutcome::Repeated { .. }))
    }

    /// Records an event, which the commit of the transaction writes.
    async fn audit(&self, tx: &Transaction, origin: &Origin, event: Event) {
        audit::record(tx, &*self.clock, &*self.random, origin, event).await;
    }
}

/// Ends every family and admin session by deleting it, also those with a wrong MAC, and revokes every signing key, for a
/// database that was restored from a backup. A family's tokens are then like those that were never issued.
/// [`Store::ensure_signing_keys`] then makes new keys.
pub async fn end_all_before(db: &Database, clock: &dyn Clock, random: &dyn Random) -> Result<(), StoreError> {
    delete_all::<entity::family::Entity>(db).await?;
    delete_all::<entity::admin_session::Entity>(db).await?;
    let tx = db.write().await?;
    signing_key::revoke_all(&tx, clock, random).await?;
    tx.commit().await
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        StoreError::from(error).into()
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_retryable() => Self::Unavailable,
            StoreError::Conflict => Self::Conflict,
            StoreError::RequestIdReused => Self::RequestIdReused,
            error => Self::Internal(error.into()),
        }
    }
}

/// Reads a column of a row that a statement returned.
fn column<T: TryGetable>(row: &QueryResult, name: &str) -> Result<T, StoreError> {
    Ok(row.try_get("", name)?)
}

/// Returns the error for a stored value that this program does not write.
fn corrupt(what: &'static str) -> Error {
    StoreError::Corrupt(what).into()
}

#[cfg(test)]
mod tests;
