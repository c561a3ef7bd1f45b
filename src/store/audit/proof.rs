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
pub enum Proof {
    /// It is in the log.
    Sealed(ProofFile),
    /// It is recorded and will be sealed, or comes after the head that was asked for.
    NotYetSealed,
    /// There is no such event.
    Unknown,
}

/// Proves that an event is in a log with this signed head.
///
/// # Errors
/// [`StoreError::Corrupt`] if the log's hashes do not lead to the head.
pub async fn prove(
    conn: &impl ConnectionTrait,
    log_id: i64,
    head: &SignedHead,
    event_id: &EventId,
) -> Result<Proof, StoreError> {
    let Some(found) = find(conn, event_id).await? else {
        return Ok(Proof::Unknown);
    };
    match found.leaf(conn).await?.filter(|leaf| leaf.log_id == log_id) {
        Some(leaf) => found.prove(conn, &leaf, head).await,
        None => Ok(Proof::NotYetSealed),
    }
}

/// Proves that an event is in its log: the open one, or one that an earlier epoch has. The proof is for the newest signed
/// head of that log.
///
/// # Errors
/// [`StoreError::Corrupt`] if the log's hashes do not lead to the head.
pub async fn prove_in_its_log(conn: &impl ConnectionTrait, event_id: &EventId) -> Result<Proof, StoreError> {
    let Some(found) = find(conn, event_id).await? else {
        return Ok(Proof::Unknown);
    };
    let Some(leaf) = found.leaf(conn).await? else {
        return Ok(Proof::NotYetSealed);
    };
    match log::latest(conn, leaf.log_id).await? {
        Some(head) => found.prove(conn, &leaf, &head).await,
        None => Ok(Proof::NotYetSealed),
    }
}

struct Found {
    source: String,
    number: i64,
    event: Vec<u8>,
    group: Option<Group>,
}

impl Found {
    /// Returns the leaf that stands for the event's row; `None` before it is sealed. A row has one, in one log.
    async fn leaf(&self, conn: &impl ConnectionTrait) -> Result<Option<leaf::Model>, StoreError> {
        let leaf = leaf::Entity::find()
            .filter(leaf::Column::Source.eq(&*self.source))
            .filter(leaf::Column::Number.eq(self.number));
        Ok(leaf.one(conn).await?)
    }

    async fn prove(
        self,
        conn: &impl ConnectionTrait,
        leaf: &leaf::Model,
        head: &SignedHead,
    ) -> Result<Proof, StoreError> {
        let index = u64::try_from(leaf.leaf_index).map_err(|_| StoreError::Corrupt("audit_leaves"))?;
        let Some(proof) = log::inclusion_proof(conn, leaf.log_id, index, head.head).await? else {
            return Ok(Proof::NotYetSealed);
        };
        let mut file = ProofFile::new(self.event, index, proof.hashes, head.checkpoint.clone());
        file.group = self.group;
        Ok(Proof::Sealed(file))
    }
}

async fn find(conn: &impl ConnectionTrait, event_id: &EventId) -> Result<Option<Found>, StoreError> {
    let own = row::Entity::find()
        .filter(row::Column::EventId.eq(event_id.as_str()))
        .one(conn)
        .await?;
    if let Some(own) = own {
        return Ok(Some(Found {
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
                return Ok(Some(Found {
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
