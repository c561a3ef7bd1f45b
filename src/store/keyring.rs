//! The keyring: random data keys, a row per purpose and version, wrapped by the master key.
//!
//! Rows that hold something sealed or hashed name the version that did it. Rotating the master key
//! re-wraps these rows and touches nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
};

use sea_orm::{ActiveValue::Set, ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};
use sea_orm_migration::{
    SchemaManager,
    prelude::{ColumnDef, Index, OnConflict, Table},
};
use zeroize::Zeroizing;

use super::{Database, StoreError};
use crate::keys::data_key::KEY_LENGTH;
use crate::{clock::Clock, random::Random};

pub use crate::keys::{
    data_key::DataKey,
    master_key::{FileMasterKey, MasterKey},
};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "keyring")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub purpose: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: i32,
        pub wrapped: Vec<u8>,
        pub master_key_id: String,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What can go wrong with keys. Shows no key and nothing that one protects.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// A sealed value doesn't open: another key made it, for another context, or it was altered.
    #[error("a sealed value does not open with this key")]
    Sealed,
    /// More plaintext than the cipher takes.
    #[error("the plaintext is too long to seal")]
    TooLong,
    /// The keyring was opened without this purpose: an error of the program.
    #[error("the keyring was not opened for the purpose `{0}`")]
    NotOpened(String),
    /// A row names a version that was not there when the keyring was opened; opening it again
    /// finds a key that another replica has made since.
    #[error("the keyring has no version {version} for the purpose `{purpose}`")]
    UnknownVersion {
        /// The purpose asked for.
        purpose: String,
        /// The version asked for.
        version: i32,
    },
    /// The keyring is wrapped by another master key than the one given.
    #[error("the keyring is wrapped by the master key `{wrapped_by}`, not by `{given}`")]
    OtherMasterKey {
        /// Id of the key that wraps the row.
        wrapped_by: String,
        /// Id of the key that was given.
        given: String,
    },
    /// The master key's file can't be read or written.
    #[error("the master key file: {0}")]
    File(io::ErrorKind),
    /// The master key's file is open to its group or to others.
    #[error("the master key file must be readable by its owner alone (mode 0600)")]
    FilePermissions,
    /// The master key's file isn't a key.
    #[error("the master key file must hold exactly 32 bytes")]
    FileLength,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<io::Error> for KeyError {
    fn from(error: io::Error) -> Self {
        Self::File(error.kind())
    }
}

impl From<DbErr> for KeyError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// The data keys of some purposes, unwrapped in memory. `Debug` names purposes and versions.
pub struct Keyring {
    keys: HashMap<&'static str, BTreeMap<i32, DataKey>>,
}

impl Keyring {
    /// Reads all versions of these purposes, after making the first version of those that have
    /// none. Racing replicas end with the same keys.
    ///
    /// # Errors
    /// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] when `master` isn't the key that wraps
    /// them; what the database says.
    pub async fn open(
        db: &Database,
        master: &dyn MasterKey,
        purposes: &[&'static str],
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, KeyError> {
        let mut rows = read_rows(db.read(), purposes).await?;
        let missing: Vec<_> = purposes
            .iter()
            .filter(|purpose| !rows.iter().any(|row| row.purpose == **purpose))
            .collect();
        if !missing.is_empty() {
            let tx = db.write().await?;
            for purpose in missing {
                let row = new_row(master, purpose, 1, clock, random)?;
                row::Entity::insert(row)
                    .on_conflict(primary_key().do_nothing().to_owned())
                    .exec_without_returning(&tx)
                    .await?;
            }
            tx.commit().await?;
            rows = read_rows(db.read(), purposes).await?;
        }

        let mut keys: HashMap<_, BTreeMap<_, _>> = purposes
            .iter()
            .map(|purpose| (*purpose, BTreeMap::new()))
            .collect();
        for row in rows {
            let key = DataKey::new(row.version, &unwrap_row(master, &row)?)?;
            if let Some(versions) = keys.get_mut(row.purpose.as_str()) {
                versions.insert(row.version, key);
            }
        }
        Ok(Self { keys })
    }

    /// The newest key of a purpose, with which new things are made.
    ///
    /// # Errors
    /// [`KeyError::NotOpened`].
    pub fn current(&self, purpose: &str) -> Result<&DataKey, KeyError> {
        self.versions(purpose)
            .next()
            .ok_or_else(|| KeyError::NotOpened(purpose.to_owned()))
    }

    /// The key that made something, by the version that it names. `None` also for a purpose that
    /// wasn't opened.
    pub fn version(&self, purpose: &str, version: i32) -> Option<&DataKey> {
        self.keys.get(purpose)?.get(&version)
    }

    /// As [`version`](Self::version), for callers that can't go on without the key.
    ///
    /// # Errors
    /// [`KeyError::UnknownVersion`].
    pub fn require(&self, purpose: &str, version: i32) -> Result<&DataKey, KeyError> {
        self.version(purpose, version)
            .ok_or_else(|| KeyError::UnknownVersion {
                purpose: purpose.to_owned(),
                version,
            })
    }

    /// All keys of a purpose, the newest first; none for a purpose that wasn't opened.
    pub fn versions(&self, purpose: &str) -> impl Iterator<Item = &DataKey> {
        self.keys
            .get(purpose)
            .into_iter()
            .flat_map(|versions| versions.values().rev())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = |keys: &BTreeMap<i32, DataKey>| keys.keys().copied().collect::<Vec<_>>();
        f.debug_map()
            .entries(self.keys.iter().map(|(p, keys)| (p, versions(keys))))
            .finish()
    }
}

/// Rotates the data key of a purpose: adds a random key of the next version, and returns that
/// version. Keyrings that are open don't see it before they are opened again.
///
/// # Errors
/// [`KeyError::Store`] with [`StoreError::Conflict`] when another rotation won the race; what the
/// database says.
pub async fn add_version(
    db: &Database,
    master: &dyn MasterKey,
    purpose: &str,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<i32, KeyError> {
    let tx = db.write().await?;
    let newest = row::Entity::find()
        .filter(row::Column::Purpose.eq(purpose))
        .order_by_desc(row::Column::Version)
        .one(&tx)
        .await?;
    let version = newest.map_or(1, |row| row.version + 1);
    let row = new_row(master, purpose, version, clock, random)?;
    row::Entity::insert(row).exec_without_returning(&tx).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(version)
}

/// Rotates the master key: re-wraps every row from `old` to `new` in one transaction, and returns
/// how many. Rows that `new` wraps already stay, so it may be repeated, for instance after a
/// service that still had the old key added a row.
///
/// # Errors
/// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] for a row that neither key wraps; then
/// nothing is changed.
pub async fn rewrap(
    db: &Database,
    old: &dyn MasterKey,
    new: &dyn MasterKey,
    random: &dyn Random,
) -> Result<usize, KeyError> {
    let tx = db.write().await?;
    let mut find = row::Entity::find();
    if tx.get_database_backend() == sea_orm::DatabaseBackend::Postgres {
        find = find.lock_exclusive();
    }
    let mut count = 0;
    for row in find.all(&tx).await? {
        if row.master_key_id == new.id() {
            continue;
        }
        let key = unwrap_row(old, &row)?;
        let wrapped = new.wrap(random, &key, &context(&row.purpose, row.version))?;
        let changed = row::ActiveModel {
            wrapped: Set(wrapped),
            master_key_id: Set(new.id()),
            ..row.into()
        };
        row::Entity::update(changed).exec(&tx).await?;
        count += 1;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(count)
}

async fn read_rows(conn: &impl ConnectionTrait, purposes: &[&str]) -> Result<Vec<row::Model>, StoreError> {
    let find = row::Entity::find().filter(row::Column::Purpose.is_in(purposes.iter().copied()));
    Ok(find.all(conn).await?)
}

fn new_row(
    master: &dyn MasterKey,
    purpose: &str,
    version: i32,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<row::ActiveModel, KeyError> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    random.fill(key.as_mut_slice());
    Ok(row::ActiveModel {
        purpose: Set(purpose.to_owned()),
        version: Set(version),
        wrapped: Set(master.wrap(random, key.as_slice(), &context(purpose, version))?),
        master_key_id: Set(master.id()),
        created_at: Set(clock.now().as_millis()),
    })
}

fn unwrap_row(master: &dyn MasterKey, row: &row::Model) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if row.master_key_id != master.id() {
        let wrapped_by = row.master_key_id.clone();
        return Err(KeyError::OtherMasterKey {
            wrapped_by,
            given: master.id(),
        });
    }
    master.unwrap(&row.wrapped, &context(&row.purpose, row.version))
}

/// Binds a wrapped key to its row: it doesn't open in the place of another.
fn context(purpose: &str, version: i32) -> Vec<u8> {
    [b"accord keyring", &version.to_be_bytes()[..], purpose.as_bytes()].concat()
}

fn primary_key() -> OnConflict {
    OnConflict::columns([row::Column::Purpose, row::Column::Version])
}

/// Creates `keyring`.
///
/// # Errors
/// What the database says.
pub async fn create_table(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    use row::Column;

    let table = Table::create()
        .table(row::Entity)
        .col(ColumnDef::new(Column::Purpose).text().not_null())
        .col(ColumnDef::new(Column::Version).integer().not_null())
        .col(ColumnDef::new(Column::Wrapped).blob().not_null())
        .col(ColumnDef::new(Column::MasterKeyId).text().not_null())
        .col(ColumnDef::new(Column::CreatedAt).big_integer().not_null())
        .primary_key(Index::create().col(Column::Purpose).col(Column::Version))
        .to_owned();
    manager.create_table(table).await
}

#[cfg(test)]
#[path = "tests/keyring.rs"]
mod tests;
