//! The table `keyring`: one row for each purpose and version of a data key, wrapped by the master key.
//!
//! A rotation of the master key wraps these rows again and changes nothing else.

use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect, entity::prelude::*};
use sea_orm_migration::prelude::OnConflict;
use zeroize::Zeroizing;

use super::{Database, StoreError};
use crate::{
    clock::Clock,
    keys::{DataKey, KEY_LENGTH, KeyError, Keyring, MasterKey},
    random::Random,
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

/// Opens all versions of these purposes. Creates the first version of a purpose that has none; racing replicas get
/// the same keys.
///
/// # Errors
/// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] if `master` does not wrap them.
pub async fn open(
    db: &Database,
    master: &dyn MasterKey,
    purposes: &[&'static str],
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Keyring, StoreError> {
    let find = || row::Entity::find().filter(row::Column::Purpose.is_in(purposes.iter().copied()));
    let mut rows = find().all(db.read()).await?;
    let is_missing = |purpose: &str| !rows.iter().any(|row| row.purpose == purpose);
    let missing: Vec<_> = purposes.iter().filter(|purpose| is_missing(purpose)).collect();
    if !missing.is_empty() {
        let tx = db.write().await?;
        for purpose in missing {
            let row = new_row(master, purpose, 1, clock, random)?;
            let key = [row::Column::Purpose, row::Column::Version];
            row::Entity::insert(row)
                .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
                .exec_without_returning(&tx)
                .await?;
        }
        tx.commit().await?;
        rows = find().all(db.read()).await?;
    }

    let mut keyring = Keyring::new(purposes);
    for row in rows {
        let key = DataKey::new(row.version, &unwrap_row(master, &row)?)?;
        keyring.insert(&row.purpose, key);
    }
    Ok(keyring)
}

/// Checks that `master` wraps every key that exists. Creates none.
///
/// # Errors
/// As [`open`].
pub async fn check(db: &Database, master: &dyn MasterKey) -> Result<(), StoreError> {
    for row in row::Entity::find().all(db.read()).await? {
        unwrap_row(master, &row)?;
    }
    Ok(())
}

/// Adds a random key of the next version to a purpose, and returns that version. A keyring in memory must be opened
/// again to have it.
///
/// # Errors
/// [`StoreError::Conflict`] if another rotation won the race.
pub async fn add_version(
    db: &Database,
    master: &dyn MasterKey,
    purpose: &str,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<i32, StoreError> {
    let tx = db.write().await?;
    let newest = row::Entity::find()
        .filter(row::Column::Purpose.eq(purpose))
        .order_by_desc(row::Column::Version)
        .one(&tx)
        .await?;
    let version = newest.map_or(1, |row| row.version + 1);
    let row = new_row(master, purpose, version, clock, random)?;
    row::Entity::insert(row).exec_without_returning(&tx).await?;
    tx.commit().await?;
    Ok(version)
}

/// Wraps every row with `new` instead of `old` in one transaction, and returns how many changed. Skips rows that `new`
/// wraps already, so that it can be repeated after a service with the old key added a row.
///
/// # Errors
/// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] for a row that neither key wraps; then nothing changes.
pub async fn rewrap(
    db: &Database,
    old: &dyn MasterKey,
    new: &dyn MasterKey,
    random: &dyn Random,
) -> Result<usize, StoreError> {
    let tx = db.write().await?;
    let rows = row::Entity::find()
        .filter(row::Column::MasterKeyId.ne(new.id()))
        .lock_exclusive()
        .all(&tx)
        .await?;
    let count = rows.len();
    for row in rows {
        let key = unwrap_row(old, &row)?;
        let wrapped = new.wrap(random, &key, &context(&row.purpose, row.version))?;
        let changed = row::ActiveModel {
            wrapped: Set(wrapped),
            master_key_id: Set(new.id()),
            ..row.into()
        };
        row::Entity::update(changed).exec(&tx).await?;
    }
    tx.commit().await?;
    Ok(count)
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
    let (wrapped_by, given) = (row.master_key_id.clone(), master.id());
    if wrapped_by != given {
        return Err(KeyError::OtherMasterKey { wrapped_by, given });
    }
    master.unwrap(&row.wrapped, &context(&row.purpose, row.version))
}

/// Returns the context that binds a wrapped key to its row, so that it does not open in another row.
fn context(purpose: &str, version: i32) -> Vec<u8> {
    [b"accord keyring", &version.to_be_bytes()[..], purpose.as_bytes()].concat()
}

#[cfg(test)]
#[path = "tests/keyring.rs"]
mod tests;
