//! Proofs that an event is in the log.

use sea_orm::{ConnectionTrait, QueryOrder, entity::prelude::*};

use super::{
    group::{self, MAX_SPAN_MILLIS},
    leaf_rows::{Row, leaf},
    record::decode,
    row,
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
        .filter(leaf::Column::Source.eq(found.row.source()))
        .filter(leaf::Column::Number.eq(found.row.number()))
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
    let group = found.group()?;
    let mut file = ProofFile::new(found.event, index, proof.hashes, head.checkpoint.clone());
    file.group = group;
    Ok(EventProof::Sealed(Box::new(Proven { file, head })))
}

/// An event, and the row that holds it.
pub(super) struct Found {
    pub(super) event: Vec<u8>,
    /// The place among the events of the row.
    index: u64,
    row: Row,
}

impl Found {
    /// Proves that the event is in its group; `None` for an event with a row of its own.
    fn group(&self) -> Result<Option<Group>, StoreError> {
        if let Row::Own(_) = self.row {
            return Ok(None);
        }
        let tree = GroupTree::new(self.row.events()?);
        let hashes = tree.inclusion_proof(self.index);
        Ok(Some(Group {
            count: tree.head().size,
            root: tree.head().root,
            index: self.index,
            hashes: hashes.ok_or(StoreError::Corrupt("group of audit events"))?,
        }))
    }
}

/// Finds an event by its id, which holds its time, so that few groups are read.
pub(super) async fn find(
    conn: &impl ConnectionTrait,
    event_id: &EventId,
) -> Result<Option<Found>, StoreError> {
    let own = row::Entity::find()
        .filter(row::Column::EventId.eq(event_id.as_str()))
        .one(conn)
        .await?;
    if let Some(own) = own {
        return Ok(Some(Found {
            event: own.record.clone(),
            index: 0,
            row: Row::Own(own),
        }));
    }
    let groups = group::Entity::find()
        .filter(group::Column::LastEventId.gte(event_id.as_str()))
        .filter(group::Column::LastEventId.lt(event_id.later(MAX_SPAN_MILLIS).as_str()))
        .filter(group::Column::FirstEventId.lte(event_id.as_str()))
        .order_by_asc(group::Column::LastEventId);
    for group in groups.all(conn).await? {
        for (index, event) in (0..).zip(group::events(&group.events)?) {
            if decode(event)?.event_id == *event_id {
                return Ok(Some(Found {
                    event: event.to_vec(),
                    index,
                    row: Row::Group(group),
                }));
            }
        }
    }
    Ok(None)
}
