//! Groups of events: one row for all tokens that one transaction issues, with the Merkle root of their events.
//!
//! A row is committed before the tokens leave. The rows of a writer are numbered from 1 without gaps, so that a missing
//! one is seen.

use std::{borrow::Borrow, time::Duration};

use prost::encoding::{decode_varint, encode_varint};
use sea_orm::{
    ActiveValue::Set,
    QuerySelect, QueryTrait,
    entity::prelude::*,
    sea_query::{Expr, ExprTrait},
};
use tokio::sync::{Mutex, MutexGuard};

use super::{Record, protection, record::encode};
use crate::{
    clock::{SharedClock, UnixMillis},
    keys::DataKey,
    keys::Keyring,
    random::SharedRandom,
    store::{Database, Keyed, StoreError, Transaction, removal::delete_where, rows::all_written},
    text::id::{EventId, ulid_at},
    tlog::GroupTree,
};

/// After this time a writer gives way to a new one, so that its row can go when its groups have gone.
const WRITER_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer a writer may live by the clock of another replica.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The times of a group's events differ by less. A search by time relies on it.
pub(super) const MAX_SPAN_MILLIS: u64 = 60_000;

const UNREADABLE: StoreError = StoreError::Corrupt("group of audit events");

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_groups")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub writer: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i64,
        pub size: i32,
        pub first_event_id: String,
        pub last_event_id: String,
        pub root: Vec<u8>,
        pub events: Vec<u8>,
        pub key_version: i32,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();
}

/// The writers, and the number up to which the groups of each are sealed. A writer adds itself with its first group.
pub(super) mod writer {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_writers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub writer: String,
        pub sealed: i64,
    }

    crate::no_relations!();
}

pub(super) use row::Model;
pub(in crate::store) use row::{ActiveModel, Column, Entity};

/// The writer of groups, and the number of its next one.
#[derive(Debug)]
pub struct GroupWriter {
    clock: SharedClock,
    random: SharedRandom,
    next: Mutex<Next>,
}

#[derive(Debug)]
struct Next {
    writer: EventId,
    number: i64,
}

/// A group that was inserted but is not committed yet. Further groups of its writer wait. Dropping it means that nobody
/// knows whether it was committed: the writer then gives way to a new one, whose numbers begin again.
#[derive(Debug)]
pub struct Appended<'a> {
    writer: &'a GroupWriter,
    next: MutexGuard<'a, Next>,
    is_committed: bool,
}

impl GroupWriter {
    /// Creates a writer with a random name.
    pub fn new(clock: SharedClock, random: SharedRandom) -> Self {
        let next = Mutex::new(Next::first(&clock, &random));
        Self { clock, random, next }
    }

    /// Reserves the next number for a group of these events.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if their times differ by [`MAX_SPAN_MILLIS`] or more. Each alone can be written.
    pub(in crate::store) async fn group<R: Borrow<Record>>(
        &self,
        keyring: Option<&Keyring>,
        records: &[R],
    ) -> Result<(ActiveModel, Appended<'_>), StoreError> {
        let mut next = self.next.lock().await;
        if self.clock.now().since(next.writer.time()) >= WRITER_LIFETIME {
            *next = Next::first(&self.clock, &self.random);
        }
        let row = group(&protection::current(keyring)?, &next, records)?;
        let appended = Appended {
            writer: self,
            next,
            is_committed: false,
        };
        Ok((row, appended))
    }

    /// Inserts a group with a transaction. After its commit, call [`Appended::committed`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the times of the events differ by a minute or more. Each alone can be written.
    pub async fn append<R: Borrow<Record>>(
        &self,
        tx: &Transaction,
        records: &[R],
    ) -> Result<Option<Appended<'_>>, StoreError> {
        if records.is_empty() {
            return Ok(None);
        }
        let (row, appended) = self.group(tx.keys().as_deref(), records).await?;
        if appended.is_first() {
            let writer = writer::ActiveModel {
                writer: row.writer.clone(),
                sealed: Set(0),
            };
            let written = writer::Entity::insert(writer).exec_without_returning(tx).await?;
            all_written("audit_writers", written, 1)?;
        }
        let written = Entity::insert(row).exec_without_returning(tx).await?;
        all_written("audit_groups", written, 1)?;
        Ok(Some(appended))
    }
}

impl Next {
    fn first(clock: &SharedClock, random: &SharedRandom) -> Self {
        Self {
            writer: EventId::generate(&**clock, &**random),
            number: 1,
        }
    }
}

impl Appended<'_> {
    /// Returns whether the writer has committed no group before, so that it is not in `audit_writers` yet.
    pub(in crate::store) fn is_first(&self) -> bool {
        self.next.number == 1
    }

    /// Says that the group is committed.
    pub fn committed(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Appended<'_> {
    fn drop(&mut self) {
        if self.is_committed {
            self.next.number += 1;
        } else {
            *self.next = Next::first(&self.writer.clock, &self.writer.random);
        }
    }
}

fn group(key: &DataKey, next: &Next, records: &[impl Borrow<Record>]) -> Result<ActiveModel, StoreError> {
    let encoded: Vec<_> = records.iter().map(|record| encode(record.borrow())).collect();
    let mut events = Vec::with_capacity(192 * records.len());
    for event in &encoded {
        encode_varint(event.len() as u64, &mut events);
        events.extend_from_slice(event);
    }
    let mut ids: Option<(&EventId, &EventId)> = None;
    for record in records.iter().map(Borrow::borrow) {
        let id = &record.event_id;
        ids = Some(ids.map_or((id, id), |(first, last)| (first.min(id), last.max(id))));
    }
    let (first, last) = ids.ok_or(UNREADABLE)?;
    if last.millis() - first.millis() >= MAX_SPAN_MILLIS {
        return Err(StoreError::Conflict);
    }
    let size = i32::try_from(records.len()).map_err(|_| UNREADABLE)?;
    let root = GroupTree::new(&encoded).head().root.0;
    let mac = protection::of_group(key, next.writer.as_str(), next.number, size, &root);
    Ok(ActiveModel {
        writer: Set(next.writer.as_str().to_owned()),
        number: Set(next.number),
        size: Set(size),
        first_event_id: Set(first.as_str().to_owned()),
        last_event_id: Set(last.as_str().to_owned()),
        root: Set(root.to_vec()),
        events: Set(events),
        key_version: Set(key.version()),
        mac: Set(mac.to_vec()),
    })
}

/// Deletes the rows of writers that ended before `since`, and of which retention has deleted all groups. Returns how many.
///
/// A writer's name holds its latest end. Events written later are never sealed.
pub async fn delete_ended_writers(db: &Database, since: UnixMillis) -> Result<u64, StoreError> {
    let ended = EventId::of(ulid_at(since.minus(WRITER_LIFETIME + CLOCK_TOLERANCE), 0));
    let groups = Entity::find()
        .select_only()
        .expr(Expr::value(1))
        .filter(Expr::col((Entity, Column::Writer)).equals((writer::Entity, writer::Column::Writer)))
        .into_query();
    let is_old = writer::Column::Writer.lt(ended.as_str());
    delete_where::<writer::Entity>(db, is_old.and(Expr::exists(groups).not())).await
}

/// Returns the encoded events of a group, in the order of its tree.
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no list of events.
pub(super) fn events(mut group: &[u8]) -> Result<Vec<&[u8]>, StoreError> {
    let mut events = Vec::new();
    while !group.is_empty() {
        let length = decode_varint(&mut group).map_err(|_| UNREADABLE)?;
        let length = usize::try_from(length).map_err(|_| UNREADABLE)?;
        let event;
        (event, group) = group.split_at_checked(length).ok_or(UNREADABLE)?;
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
#[path = "../tests/audit/group.rs"]
mod tests;
