//! Proofs that an event is in the log.

use sea_orm::{ConnectionTrait, QueryOrder, entity::prelude::*};

use super::{
    group::{self, MAX_SPAN_MILLIS, events},
    record::decode,
    row,
    seal::{OWN, leaf},
};
use crate::{
    store::{
        StoreError,
        log::{self, SignedHead},
    },
    text::id::EventId,
    tlog::{Group, GroupTree, ProofFile},
};

/// What is known of an event.
#[derive(Debug)]
pub enum EventProof {
    /// It is in a log.
    Sealed(Box<Proven>),
    /// It is recorded and will be sealed, or comes after the head that was asked for.
    NotYetSealed,
    /// Its log has no signed head of the size that was asked for.
    NoSuchHead,
    /// There is no such event.
    Unknown,
}

/// A proof that an event is in the log that holds it, which may be an older one.
#[derive(Debug)]
pub struct Proven {
    /// The proof.
    pub file: ProofFile,
    /// The signed head that it leads to.
    pub head: SignedHead,
}

/// Proves that an event is in a log. The proof leads to the signed head of that log with a size, or to the newest.
///
/// # Errors
/// [`StoreError::Corrupt`] if the log's hashes do not lead to the head.
pub async fn prove(
    conn: &impl ConnectionTrait,
    size: Option<u64>,
    event_id: &EventId,
) -> Result<EventProof, StoreError> {
    let Some(found) = find(conn, event_id).await? else {
        return Ok(EventProof::Unknown);
    };
    let leaf = leaf::Entity::find()
        .filter(leaf::Column::Source.eq(&*found.source))
        .filter(leaf::Column::Number.eq(found.number))
        .one(conn)
        .await?;
    let Some(leaf) = leaf else {
        return Ok(EventProof::NotYetSealed);
    };
    let Some(head) = log::signed_head(conn, leaf.log_id, size).await? else {
        return Ok(match size {
            Some(_) => EventProof::NoSuchHead,
            None => EventProof::NotYetSealed,
        });
    };
    let index = u64::try_from(leaf.leaf_index).map_err(|_| StoreError::Corrupt("audit_leaves"))?;
    let Some(proof) = log::inclusion_proof(conn, leaf.log_id, index, head.head).await? else {
        return Ok(EventProof::NotYetSealed);
    };
    let mut file = ProofFile::new(found.event, index, proof.hashes, head.checkpoint.clone());
    file.group = found.group;
    Ok(EventProof::Sealed(Box::new(Proven { file, head })))
}

/// An event, with the row that its leaf stands for.
struct EventLeaf {
    source: String,
    number: i64,
    event: Vec<u8>,
    group: Option<Group>,
}

async fn find(conn: &impl ConnectionTrait, event_id: &EventId) -> Result<Option<EventLeaf>, StoreError> {
    let own = row::Entity::find()
        .filter(row::Column::EventId.eq(event_id.as_str()))
        .one(conn)
        .await?;
    if let Some(own) = own {
        return Ok(Some(EventLeaf {
            source: OWN.to_owned(),
            number: own.number,
            event: own.record,
            group: None,
        }));
    }
    for group in groups_at(conn, event_id).await? {
        let events = events(&group.events)?;
        for (index, event) in (0..).zip(&events) {
            if decode(event)?.event_id == *event_id {
                let tree = GroupTree::new(&events);
                let hashes = tree.inclusion_proof(index);
                return Ok(Some(EventLeaf {
                    event: event.to_vec(),
                    group: Some(Group {
                        count: tree.head().size,
                        root: tree.head().root,
                        index,
                        hashes: hashes.ok_or(StoreError::Corrupt("group of audit events"))?,
                    }),
                    source: group.writer,
                    number: group.number,
                }));
            }
        }
    }
    Ok(None)
}

/// Returns the groups that may hold an event. Its id holds its time, so that there are few.
pub(super) async fn groups_at(
    conn: &impl ConnectionTrait,
    event_id: &EventId,
) -> Result<Vec<group::Model>, StoreError> {
    let groups = group::Entity::find()
        .filter(group::Column::LastEventId.gte(event_id.as_str()))
        .filter(group::Column::LastEventId.lt(event_id.later(MAX_SPAN_MILLIS).as_str()))
        .filter(group::Column::FirstEventId.lte(event_id.as_str()))
        .order_by_asc(group::Column::LastEventId);
    Ok(groups.all(conn).await?)
}
