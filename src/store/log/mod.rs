//! The Merkle logs of an audit record: their heads, signed checkpoints and tiles, and the lease of the sealer that extends
//! them. Knows no event: whoever seals brings leaf hashes.
//!
//! A database has one open log. A resume after a fault, or a new epoch, starts the next one; older logs stay, so that what
//! they prove can still be proven.
//!
//! 1. A replica takes the [`Lease`].
//! 2. It commits a head with [`Seal::commit`]: tiles, size, root and position change in one transaction, under the condition
//!    that the lease is still its own and the head is the one that it has read.
//! 3. [`sign_heads`] signs what is committed. If the process is killed before this step, the next sealer signs the same head.

use sea_orm::{ActiveValue::Set, QueryOrder, entity::prelude::*};
use sea_orm_migration::{DbErr, SchemaManager, prelude::Expr, schema::*};
use subtle::ConstantTimeEq;

use super::{StoreError, Transaction, change, create_table, rows::all_written};
use crate::{
    clock::UnixMillis,
    keys::{DataKey, KeyError, Keyring},
    text::parts::with_lengths,
    tlog::{Hash, Origin, Signer, TreeHead},
};

mod heads;
mod lease;
mod tiles;

use heads::head;
pub use heads::{SignedHead, delete_heads_before, latest, sign_heads, signed_head};
pub(super) use lease::take as take_lease;
pub use lease::{Election, LEASE, Lease, RENEW_EVERY};
pub use tiles::{InclusionProof, Recomputed, consistency_proof, inclusion_proof, leaves, root};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_logs")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub log_id: i64,
        pub origin: String,
        pub key_version: i32,
        pub size: i64,
        pub root: Vec<u8>,
        pub position: String,
        pub started_at: i64,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();
}

/// The purpose of the data key that a log's signing key derives from. A service that seals opens its keyring for it.
pub const KEYRING_PURPOSE: &str = "audit-log";

/// What the seed of a signing key is derived for.
const SEED: &[u8] = b"ed25519 seed";

/// Creates the tables of this module.
pub(super) async fn create_tables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        big_integer("log_id"),
        text_uniq("origin"),
        integer("key_version"),
        big_integer("size"),
        blob("root"),
        text("position"),
        big_integer("started_at"),
        blob("mac"),
    ];
    create_table(manager, "audit_logs", &["log_id"], columns).await?;

    let columns = [
        big_integer("log_id"),
        big_integer("size"),
        blob("root"),
        text_null("checkpoint"),
        big_integer("generation"),
        big_integer("sealed_at"),
        blob("mac"),
    ];
    create_table(manager, "audit_checkpoints", &["log_id", "size"], columns).await?;
    tiles::create_table(manager).await?;
    lease::create_table(manager).await
}

/// A log and its committed head.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The number of the log in this database: 1 for the first.
    pub log_id: i64,
    /// The log's name, which its checkpoints hold.
    pub origin: Origin,
    /// The version of the data key that the log's signing key derives from. It stays the same for the life of the log.
    pub key_version: i32,
    /// The committed head, signed or not.
    pub head: TreeHead,
    /// How far the record is in the log. Only the sealer knows what the text means.
    pub position: String,
    /// When the log was started.
    pub started_at: UnixMillis,
    /// Shows that a holder of the keys has written the row.
    mac: Vec<u8>,
}

impl Log {
    /// Returns the data key of the log's version. The log's signing key and the MACs of its rows derive from it.
    ///
    /// # Errors
    /// [`KeyError::UnknownVersion`] if the keyring does not hold it.
    pub fn key<'a>(&self, keyring: &'a Keyring) -> Result<&'a DataKey, KeyError> {
        keyring.require(KEYRING_PURPOSE, self.key_version)
    }

    /// Checks that a holder of the keys has written this log, its head and its position.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn check(&self, key: &DataKey) -> Result<(), StoreError> {
        check_mac(&self.mac, self.expected_mac(key), "a row of audit_logs")
    }

    /// Returns whether a holder of the keys has written this log, by the key of its version.
    pub fn is_authentic(&self, keyring: &Keyring) -> bool {
        self.key(keyring).is_ok_and(|key| self.check(key).is_ok())
    }

    /// Returns the content of the log's row: what may not change once the log has ended.
    pub(super) fn content(&self) -> Vec<u8> {
        let texts = [self.origin.as_str(), &self.position].map(str::as_bytes);
        let numbers = [
            self.head.size.to_be_bytes(),
            i64::from(self.key_version).to_be_bytes(),
        ];
        let fields = [
            texts[0],
            texts[1],
            &numbers[0],
            &numbers[1],
            &self.head.root.0,
            &self.mac,
        ];
        let mut content = Vec::new();
        with_lengths(fields, |part| content.extend_from_slice(part));
        content
    }

    fn expected_mac(&self, key: &DataKey) -> [u8; 32] {
        key.hmac(&[
            b"log",
            self.origin.as_str().as_bytes(),
            &self.head.size.to_be_bytes(),
            &self.head.root.0,
            self.position.as_bytes(),
        ])
    }

    fn head_mac(&self, key: &DataKey, head: TreeHead) -> [u8; 32] {
        let origin = self.origin.as_str().as_bytes();
        key.hmac(&[b"head", origin, &head.size.to_be_bytes(), &head.root.0])
    }

    /// Returns the key that signs the heads of this log. Derives it from the data key of the log's version.
    ///
    /// # Errors
    /// [`KeyError::UnknownVersion`] if the keyring does not hold it.
    pub fn signer(&self, keyring: &Keyring) -> Result<Signer, KeyError> {
        let seed = self.key(keyring)?.derive(b"accord audit log", &[SEED]);
        Signer::new(self.origin.clone(), &seed).map_err(|_| KeyError::Sealed)
    }
}

/// Returns the open log: the newest one. `None` before the first.
pub async fn current(conn: &impl ConnectionTrait) -> Result<Option<Log>, StoreError> {
    let newest = row::Entity::find().order_by_desc(row::Column::LogId);
    newest.one(conn).await?.map(log).transpose()
}

/// The logs of a database.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// Those whose rows can be read, the oldest first.
    pub logs: Vec<Log>,
    /// The numbers of the others: somebody has edited their rows, or put them there.
    pub unreadable: Vec<i64>,
}

/// Returns all logs. There are few: one for each epoch and each resume.
pub async fn all(conn: &impl ConnectionTrait) -> Result<Logs, StoreError> {
    let mut all = Logs::default();
    let rows = row::Entity::find().order_by_asc(row::Column::LogId);
    for row in rows.all(conn).await? {
        let log_id = row.log_id;
        match log(row) {
            Ok(log) => all.logs.push(log),
            Err(_) => all.unreadable.push(log_id),
        }
    }
    Ok(all)
}

/// Returns the log before another one.
pub(super) async fn before(conn: &impl ConnectionTrait, log_id: i64) -> Result<Option<Log>, StoreError> {
    let older = row::Entity::find()
        .filter(row::Column::LogId.lt(log_id))
        .order_by_desc(row::Column::LogId);
    older.one(conn).await?.map(log).transpose()
}

/// Returns the log with this origin.
pub async fn find(conn: &impl ConnectionTrait, origin: &Origin) -> Result<Option<Log>, StoreError> {
    let named = row::Entity::find().filter(row::Column::Origin.eq(origin.as_str()));
    named.one(conn).await?.map(log).transpose()
}

/// Starts a log, which is then the open one. Ends the lease, so that no sealer goes on with an older log. Notes its number in the
/// change counter, so that nobody can remove it without a trace.
///
/// # Errors
/// [`StoreError::Conflict`] if a log with this origin exists, or another start won the race.
pub async fn start(
    tx: &Transaction,
    origin: &Origin,
    key: &DataKey,
    position: &str,
    now: UnixMillis,
) -> Result<Log, StoreError> {
    lease::end(tx).await?;
    let newest = current(tx).await?.map_or(0, |log| log.log_id);
    let log_id = change::count_log(tx, newest).await?;
    let mut log = Log {
        log_id,
        origin: origin.clone(),
        key_version: key.version(),
        head: TreeHead::EMPTY,
        position: position.to_owned(),
        started_at: now,
        mac: Vec::new(),
    };
    log.mac = log.expected_mac(key).to_vec();
    let row = row::ActiveModel {
        log_id: Set(log_id),
        origin: Set(origin.to_string()),
        key_version: Set(log.key_version),
        size: Set(0),
        root: Set(log.head.root.0.to_vec()),
        position: Set(log.position.clone()),
        started_at: Set(now.as_millis()),
        mac: Set(log.mac.clone()),
    };
    let written = row::Entity::insert(row).exec_without_returning(tx).await?;
    all_written("audit_logs", written, 1)?;
    Ok(log)
}

/// What a sealer adds to a log.
#[derive(Debug)]
pub struct Seal<'a> {
    /// The sealer's lease.
    pub lease: &'a Lease,
    /// The log, as the sealer read it.
    pub log: &'a Log,
    /// The data key of the log's version.
    pub key: &'a DataKey,
    /// The leaf hashes to append, at least one.
    pub leaves: &'a [Hash],
    /// How far the record is in the log with them.
    pub position: &'a str,
    /// The time of the new head.
    pub sealed_at: UnixMillis,
}

impl Seal<'_> {
    /// Appends the leaves, and returns the log with its new head. The transaction may do more, such as deleting what is
    /// sealed.
    ///
    /// Returns `None` if there are no leaves, another sealer has the lease, or the head has changed since it was read (as after a
    /// commit whose answer was lost). Then nothing is appended: roll back, and read the log again if the lease can still be
    /// renewed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the log's MAC is wrong, or if the stored hashes do not have its root, so that nothing is added
    /// to a log that was edited.
    pub async fn commit(&self, tx: &Transaction) -> Result<Option<Log>, StoreError> {
        // Locks the lease's row: there is no other sealer, and no new log, until the transaction ends.
        if self.leaves.is_empty() || !self.lease.lock(tx).await? {
            return Ok(None);
        }
        if current(tx).await?.as_ref() != Some(self.log) {
            return Ok(None);
        }
        self.log.check(self.key)?;
        let (before, log_id) = (self.log.head, self.log.log_id);
        let mut edge = tiles::Edge::read(tx, log_id, before.size).await?;
        if edge.root() != before.root {
            return Err(tiles::DAMAGED);
        }
        edge.append(self.leaves);
        let head = TreeHead {
            size: before.size + self.leaves.len() as u64,
            root: edge.root(),
        };
        let mut next = Log {
            head,
            position: self.position.to_owned(),
            ..self.log.clone()
        };
        next.mac = next.expected_mac(self.key).to_vec();
        let moved = row::Entity::update_many()
            .col_expr(row::Column::Mac, Expr::value(next.mac.clone()))
            .col_expr(row::Column::Size, Expr::value(number(head.size)?))
            .col_expr(row::Column::Root, Expr::value(head.root.0.to_vec()))
            .col_expr(row::Column::Position, Expr::value(self.position))
            .filter(row::Column::LogId.eq(log_id))
            .filter(row::Column::Size.eq(number(before.size)?))
            .filter(row::Column::Position.eq(&*self.log.position))
            .exec(tx)
            .await?;
        if moved.rows_affected != 1 {
            return Ok(None);
        }
        edge.write(tx, log_id).await?;
        let row = head::ActiveModel {
            log_id: Set(log_id),
            size: Set(number(head.size)?),
            root: Set(head.root.0.to_vec()),
            checkpoint: Set(None),
            generation: Set(self.lease.generation()),
            sealed_at: Set(self.sealed_at.as_millis()),
            mac: Set(next.head_mac(self.key, head).to_vec()),
        };
        let insert = head::Entity::insert(row);
        all_written("audit_checkpoints", insert.exec_without_returning(tx).await?, 1)?;
        Ok(Some(next))
    }
}

fn check_mac(mac: &[u8], expected: [u8; 32], what: &'static str) -> Result<(), StoreError> {
    match bool::from(mac.ct_eq(&expected)) {
        true => Ok(()),
        false => Err(StoreError::Corrupt(what)),
    }
}

fn log(row: row::Model) -> Result<Log, StoreError> {
    Ok(Log {
        log_id: row.log_id,
        origin: row
            .origin
            .parse()
            .map_err(|_| StoreError::Corrupt("the audit log's origin"))?,
        key_version: row.key_version,
        head: tree_head(row.size, &row.root)?,
        position: row.position,
        started_at: UnixMillis::from_millis(row.started_at),
        mac: row.mac,
    })
}

fn tree_head(size: i64, root: &[u8]) -> Result<TreeHead, StoreError> {
    let root = root.try_into().map(Hash);
    Ok(TreeHead {
        size: u64::try_from(size).map_err(|_| tiles::DAMAGED)?,
        root: root.map_err(|_| tiles::DAMAGED)?,
    })
}

/// Converts a number for the database.
fn number(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| tiles::DAMAGED)
}

#[cfg(test)]
#[path = "../tests/log.rs"]
mod tests;
