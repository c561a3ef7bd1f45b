//! The audit trail: who did what to what, and whether it was allowed. Append only: nothing here changes an event, and
//! only age deletes one.
//!
//! An event's id is a ULID whose time is the event's time. Details are for people who investigate; they must not hold a
//! secret, token or account name.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};
use sea_orm_migration::prelude::Expr;

use super::{Database, StoreError, batch::audit::insert, removal::delete_some};
use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
    text::{
        id::{ClientId, EventId, TenantId, ulid_at},
        page::{Page, PageRequest},
    },
};

mod event;

pub use event::{Actor, ActorKind, Event, Origin, Outcome, Record};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: String,
        pub occurred_at: i64,
        pub action: String,
        pub outcome: String,
        pub actor_kind: String,
        pub actor_id: String,
        pub tenant_id: Option<String>,
        pub client_id: Option<String>,
        pub subject: Option<String>,
        pub request_id: String,
        pub detail: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The action of the events of issued tokens.
pub const ISSUE: &str = "token.issue";

/// Records an event: with the transaction, if `conn` is one. After an error, what the event is about must not take
/// effect either.
pub async fn record(
    conn: &impl ConnectionTrait,
    clock: &dyn Clock,
    random: &dyn Random,
    origin: &Origin,
    event: Event,
) -> Result<EventId, StoreError> {
    let record = Record::new(clock, random, origin.clone(), event)?;
    insert(conn, &[&record]).await?;
    Ok(record.event_id)
}

/// Deletes the events before `since`. An event in each transaction says how many it deletes, so that none is missing
/// without a word.
pub async fn delete_before(
    db: &Database,
    clock: &dyn Clock,
    random: &dyn Random,
    since: UnixMillis,
) -> Result<u64, StoreError> {
    let is_old = row::Column::EventId.lt(EventId::of(ulid_at(since, 0)).as_str());
    let mut all = 0;
    loop {
        let tx = db.write().await?;
        let deleted = delete_some::<row::Entity>(&tx, is_old.clone()).await?;
        if deleted == 0 {
            return Ok(all);
        }
        let event = Event::new("audit_events.delete")
            .detail("count", deleted.to_string())
            .detail("until", since.to_timestamp().to_string());
        record(&tx, clock, random, &Origin::system("retention"), event).await?;
        tx.commit().await?;
        all += deleted;
    }
}

/// The events to list: those that match every given field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The tenant.
    pub tenant_id: Option<TenantId>,
    /// The client.
    pub client_id: Option<ClientId>,
    /// The action.
    pub action: Option<String>,
    /// The actor's id, of any kind of actor.
    pub actor_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The earliest time, inclusive.
    pub from: Option<UnixMillis>,
    /// The latest time, exclusive.
    pub until: Option<UnixMillis>,
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The event's id, by which events are ordered.
    pub event_id: EventId,
    /// The time by the clock of the replica that recorded the event.
    pub occurred_at: UnixMillis,
    /// The action. A newer version may record actions that this one doesn't know.
    pub action: String,
    /// The outcome.
    pub outcome: Outcome,
    /// Who acted.
    pub actor: Actor,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// The transport's request id.
    pub request_id: String,
    /// Further facts.
    pub detail: BTreeMap<String, String>,
}

/// Returns a page of the events that match the filter, the newest first.
///
/// Only the index by time holds the events of issued tokens. A search for those of a tenant, client, actor or subject
/// is fast only with a start time.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event.
pub async fn list(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<EventRow>, StoreError> {
    let has_indexed_column = filter.tenant_id.is_some()
        || filter.client_id.is_some()
        || filter.actor_id.is_some()
        || filter.subject.is_some();
    let rows = match filter.action.as_deref() {
        Some(ISSUE) => find(filter, page).all(conn).await?,
        Some(_) => find(filter, page).filter(not_issued()).all(conn).await?,
        None if !has_indexed_column => find(filter, page).all(conn).await?,
        // Two queries, each of which has an index.
        None => {
            let mut rows = find(filter, page).filter(not_issued()).all(conn).await?;
            let issued = find(filter, page).filter(row::Column::Action.eq(ISSUE));
            rows.extend(issued.all(conn).await?);
            rows.sort_unstable_by(|one, other| other.event_id.cmp(&one.event_id));
            rows.truncate(usize::try_from(page.fetch()).unwrap_or(usize::MAX));
            rows
        }
    };
    let rows: Result<Vec<_>, _> = rows.into_iter().map(event_row).collect();
    Ok(page.finish(rows?, |row| row.event_id.as_str().to_owned()))
}

/// The condition of the partial indexes. Neither database would recognise it with a parameter, so it has a constant.
pub(super) fn not_issued() -> Expr {
    sea_orm::ExprTrait::ne(Expr::col(row::Column::Action), Expr::Constant(ISSUE.into()))
}

fn find(filter: &Filter, page: &PageRequest) -> Select<row::Entity> {
    use row::Column;

    // Ids begin with the time, so that one index serves time and page too.
    let first_id_at = |time: UnixMillis| EventId::of(ulid_at(time, 0));
    let from = filter.from.map(first_id_at);
    let until = filter.until.map(first_id_at);
    let text = |column: Column, value: Option<&str>| value.map(|value| column.eq(value));
    let conditions = [
        text(Column::TenantId, filter.tenant_id.as_ref().map(TenantId::as_str)),
        text(Column::ClientId, filter.client_id.as_ref().map(ClientId::as_str)),
        text(Column::Action, filter.action.as_deref()),
        text(Column::ActorId, filter.actor_id.as_deref()),
        text(Column::Subject, filter.subject.as_deref()),
        text(Column::Outcome, filter.outcome.as_ref().map(Outcome::as_ref)),
        from.map(|from| Column::EventId.gte(from.as_str())),
        until.map(|until| Column::EventId.lt(until.as_str())),
        page.after().map(|after| Column::EventId.lt(after)),
    ];
    let conditions = conditions.into_iter().flatten();
    conditions
        .fold(row::Entity::find(), |find, condition| find.filter(condition))
        .order_by_desc(Column::EventId)
        .limit(page.fetch())
}

fn event_row(row: row::Model) -> Result<EventRow, StoreError> {
    const UNREADABLE: StoreError = StoreError::Corrupt("audit event");
    let tenant_id = row.tenant_id.as_deref().map(TenantId::parse).transpose();
    let client_id = row.client_id.as_deref().map(ClientId::parse).transpose();
    Ok(EventRow {
        event_id: EventId::parse(&row.event_id).map_err(|_| UNREADABLE)?,
        occurred_at: UnixMillis::from_millis(row.occurred_at),
        action: row.action,
        outcome: row.outcome.parse().map_err(|_| UNREADABLE)?,
        actor: Actor {
            kind: row.actor_kind.parse().map_err(|_| UNREADABLE)?,
            id: row.actor_id,
        },
        tenant_id: tenant_id.map_err(|_| UNREADABLE)?,
        client_id: client_id.map_err(|_| UNREADABLE)?,
        subject: row.subject,
        request_id: row.request_id,
        detail: serde_json::from_str(&row.detail).map_err(|_| UNREADABLE)?,
    })
}

#[cfg(test)]
#[path = "../tests/audit.rs"]
mod tests;
