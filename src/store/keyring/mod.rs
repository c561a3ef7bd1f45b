//! The table `keyring`: one row for each purpose and version of a data key, wrapped by a master key.
//!
//! A new version is distributed first and used later: it seals nothing before `activate_at`, and until then every
//! replica has read it (see [`SharedKeyring`]). A rotation of the master key wraps these rows again and changes nothing
//! else.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use sea_orm::{ActiveValue::Set, QueryOrder, entity::prelude::*};
use sea_orm_migration::prelude::OnConflict;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    Database, StoreError,
    audit::{self, Event, Origin, action},
    change, rows,
};
use crate::{
    clock::{Clock, UnixMillis},
    keys::{DataKey, KEY_LENGTH, KeyError, Keyring, MasterKey, MasterKeys},
    metrics::DATA_KEY_CREATED,
    random::Random,
};

mod shared;

use shared::MAX_AGE;
pub use shared::{READ_EVERY, SharedKeyring};

/// How long a new version waits before its first use. Every replica reads it within 30 seconds; the rest is for
/// clocks that differ.
pub const DISTRIBUTION: Duration = Duration::from_secs(60);

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
        pub activate_at: i64,
    }

    crate::no_relations!();
}

/// Opens all versions of these purposes. Creates the first version of a purpose that has none; racing replicas get
/// the same keys. If [`audit::KEYRING_PURPOSE`] is one of them, they make and check the MACs of `db` from then on. With
/// [`rows::KEYRING_PURPOSE`], creates the change feed of a new database.
///
/// # Errors
/// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] if none of `masters` wraps them.
pub async fn open(
    db: &Database,
    masters: &MasterKeys,
    purposes: &[&'static str],
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Keyring, StoreError> {
    let read_at = Instant::now();
    let mut rows = read(db, purposes).await?;
    let is_missing = |purpose: &str| !rows.iter().any(|row| row.purpose == purpose);
    let missing: Vec<_> = purposes.iter().filter(|purpose| is_missing(purpose)).collect();
    if !missing.is_empty() {
        let master = wrapping(masters, &rows)?;
        let (now, mut new) = (clock.now(), Vec::new());
        for purpose in missing {
            let context = context(masters, purpose, 1);
            let wrapped = wrap_new(&*master, &context, random).await?;
            new.push(new_row((purpose, 1), wrapped, master.id(), (now, now)));
        }
        let tx = db.write().await?;
        let key = [row::Column::Purpose, row::Column::Version];
        row::Entity::insert_many(new)
            .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
            .exec_without_returning(&tx)
            .await?;
        tx.commit().await?;
        rows = read(db, purposes).await?;
    }

    let mut keyring = Keyring::new(purposes);
    for row in rows {
        record_age(&row);
        let key = DataKey::new(row.version, &unwrap_row(masters, &row).await?)?;
        keyring.insert(&row.purpose, key, is_active(&row, clock.now()));
    }
    // All versions were opened: a row that names another one is forged.
    keyring.set_table(read_at + MAX_AGE, []);
    use_for_macs(db, purposes, &keyring);
    // In a database with events the counter is not created again: somebody has removed it.
    if purposes.contains(&rows::KEYRING_PURPOSE) && !audit::is_begun(db.read()).await? {
        change::ensure(db, random).await?;
    }
    Ok(keyring)
}

/// Lets the keys make and check the MACs of a database, if they are for that.
fn use_for_macs(db: &Database, purposes: &[&'static str], keyring: &Keyring) {
    if purposes.contains(&audit::KEYRING_PURPOSE) {
        db.use_keys(Arc::new(keyring.clone()));
    }
}

/// Records when the key of a row was created. Of the rows of a purpose the last one counts.
fn record_age(row: &row::Model) {
    let created = gauge!(DATA_KEY_CREATED, "purpose" => row.purpose.clone());
    created.set(row.created_at as f64 / 1e3);
}

/// Checks that one of `masters` wraps every key that exists. Creates none.
///
/// # Errors
/// As [`open`].
pub async fn check(db: &Database, masters: &MasterKeys) -> Result<(), StoreError> {
    for row in row::Entity::find().all(db.read()).await? {
        unwrap_row(masters, &row).await?;
    }
    Ok(())
}

/// Adds a random key of the next version to a purpose, and returns that version. Replicas use it [`DISTRIBUTION`] later.
///
/// # Errors
/// [`StoreError::Conflict`] if another rotation won the race.
pub async fn add_version(
    db: &Database,
    masters: &MasterKeys,
    purpose: &str,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<i32, StoreError> {
    let rows = row::Entity::find()
        .filter(row::Column::Purpose.eq(purpose))
        .order_by_asc(row::Column::Version)
        .all(db.read())
        .await?;
    let version = rows.last().map_or(1, |row| row.version + 1);
    let (now, master) = (clock.now(), wrapping(masters, &rows)?);
    let context = context(masters, purpose, version);
    let wrapped = wrap_new(&*master, &context, random).await?;
    let times = (now, now.plus(DISTRIBUTION));
    let row = new_row((purpose, version), wrapped, master.id(), times);
    let tx = db.write().await?;
    let written = row::Entity::insert(row).exec_without_returning(&tx).await?;
    rows::all_written("keyring", written, 1)?;
    let event = Event::new(action::DATA_KEY_ROTATE)
        .subject(purpose)
        .detail("version", version.to_string());
    audit::record(&tx, clock, random, &Origin::system("command-line"), event).await;
    tx.commit().await?;
    Ok(version)
}

/// Wraps every row with `new` instead of one of `masters`, in one transaction, and returns how many changed. Skips rows
/// that `new` wraps already, so that it can be repeated after a service with the old key added a row. Does not rely on
/// what `new` wrapped before it has unwrapped it again.
///
/// # Errors
/// [`KeyError::OtherMasterKey`] or [`KeyError::Sealed`] for a row that none of the keys wraps, and [`KeyError::Token`];
/// then nothing changes. [`StoreError::Busy`] if somebody changed a row meanwhile.
pub async fn rewrap(
    db: &Database,
    masters: &MasterKeys,
    new: &dyn MasterKey,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<usize, StoreError> {
    let rows = row::Entity::find()
        .filter(row::Column::MasterKeyId.ne(new.id()))
        .all(db.read())
        .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    // A token may be slow, and others wait for a transaction that writes.
    let mut rewrapped = Vec::new();
    for row in &rows {
        let key = unwrap_row(masters, row).await?;
        let context = context(masters, &row.purpose, row.version);
        let wrapped = new.wrap(random, &key, &context).await?;
        if new.unwrap(&wrapped, &context).await? != key {
            return Err(KeyError::Sealed.into());
        }
        rewrapped.push(wrapped);
    }
    let tx = db.write().await?;
    for (row, wrapped) in rows.iter().zip(rewrapped) {
        let changed = row::Entity::update_many()
            .filter(row::Column::Purpose.eq(&*row.purpose))
            .filter(row::Column::Version.eq(row.version))
            .filter(row::Column::MasterKeyId.eq(&*row.master_key_id))
            .col_expr(row::Column::Wrapped, wrapped.into())
            .col_expr(row::Column::MasterKeyId, new.id().into())
            .exec(&tx)
            .await?;
        if changed.rows_affected != 1 {
            return Err(StoreError::Busy);
        }
    }
    let event = Event::new(action::MASTER_KEY_ROTATE)
        .subject(new.id())
        .detail("data_keys", rows.len().to_string());
    audit::record(&tx, clock, random, &Origin::system("command-line"), event).await;
    tx.commit().await?;
    Ok(rows.len())
}

/// Reads the rows of these purposes, the oldest first.
async fn read(db: &Database, purposes: &[&'static str]) -> Result<Vec<row::Model>, StoreError> {
    let rows = row::Entity::find()
        .filter(row::Column::Purpose.is_in(purposes.iter().copied()))
        .order_by_asc(row::Column::CreatedAt)
        .all(db.read())
        .await?;
    Ok(rows)
}

/// Returns the master key for a new row: that of the newest row, which a rotation may have wrapped with the new key.
fn wrapping(masters: &MasterKeys, rows: &[row::Model]) -> Result<Arc<dyn MasterKey>, KeyError> {
    masters.preferred(rows.last().map(|row| &*row.master_key_id))
}

fn is_active(row: &row::Model, now: UnixMillis) -> bool {
    UnixMillis::from_millis(row.activate_at) <= now
}

/// Makes a random data key, and wraps it.
async fn wrap_new(master: &dyn MasterKey, context: &[u8], random: &dyn Random) -> Result<Vec<u8>, KeyError> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    random.fill(key.as_mut_slice());
    master.wrap(random, key.as_slice(), context).await
}

fn new_row(
    (purpose, version): (&str, i32),
    wrapped: Vec<u8>,
    master_key_id: String,
    (created_at, activate_at): (UnixMillis, UnixMillis),
) -> row::ActiveModel {
    row::ActiveModel {
        purpose: Set(purpose.to_owned()),
        version: Set(version),
        wrapped: Set(wrapped),
        master_key_id: Set(master_key_id),
        created_at: Set(created_at.as_millis()),
        activate_at: Set(activate_at.as_millis()),
    }
}

async fn unwrap_row(masters: &MasterKeys, row: &row::Model) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let context = context(masters, &row.purpose, row.version);
    masters.unwrap(&row.master_key_id, &row.wrapped, &context).await
}

/// Returns the context that binds a wrapped key to its row and service, so that it opens in no other row, and in no row of
/// another service's database.
fn context(masters: &MasterKeys, purpose: &str, version: i32) -> Vec<u8> {
    let service = masters.service().as_bytes();
    let length = (service.len() as u64).to_be_bytes();
    let version = version.to_be_bytes();
    let label: &[u8] = b"accord keyring";
    [label, &version, &length, service, purpose.as_bytes()].concat()
}

#[cfg(test)]
#[path = "../tests/keyring.rs"]
mod tests;
