//! Makes creating calls repeatable: a call with the same request id and content gets the same answer, secrets
//! included. Stores neither a secret nor a plaintext request id.
//!
//! A row holds a nonce, an HMAC of principal and request id, an HMAC of method and content, and a MAC of its own. A secret is
//! HKDF(data key, nonce, label and request id): without the request id nobody can derive it again, not even from the
//! database and the master key. After ten minutes [`delete_expired`] deletes the nonce.

use std::time::Duration;

use sea_orm::{IntoActiveModel, entity::prelude::*};
use sea_orm_migration::prelude::{Expr, OnConflict};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Database, StoreError, Transaction,
    audit::Origin,
    removal::delete_where,
    rows::{self, Protected, ProtectedRows, Recorded},
};
use crate::{
    clock::{Clock, UnixMillis},
    keys::{DataKey, Keyring},
    random::Random,
};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub request_key: Vec<u8>,
        pub content: Vec<u8>,
        pub nonce: Option<Vec<u8>>,
        pub key_version: i32,
        /// Empty until the reservation is completed. No other transaction sees it empty.
        pub resource_id: String,
        pub created_at: i64,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        /// It is deleted after ten minutes. With another one a repeated call gets what is no secret.
        const UNPROTECTED: &'static [Column] = &[Column::Nonce];
        /// It goes after a day.
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
    }
}

/// The purpose of the data key for request ids. A service opens its keyring for it too.
pub const KEYRING_PURPOSE: &str = "idempotency";
/// How long a repeated call gets the first call's answer.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(10 * 60);
/// How long a request id counts as used. A call with other content is rejected; after [`REPEAT_WINDOW`], any call is.
pub const REJECTION_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

const NONCE_LENGTH: usize = 32;
/// How often an insert is tried. A retry follows only if another transaction deleted the conflicting row meanwhile.
const ATTEMPTS: usize = 8;

/// A call that creates something.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The origin of the call. Different principals may use the same request id.
    pub origin: Origin,
    /// The method's name. A request id that was used with another method counts as used with other content.
    pub method: &'static str,
    /// The caller's `request_id`.
    pub request_id: Option<Uuid>,
    /// The encoded message. Only a keyed hash of it is stored.
    pub content: Zeroizing<Vec<u8>>,
}

/// Whether a creating call is new or repeated.
#[derive(Debug)]
pub enum CreationOutcome {
    /// The call is new: create, then call [`Reservation::complete`].
    New(Reservation),
    /// The call was answered before: return the same answer.
    Repeated {
        /// The id of the resource that the first call created.
        resource_id: String,
        /// Derives the secrets of the first call.
        secrets: Derivation,
    },
}

/// A new call's hold on its request id, until its transaction ends. Holds nothing for a call without one.
#[derive(Debug)]
#[must_use = "a repeated call fails unless the reservation is completed"]
pub struct Reservation {
    /// Derives the secrets of this call.
    pub secrets: Derivation,
    row: Option<row::Model>,
}

impl Reservation {
    /// Stores the id of the created resource, which must not be empty.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if `tx` is not the transaction that began the call.
    pub async fn complete(self, tx: &Transaction, resource_id: &str) -> Result<(), StoreError> {
        let Some(mut row) = self.row else {
            return Ok(());
        };
        row.resource_id = resource_id.to_owned();
        rows::protect::<row::Entity>(&rows::current(tx)?, &mut row)?;
        let updated = row::Entity::update_many()
            .col_expr(row::Column::ResourceId, Expr::value(row.resource_id))
            .col_expr(row::Column::Mac, Expr::value(row.mac))
            .filter(row::Column::RequestKey.eq(row.request_key))
            .exec(tx)
            .await?;
        match updated.rows_affected {
            1 => Ok(()),
            _ => Err(StoreError::Corrupt("a reserved request id is missing")),
        }
    }
}

/// Derives the secrets of one call. `Debug` shows nothing.
#[derive(derive_more::Debug)]
#[debug("Derivation([redacted])")]
pub struct Derivation {
    key: DataKey,
    nonce: Zeroizing<Vec<u8>>,
    request_id: Uuid,
}

impl Derivation {
    /// Derives 256 bits for a label such as `client-secret`. The first call and every repeated one get the same bits.
    pub fn secret(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let parts = [label.as_bytes(), self.request_id.as_bytes()];
        self.key.derive(&self.nonce, &parts)
    }
}

/// Returns what derives the secrets of a call, if it is new: for what takes too long inside its transaction.
///
/// # Errors
/// [`StoreError::Key`] without a data key.
pub fn prepare(
    keyring: &Keyring,
    random: &dyn Random,
    creation: &Creation,
) -> Result<Derivation, StoreError> {
    let mut nonce = Zeroizing::new(vec![0; NONCE_LENGTH]);
    random.fill(&mut nonce);
    let request_id = creation.request_id.unwrap_or_else(|| {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    });
    Ok(Derivation {
        key: keyring.current(KEYRING_PURPOSE)?.clone(),
        nonce,
        request_id,
    })
}

/// Reserves a call's request id, or finds the call that used it before. Call it first in the creating transaction.
///
/// If calls with the same id race, one is new. The others wait until its transaction ends and then repeat it; if it was
/// rolled back, one of them is new. Without a request id nothing is stored, and the secrets can't be derived again.
///
/// # Errors
/// [`StoreError::RequestIdReused`] if the id was used with other content, or more than ten minutes ago;
/// [`StoreError::Altered`] if somebody without the keys has edited what is stored about the earlier call.
pub async fn begin(
    tx: &Transaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    random: &dyn Random,
    creation: &Creation,
) -> Result<CreationOutcome, StoreError> {
    let secrets = prepare(keyring, random, creation)?;
    begin_prepared(tx, keyring, clock, creation, secrets).await
}

/// Does the same with secrets that [`prepare`] has returned. A repeated call does not use them.
pub async fn begin_prepared(
    tx: &Transaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    creation: &Creation,
    secrets: Derivation,
) -> Result<CreationOutcome, StoreError> {
    let has_content = |key: &DataKey, row: &row::Model| content_mac(key, creation).ct_eq(&row.content).into();
    begin_if(tx, keyring, clock, (creation, secrets), has_content).await
}

/// Does the same as [`begin`], and finds the earlier call whatever its content and method were: for request ids that prove who calls.
pub async fn begin_with_any_content(
    tx: &Transaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    random: &dyn Random,
    creation: &Creation,
) -> Result<CreationOutcome, StoreError> {
    let secrets = prepare(keyring, random, creation)?;
    begin_if(tx, keyring, clock, (creation, secrets), |_, _| true).await
}

/// `repeats` tells whether a call repeats that of a row, whose data key it gets.
async fn begin_if(
    tx: &Transaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    (creation, secrets): (&Creation, Derivation),
    repeats: impl Fn(&DataKey, &row::Model) -> bool,
) -> Result<CreationOutcome, StoreError> {
    let Some(request_id) = creation.request_id else {
        return Ok(CreationOutcome::New(Reservation { secrets, row: None }));
    };
    let current = &secrets.key;

    // A call from before a rotation of the data key has its row under an older key.
    // So has one of a replica that uses a new version already.
    let others = keyring.versions(KEYRING_PURPOSE);
    for key in others.filter(|key| key.version() != current.version()) {
        let request_key = request_key(key, creation, request_id);
        if let Some(outcome) = repeated(tx, keyring, clock, request_id, &request_key, &repeats).await? {
            return Ok(outcome);
        }
    }

    let request_key = request_key(current, creation, request_id);
    for _ in 0..ATTEMPTS {
        let mut row = row::Model {
            request_key: request_key.to_vec(),
            content: content_mac(current, creation).to_vec(),
            nonce: Some(secrets.nonce.to_vec()),
            key_version: current.version(),
            resource_id: String::new(),
            created_at: clock.now().as_millis(),
            mac: Vec::new(),
        };
        rows::protect::<row::Entity>(&rows::current(tx)?, &mut row)?;
        let unless_present = OnConflict::column(row::Column::RequestKey)
            .do_nothing()
            .to_owned();
        let new = row.clone().into_active_model().reset_all();
        let insert = row::Entity::insert(new).on_conflict(unless_present);
        if insert.exec_without_returning(tx).await? == 1 {
            let row = Some(row);
            return Ok(CreationOutcome::New(Reservation { secrets, row }));
        }
        if let Some(outcome) = repeated(tx, keyring, clock, request_id, &request_key, &repeats).await? {
            return Ok(outcome);
        }
    }
    Err(StoreError::Busy)
}

/// Returns the outcome of a repeated call; `None` for a call without a row. Deletes a row that is a day old, and then
/// returns `None` too.
async fn repeated(
    tx: &Transaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    request_id: Uuid,
    request_key: &[u8; 32],
    repeats: impl Fn(&DataKey, &row::Model) -> bool,
) -> Result<Option<CreationOutcome>, StoreError> {
    // Locks the row, so that `delete_expired` does not change it before this transaction ends.
    let find = row::Entity::look_up_by_id(request_key.to_vec());
    let Some(row) = find.lock_one(tx).await? else {
        return Ok(None);
    };
    let row = row.stored().into_row();
    let age = clock.now().since(UnixMillis::from_millis(row.created_at));
    if age >= REJECTION_WINDOW {
        row::Entity::delete_by_id(row.request_key).exec(tx).await?;
        return Ok(None);
    }
    let key = keyring.require(KEYRING_PURPOSE, row.key_version)?.clone();
    let is_repeated = repeats(&key, &row);
    let nonce = row.nonce.filter(|_| is_repeated && age < REPEAT_WINDOW);
    let nonce = Zeroizing::new(nonce.ok_or(StoreError::RequestIdReused)?);
    if row.resource_id.is_empty() {
        return Err(StoreError::Corrupt("a request id without its resource"));
    }
    Ok(Some(CreationOutcome::Repeated {
        resource_id: row.resource_id,
        secrets: Derivation {
            key,
            nonce,
            request_id,
        },
    }))
}

fn request_key(key: &DataKey, creation: &Creation, request_id: Uuid) -> [u8; 32] {
    let principal = creation.origin.actor.id.as_bytes();
    key.hmac(&[b"request", principal, request_id.as_bytes()])
}

fn content_mac(key: &DataKey, creation: &Creation) -> [u8; 32] {
    key.hmac(&[b"content", creation.method.as_bytes(), &creation.content])
}

/// Deletes rows that are a day old, and nonces that are ten minutes old. Returns how many nonces and how many rows it
/// deleted. Any replica may call it at any time: [`begin`] checks the age of a row itself.
pub async fn delete_expired(db: &Database, now: UnixMillis) -> Result<(u64, u64), StoreError> {
    let is_old = row::Column::CreatedAt.lte(now.minus(REJECTION_WINDOW).as_millis());
    let rows = delete_where::<row::Entity>(db, is_old).await?;
    let tx = db.write().await?;
    let nonces = row::Entity::update_many()
        .col_expr(row::Column::Nonce, Expr::value(Option::<Vec<u8>>::None))
        .filter(row::Column::CreatedAt.lte(now.minus(REPEAT_WINDOW).as_millis()))
        .filter(row::Column::Nonce.is_not_null())
        .exec(&tx)
        .await?;
    tx.commit().await?;
    Ok((nonces.rows_affected, rows))
}

#[cfg(test)]
#[path = "tests/idempotency.rs"]
mod tests;
