//! What operators did to tenants: an index of their events by tenant, which the commit of an event writes with it.
//!
//! An act on a client concerns each tenant that the client may ask for consent at that moment, which the event itself does
//! not say. The index is for reading: what proves an event is the log. Each entry has a MAC, so that nobody
//! without the keys shows a tenant an event that concerns another one.

use sea_orm::{
    IntoActiveModel, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*, sea_query::OnConflict,
};

use super::super::{ActorKind, EventRow, Record, record::decode, row};
use crate::{
    clock::UnixMillis,
    store::{
        Database, Keyed, StoreError, Transaction,
        removal::delete_where,
        rows::{self, Protected, ProtectedRows, Recorded},
    },
    text::id::{EventId, TenantId, ulid_at},
};

mod entry {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_tenant_actions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: String,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        /// It never changes, and goes by age.
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
    }
}

/// Adds the events of operators to the index.
pub(in crate::store::audit) async fn insert(tx: &Transaction, records: &[Record]) -> Result<(), StoreError> {
    let by_operators = records
        .iter()
        .filter(|record| record.origin.actor.kind == ActorKind::Operator);
    let entries = by_operators.flat_map(|record| {
        let tenants = record.event.tenant_id.iter().chain(&record.event.tenants);
        tenants.map(|tenant_id| entry::Model {
            tenant_id: tenant_id.to_string(),
            event_id: record.event_id.as_str().to_owned(),
            mac: Vec::new(),
        })
    });
    let mut entries: Vec<_> = entries.collect();
    if entries.is_empty() {
        return Ok(());
    }
    let key = rows::current(tx)?;
    for entry in &mut entries {
        rows::protect::<entry::Entity>(&key, entry)?;
    }
    let entries = entries
        .into_iter()
        .map(|entry| entry.into_active_model().reset_all());
    // A tenant may be named twice.
    let once = OnConflict::columns([entry::Column::TenantId, entry::Column::EventId])
        .do_nothing()
        .to_owned();
    entry::Entity::insert_many(entries)
        .on_conflict(once)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// Returns the newest events of operators that concern a tenant, at most `limit`, and only those before `before` if there is
/// one. An event may hold facts of other tenants in its details.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event, [`StoreError::Altered`] for an entry that nobody with the keys has
/// written.
pub async fn operator_actions(
    conn: &impl Keyed,
    tenant_id: &TenantId,
    before: Option<&EventId>,
    limit: u64,
) -> Result<Vec<EventRow>, StoreError> {
    let mut before = before.cloned();
    let mut found = Vec::new();
    // An event that the index names and that is gone is a fault, which a verification names. The list goes on behind it.
    loop {
        let wanted = limit.saturating_sub(found.len() as u64);
        let entries = entry::Entity::look_up()
            .equal(entry::Column::TenantId, tenant_id.as_str())
            .apply_if(before.as_ref(), |entries, before| {
                entries.behind(entry::Column::EventId.lt(before.as_str()))
            })
            .order_by_desc(entry::Column::EventId)
            .limit(wanted)
            .read_all(conn)
            .await?;
        let ids = entries.iter().map(|entry| entry.event_id.as_str());
        let rows = row::Entity::find()
            .filter(row::Column::EventId.is_in(ids))
            .order_by_desc(row::Column::EventId)
            .all(conn)
            .await?;
        for row in &rows {
            found.push(decode(&row.record)?);
        }
        let Some(last) = entries.last().filter(|_| entries.len() as u64 == wanted) else {
            return Ok(found);
        };
        if found.len() as u64 >= limit {
            return Ok(found);
        }
        before =
            Some(EventId::parse(&last.event_id).map_err(|_| StoreError::Corrupt("audit_tenant_actions"))?);
    }
}

/// Deletes the entries of events before `since`.
pub(in crate::store::audit) async fn delete_before(
    db: &Database,
    since: UnixMillis,
) -> Result<(), StoreError> {
    let first_kept = EventId::of(ulid_at(since, 0));
    delete_where::<entry::Entity>(db, entry::Column::EventId.lt(first_kept.as_str())).await?;
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/audit/actions.rs"]
mod tests;
