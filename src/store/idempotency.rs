//! Request ids: the same id with the same content gives the same answer, its secrets included,
//! without a secret or a plaintext id at rest.
//!
//! A row keeps a nonce, an HMAC of who asked under which id, and an HMAC of what was asked. A
//! secret is HKDF(data key, nonce, label and id): whoever lacks the id can't rebuild it, not even
//! with the database and the master key. Ten minutes later [`sweep`] takes the nonce away.

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DatabaseBackend, DatabaseTransaction, QuerySelect, entity::prelude::*,
};
use sea_orm_migration::{
    SchemaManager,
    prelude::{ColumnDef, Expr, Index, OnConflict, Table},
};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Database, StoreError};
use crate::keys::{DataKey, KeyError, Keyring};
use crate::{
    clock::{Clock, UnixMillis},
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
        /// Empty until the reservation is complete, which other transactions never see.
        pub resource_id: String,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The purpose for which a service's keyring has to be opened.
pub const KEYRING_PURPOSE: &str = "idempotency";
/// How long the same request gets the same answer.
pub const REPLAY_WINDOW: Duration = Duration::from_secs(10 * 60);
/// How long an id is refused to other requests, and after the replay window to all.
pub const REFUSAL_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

const NONCE_LENGTH: usize = 32;
/// An insert that is refused by a row which is gone when we look is tried again; more than a few
/// times in a row can't happen.
const ATTEMPTS: usize = 8;

/// A request that creates something.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Who asks. Ids of different principals don't meet.
    pub principal: &'a str,
    /// The full name of the method.
    pub method: &'static str,
    /// The caller's id for the request, if it sent one.
    pub request_id: Option<Uuid>,
    /// All that decides the answer, in a form that is the same for the same request.
    pub content: &'a [u8],
}

/// What to do with a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is new: create, then [`Reservation::complete`].
    New(Reservation),
    /// It was answered: answer the same again.
    Replay {
        /// The id of what the first call created.
        resource_id: String,
        /// Gives the secrets of the first call.
        secrets: Derivation,
    },
}

/// The right to answer a request, until its transaction ends.
#[derive(Debug)]
#[must_use = "a reservation that is not completed can't be replayed"]
pub struct Reservation {
    /// Gives the secrets of this request.
    pub secrets: Derivation,
    request_key: Option<[u8; 32]>,
}

impl Reservation {
    /// Writes down what the request created, an id that isn't empty.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when `tx` isn't the transaction that began the request.
    pub async fn complete(self, tx: &DatabaseTransaction, resource_id: &str) -> Result<(), StoreError> {
        let Some(request_key) = self.request_key else {
            return Ok(());
        };
        let changed = row::Entity::update_many()
            .col_expr(row::Column::ResourceId, Expr::value(resource_id))
            .filter(row::Column::RequestKey.eq(request_key.to_vec()))
            .exec(tx)
            .await?;
        match changed.rows_affected {
            1 => Ok(()),
            _ => Err(StoreError::Corrupt("a reserved request id is missing")),
        }
    }
}

/// Derives the secrets of one request. `Debug` shows nothing.
pub struct Derivation {
    key: DataKey,
    nonce: Zeroizing<Vec<u8>>,
    request_id: Uuid,
}

impl Derivation {
    /// 256 bits for a label such as `client_secret`; the same label gives the same bytes, for the
    /// first answer and for every replay.
    pub fn secret(&self, label: &str) -> Zeroizing<[u8; 32]> {
        self.key
            .derive(&self.nonce, &[label.as_bytes(), self.request_id.as_bytes()])
    }

    /// The version of the data key behind the secrets.
    pub fn key_version(&self) -> i32 {
        self.key.version()
    }
}

impl std::fmt::Debug for Derivation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derivation([redacted])")
    }
}

/// Why a request can't go on.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The id was used for other content, or more than ten minutes ago.
    #[error("the request id was used before")]
    Reused,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeyError> for IdempotencyError {
    fn from(error: KeyError) -> Self {
        Self::Store(error.into())
    }
}

impl From<DbErr> for IdempotencyError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// Finds out whether a request is new: the first statement of the transaction that creates.
///
/// Of racing callers with one id, one is told that it is new; the others wait for its transaction
/// and then replay, or one of them is new if that transaction was rolled back. Without a caller's
/// id nothing is written, and the secrets are lost with the answer.
///
/// # Errors
/// [`IdempotencyError::Reused`]; what the database or the keyring says.
pub async fn begin(
    tx: &DatabaseTransaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    random: &dyn Random,
    request: &Request<'_>,
) -> Result<Outcome, IdempotencyError> {
    let current = keyring.current(KEYRING_PURPOSE)?;
    let mut nonce = Zeroizing::new(vec![0; NONCE_LENGTH]);
    random.fill(&mut nonce);

    let Some(request_id) = request.request_id else {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let request_id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let secrets = Derivation {
            key: current.clone(),
            nonce,
            request_id,
        };
        return Ok(Outcome::New(Reservation {
            secrets,
            request_key: None,
        }));
    };

    // A request from before a rotation of the data key lies under the older key.
    for key in keyring.versions(KEYRING_PURPOSE).skip(1) {
        if let Some(row) = find(tx, &request_key(key, request, request_id)).await?
            && let Some(outcome) = judge(tx, keyring, clock, request, request_id, row).await?
        {
            return Ok(outcome);
        }
    }

    let request_key = request_key(current, request, request_id);
    for _ in 0..ATTEMPTS {
        let row = row::ActiveModel {
            request_key: Set(request_key.to_vec()),
            content: Set(content_mac(current, request).to_vec()),
            nonce: Set(Some(nonce.to_vec())),
            key_version: Set(current.version()),
            resource_id: Set(String::new()),
            created_at: Set(clock.now().as_millis()),
        };
        let inserted = row::Entity::insert(row)
            .on_conflict(
                OnConflict::column(row::Column::RequestKey)
                    .do_nothing()
                    .to_owned(),
            )
            .exec_without_returning(tx)
            .await?;
        if inserted == 1 {
            let secrets = Derivation {
                key: current.clone(),
                nonce,
                request_id,
            };
            return Ok(Outcome::New(Reservation {
                secrets,
                request_key: Some(request_key),
            }));
        }
        if let Some(row) = find(tx, &request_key).await?
            && let Some(outcome) = judge(tx, keyring, clock, request, request_id, row).await?
        {
            return Ok(outcome);
        }
    }
    Err(StoreError::Unavailable.into())
}

/// Decides about a row of an earlier request; `None` after deleting a row that is a day old.
async fn judge(
    tx: &DatabaseTransaction,
    keyring: &Keyring,
    clock: &dyn Clock,
    request: &Request<'_>,
    request_id: Uuid,
    row: row::Model,
) -> Result<Option<Outcome>, IdempotencyError> {
    let age = clock.now().since(UnixMillis::from_millis(row.created_at));
    if age >= REFUSAL_WINDOW {
        row::Entity::delete_by_id(row.request_key).exec(tx).await?;
        return Ok(None);
    }
    let key = keyring.require(KEYRING_PURPOSE, row.key_version)?;
    let same_content = content_mac(key, request).ct_eq(&row.content);
    let nonce = row.nonce.filter(|_| age < REPLAY_WINDOW);
    match nonce {
        Some(nonce) if bool::from(same_content) => {
            if row.resource_id.is_empty() {
                return Err(StoreError::Corrupt("a request id without its resource").into());
            }
            let nonce = Zeroizing::new(nonce);
            let secrets = Derivation {
                key: key.clone(),
                nonce,
                request_id,
            };
            Ok(Some(Outcome::Replay {
                resource_id: row.resource_id,
                secrets,
            }))
        }
        _ => Err(IdempotencyError::Reused),
    }
}

/// The row, locked against [`sweep`] where rows have locks.
async fn find(tx: &DatabaseTransaction, key: &[u8; 32]) -> Result<Option<row::Model>, StoreError> {
    let mut find = row::Entity::find_by_id(key.to_vec());
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        find = find.lock_exclusive();
    }
    Ok(find.one(tx).await?)
}

fn request_key(key: &DataKey, request: &Request<'_>, request_id: Uuid) -> [u8; 32] {
    key.hmac(&[b"request", request.principal.as_bytes(), request_id.as_bytes()])
}

fn content_mac(key: &DataKey, request: &Request<'_>) -> [u8; 32] {
    key.hmac(&[b"content", request.method.as_bytes(), request.content])
}

/// What [`sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows whose nonce went: their secrets can't be derived any more.
    pub nonces: u64,
    /// Rows that went: their ids may be used anew.
    pub rows: u64,
}

/// Takes away the nonces that are ten minutes old and the rows that are a day old. Any replica may
/// run it at any time; every minute is often enough, since [`begin`] looks at the age itself.
///
/// # Errors
/// What the database says.
pub async fn sweep(db: &Database, now: UnixMillis) -> Result<Swept, StoreError> {
    let tx = db.write().await?;
    let expired = row::Entity::delete_many()
        .filter(row::Column::CreatedAt.lte(now.minus(REFUSAL_WINDOW).as_millis()))
        .exec(&tx)
        .await?;
    let forgotten = row::Entity::update_many()
        .col_expr(row::Column::Nonce, Expr::value(Option::<Vec<u8>>::None))
        .filter(row::Column::CreatedAt.lte(now.minus(REPLAY_WINDOW).as_millis()))
        .filter(row::Column::Nonce.is_not_null())
        .exec(&tx)
        .await?;
    tx.commit().await?;
    Ok(Swept {
        nonces: forgotten.rows_affected,
        rows: expired.rows_affected,
    })
}

/// Creates `idempotency`.
///
/// # Errors
/// What the database says.
pub async fn create_table(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    use row::Column;

    let table = Table::create()
        .table(row::Entity)
        .col(ColumnDef::new(Column::RequestKey).blob().not_null().primary_key())
        .col(ColumnDef::new(Column::Content).blob().not_null())
        .col(ColumnDef::new(Column::Nonce).blob())
        .col(ColumnDef::new(Column::KeyVersion).integer().not_null())
        .col(ColumnDef::new(Column::ResourceId).text().not_null())
        .col(ColumnDef::new(Column::CreatedAt).big_integer().not_null())
        .to_owned();
    manager.create_table(table).await?;
    let by_age = Index::create()
        .name("idempotency_created_at")
        .table(row::Entity)
        .col(Column::CreatedAt)
        .to_owned();
    manager.create_index(by_age).await
}

#[cfg(test)]
#[path = "tests/idempotency.rs"]
mod tests;
