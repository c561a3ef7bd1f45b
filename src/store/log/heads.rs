//! The committed heads of a log: their signatures, and which of them stay.

use sea_orm::{ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};

use super::{Log, check_mac, consistency_proof, number, root, row, tiles, tree_head};
use crate::{
    clock::UnixMillis,
    keys::DataKey,
    store::{Database, StoreError, removal::delete_where},
    tlog::{Checkpoint, Signer, TreeHead},
};

pub(super) mod head {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_checkpoints")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub log_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub size: i64,
        pub root: Vec<u8>,
        /// The signed checkpoint; `None` until it is signed.
        pub checkpoint: Option<String>,
        /// The lease's generation under which the head was committed.
        pub generation: i64,
        pub sealed_at: i64,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();
}

const UNSIGNED: StoreError = StoreError::Corrupt("a signed head of the audit log");

/// A committed head with its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedHead {
    /// The head.
    pub head: TreeHead,
    /// The signed checkpoint (C2SP tlog-checkpoint).
    pub checkpoint: String,
    /// When the head was committed.
    pub sealed_at: UnixMillis,
}

/// Signs every committed head of a log that has no signature, and returns how many there were. Reads what is committed, and
/// nothing else. Two sealers that sign the same head store the same text.
///
/// # Errors
/// [`StoreError::Corrupt`] for a head that no holder of the keys has committed, that the stored hashes do not have, or that does
/// not continue the newest signed one: somebody has edited the database, and it is not signed.
pub async fn sign_heads(db: &Database, log: &Log, key: &DataKey, signer: &Signer) -> Result<u64, StoreError> {
    // What an old primary still answers may be a head that was never committed elsewhere.
    db.check_current().await?;
    let mut signed = latest(db.read(), log.log_id).await?;
    let unsigned = head::Entity::find()
        .filter(head::Column::LogId.eq(log.log_id))
        .filter(head::Column::Checkpoint.is_null())
        .order_by_asc(head::Column::Size)
        .all(db.read())
        .await?;
    let mut count = 0;
    for row in unsigned {
        let next = tree_head(row.size, &row.root)?;
        check_mac(&row.mac, log.head_mac(key, next), "a row of audit_checkpoints")?;
        check_continues(db, log, signer, signed.as_ref(), next).await?;
        let checkpoint = signer.sign(next);
        let tx = db.write().await?;
        head::Entity::update_many()
            .col_expr(head::Column::Checkpoint, Expr::value(&*checkpoint))
            .filter(head::Column::LogId.eq(log.log_id))
            .filter(head::Column::Size.eq(row.size))
            .filter(head::Column::Root.eq(row.root))
            .filter(head::Column::Checkpoint.is_null())
            .exec(&tx)
            .await?;
        tx.commit().await?;
        signed = Some(SignedHead {
            head: next,
            checkpoint,
            sealed_at: UnixMillis::from_millis(row.sealed_at),
        });
        count += 1;
    }
    Ok(count)
}

/// Checks that the tiles have this head, and that it continues the newest signed one.
async fn check_continues(
    db: &Database,
    log: &Log,
    signer: &Signer,
    signed: Option<&SignedHead>,
    next: TreeHead,
) -> Result<(), StoreError> {
    if root(db.read(), log.log_id, next.size).await? != next.root {
        return Err(tiles::DAMAGED);
    }
    let Some(signed) = signed else { return Ok(()) };
    let opened = Checkpoint::open(&signed.checkpoint, signer.verifier_key());
    let older = opened.map_err(|_| UNSIGNED)?.head;
    let proof = consistency_proof(db.read(), log.log_id, older.size, next).await?;
    let continues = proof.is_some_and(|proof| next.check_consistency(&older, &proof).is_ok());
    continues.then_some(()).ok_or(tiles::DAMAGED)
}

/// Returns the newest signed head of a log.
pub async fn latest(conn: &impl ConnectionTrait, log_id: i64) -> Result<Option<SignedHead>, StoreError> {
    signed_head(conn, log_id, None).await
}

/// Returns the signed head of a log with this size, or else the newest one.
pub async fn signed_head(
    conn: &impl ConnectionTrait,
    log_id: i64,
    size: Option<u64>,
) -> Result<Option<SignedHead>, StoreError> {
    let size = size.map(number).transpose()?;
    let found = head::Entity::find()
        .filter(head::Column::LogId.eq(log_id))
        .filter(head::Column::Checkpoint.is_not_null())
        .apply_if(size, |query, size| query.filter(head::Column::Size.eq(size)))
        .order_by_desc(head::Column::Size)
        .limit(1)
        .one(conn)
        .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(SignedHead {
        head: tree_head(row.size, &row.root)?,
        checkpoint: row.checkpoint.ok_or(UNSIGNED)?,
        sealed_at: UnixMillis::from_millis(row.sealed_at),
    }))
}

/// Deletes signed heads that were committed before a time, but the newest of each log. The log's hashes stay: whoever has kept
/// such a head can still compare it.
pub async fn delete_heads_before(db: &Database, since: UnixMillis) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for log in row::Entity::find().all(db.read()).await? {
        let Some(newest) = latest(db.read(), log.log_id).await? else {
            continue;
        };
        let condition = head::Column::LogId
            .eq(log.log_id)
            .and(head::Column::Size.lt(number(newest.head.size)?))
            .and(head::Column::Checkpoint.is_not_null())
            .and(head::Column::SealedAt.lt(since.as_millis()));
        deleted += delete_where::<head::Entity>(db, condition).await?;
    }
    Ok(deleted)
}
