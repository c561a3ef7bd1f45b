//! Logs that somebody without the keys has edited.

use sea_orm::DatabaseBackend;

use super::*;

#[tokio::test]
async fn an_edited_log_is_neither_extended_nor_signed_nor_proven() {
    for (what, table, column, rows) in [
        (
            "the newest leaves",
            "audit_log_tiles",
            "hashes",
            "level = 0 AND tile = 2",
        ),
        ("the tile above", "audit_log_tiles", "hashes", "level = 1"),
        ("the root of the log", "audit_logs", "root", "log_id = 1"),
    ] {
        for (place, db) in migrated().await {
            let (log, lease) = started(&db).await;
            let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
            let zeros = match db.backend() {
                DatabaseBackend::Postgres => format!("decode(repeat('00', length({column})), 'hex')"),
                _ => format!("CAST(zeroblob(length({column})) AS BLOB)"),
            };
            let edit = format!("UPDATE {table} SET {column} = {zeros} WHERE {rows}");
            assert_eq!(execute(&db, &edit).await, 1, "{place:?} {what}");
            refused(&db, &lease, &log, what).await;
        }
    }
    for rows in ["level = 0 AND tile = 2", "level = 1"] {
        for (_place, db) in migrated().await {
            let (log, lease) = started(&db).await;
            let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
            let edit = format!("DELETE FROM audit_log_tiles WHERE {rows}");
            assert_eq!(execute(&db, &edit).await, 1, "{rows}");
            refused(&db, &lease, &log, rows).await;
        }
    }
}

/// Checks that nobody goes on with an edited log: neither who has read it before nor who reads it now.
async fn refused(db: &Database, lease: &Lease, log: &Log, what: &str) {
    let read = current(db.read()).await.unwrap().unwrap();
    let is_root_edited = read.head != log.head;
    let sealed = seal(db, lease, &read, 1).await;
    assert!(matches!(sealed, Err(StoreError::Corrupt(_))), "{what}");
    let sealed = seal(db, lease, log, 1).await;
    let is_refused = matches!(sealed, Err(StoreError::Corrupt(_)));
    assert!(
        is_refused || is_root_edited && matches!(sealed, Ok(None)),
        "{what}"
    );
    let head = read.head;
    let inclusion = inclusion_proof(db.read(), 1, 3, head).await;
    assert!(matches!(inclusion, Err(StoreError::Corrupt(_))), "{what}");
    let consistency = consistency_proof(db.read(), 1, 300, head).await;
    assert!(matches!(consistency, Err(StoreError::Corrupt(_))), "{what}");
    if !is_root_edited {
        let signed = sign_heads(db, log, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{what}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), None, "{what}");
    }
}

#[tokio::test]
async fn an_edited_head_is_not_signed() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
        execute(&db, "UPDATE audit_checkpoints SET size = 599").await;
        let signed = sign_heads(&db, &log, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), None, "{place:?}");
    }
}

/// Somebody who has no key commits a head with all that belongs to it, or moves the log.
#[tokio::test]
async fn what_no_holder_of_the_keys_has_committed_is_neither_signed_nor_extended() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 10).await.unwrap().unwrap();
        sign_heads(&db, &log, &key(1), &signer()).await.unwrap();
        let mut edge = tiles::Edge::read(db.read(), 1, 10).await.unwrap();
        edge.append(&leaves(10..11));
        let root = edge.root().0.to_vec();
        let tx = db.write().await.unwrap();
        edge.write(&tx, 1).await.unwrap();
        let row = head::ActiveModel {
            log_id: Set(1),
            size: Set(11),
            root: Set(root.clone()),
            checkpoint: Set(None),
            generation: Set(1),
            sealed_at: Set(0),
            mac: Set(vec![0; 32]),
        };
        head::Entity::insert(row)
            .exec_without_returning(&tx)
            .await
            .unwrap();
        row::Entity::update_many()
            .col_expr(row::Column::Size, Expr::value(11))
            .col_expr(row::Column::Root, Expr::value(root))
            .exec(&tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let read = current(db.read()).await.unwrap().unwrap();
        assert_eq!(read.head, head(11), "{place:?}: all but the MACs is right");
        assert!(
            matches!(read.check(&key(1)), Err(StoreError::Corrupt(_))),
            "{place:?}"
        );
        let sealed = seal(&db, &lease, &read, 1).await;
        assert!(matches!(sealed, Err(StoreError::Corrupt(_))), "{place:?}");
        let signed = sign_heads(&db, &read, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(
            latest(db.read(), 1).await.unwrap().unwrap().head,
            head(10),
            "{place:?}"
        );
    }
}

/// An old tile is read only for proofs of its own leaves.
#[tokio::test]
async fn an_edited_full_tile_fails_the_proofs_that_need_it() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
        let edit = "UPDATE audit_log_tiles SET hashes = (SELECT hashes FROM audit_log_tiles WHERE level = 0 AND tile = 1) \
                    WHERE level = 0 AND tile = 0";
        assert_eq!(execute(&db, edit).await, 1, "{place:?}");
        for index in [0, 100, 255] {
            let proof = inclusion_proof(db.read(), 1, index, log.head).await;
            assert!(matches!(proof, Err(StoreError::Corrupt(_))), "{place:?} {index}");
        }
        assert!(
            inclusion_proof(db.read(), 1, 256, log.head)
                .await
                .unwrap()
                .is_some(),
            "{place:?}"
        );
        assert!(
            consistency_proof(db.read(), 1, 100, log.head).await.is_err(),
            "{place:?}"
        );
        assert!(
            consistency_proof(db.read(), 1, 512, log.head)
                .await
                .unwrap()
                .is_some(),
            "{place:?}"
        );
    }
}

/// Whoever rewrites the whole log, unsigned heads included, gets no signature that contradicts an older one.
#[tokio::test]
async fn a_rewritten_log_is_not_signed() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 10).await.unwrap().unwrap();
        sign_heads(&db, &log, &key(1), &signer()).await.unwrap();
        let signed = latest(db.read(), 1).await.unwrap().unwrap();
        execute(&db, "DELETE FROM audit_log_tiles").await;
        execute(&db, "UPDATE audit_logs SET size = 0").await;
        let empty = Log {
            head: TreeHead::EMPTY,
            ..log.clone()
        };
        let forged = leaves(100..120);
        let mut edge = tiles::Edge::read(db.read(), 1, 0).await.unwrap();
        edge.append(&forged);
        let tx = db.write().await.unwrap();
        let row = head::ActiveModel {
            log_id: Set(1),
            size: Set(20),
            root: Set(edge.root().0.to_vec()),
            checkpoint: Set(None),
            generation: Set(1),
            sealed_at: Set(0),
            // Even under a MAC of the keys.
            mac: Set(log
                .head_mac(
                    &key(1),
                    TreeHead {
                        size: 20,
                        root: edge.root(),
                    },
                )
                .to_vec()),
        };
        head::Entity::insert(row)
            .exec_without_returning(&tx)
            .await
            .unwrap();
        edge.write(&tx, 1).await.unwrap();
        tx.commit().await.unwrap();
        let result = sign_heads(&db, &empty, &key(1), &signer()).await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), Some(signed), "{place:?}");
        // Another key's signature is no reason to go on either.
        let other = Signer::new(origin(1), &[8; 32]).unwrap();
        assert!(
            sign_heads(&db, &empty, &key(1), &other).await.is_err(),
            "{place:?}"
        );
    }
}
