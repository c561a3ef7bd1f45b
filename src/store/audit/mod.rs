//! The audit trail: who did what to what, and whether it was allowed. Append only: nothing here
//! changes or deletes an event.
//!
//! An event's id is a ULID, and its time part is the event's time. Details are for people who
//! investigate; no secret, token or account name belongs in them.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};
use sea_orm_migration::{
    SchemaManager,
    prelude::{ColumnDef, Expr, Table},
};
use ulid::Ulid;

use super::{StoreError, batch::audit::insert, migration::create_partial_index};
use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
    text::{
        id::{ClientId, EventId, TenantId},
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

/// Records an event: with the transaction, if `conn` is one.
///
/// # Errors
/// What the database says. Then what the event is about must not take effect either.
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

/// Records the events of one origin in this order.
///
/// # Errors
/// As [`record`].
pub async fn record_all(
    conn: &impl ConnectionTrait,
    clock: &dyn Clock,
    random: &dyn Random,
    origin: &Origin,
    events: Vec<Event>,
) -> Result<Vec<EventId>, StoreError> {
    let records = events
        .into_iter()
        .map(|event| Record::new(clock, random, origin.clone(), event));
    let records = records.collect::<Result<Vec<_>, _>>()?;
    insert(conn, &records).await?;
    Ok(records.into_iter().map(|record| record.event_id).collect())
}

/// Which events to list: those for which everything given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this tenant.
    pub tenant_id: Option<TenantId>,
    /// Of this client.
    pub client_id: Option<ClientId>,
    /// Exactly this action.
    pub action: Option<String>,
    /// By the actor of exactly this id, of whatever kind.
    pub actor_id: Option<String>,
    /// On exactly this subject.
    pub subject: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// At this time or later.
    pub from: Option<UnixMillis>,
    /// Before this time.
    pub until: Option<UnixMillis>,
}

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its id, by which events are ordered.
    pub event_id: EventId,
    /// When, by the clock of the replica that recorded it.
    pub occurred_at: UnixMillis,
    /// What was done; newer versions may record actions that this one doesn't know.
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Who acted.
    pub actor: Actor,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// The transport's id for the request.
    pub request_id: String,
    /// What else was noted.
    pub detail: BTreeMap<String, String>,
}

/// A page of the events that pass the filter, the newest first.
///
/// Events of issued tokens are found by time alone, because the other indexes leave them out: a search for
/// those of a tenant, client, actor or subject is fast only with a start time.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event; what the database says.
pub async fn list(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<EventRow>, StoreError> {
    let rows = match filter.action.as_deref() {
        Some(ISSUE) => find(filter, page).all(conn).await?,
        Some(_) => find(filter, page).filter(not_issue()).all(conn).await?,
        None if !filter.names_something() => find(filter, page).all(conn).await?,
        // Two ways to look, each by its own index.
        None => {
            let mut rows = find(filter, page).filter(not_issue()).all(conn).await?;
            let issues = find(filter, page).filter(row::Column::Action.eq(ISSUE));
            rows.extend(issues.all(conn).await?);
            rows.sort_unstable_by(|one, other| other.event_id.cmp(&one.event_id));
            rows.truncate(usize::try_from(page.fetch()).unwrap_or(usize::MAX));
            rows
        }
    };
    let rows = rows
        .into_iter()
        .map(EventRow::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.finish(rows, |row| row.event_id.as_str().to_owned()))
}

impl Filter {
    /// Whether an index beside that of time could help.
    fn names_something(&self) -> bool {
        self.tenant_id.is_some()
            || self.client_id.is_some()
            || self.actor_id.is_some()
            || self.subject.is_some()
    }
}

/// The condition of the partial indexes. It holds a constant, since neither database recognises a parameter.
fn not_issue() -> Expr {
    sea_orm::ExprTrait::ne(Expr::col(row::Column::Action), Expr::Constant(ISSUE.into()))
}

fn find(filter: &Filter, page: &PageRequest) -> Select<row::Entity> {
    use row::Column;

    let text = |column: Column, value: Option<&str>| value.map(|value| column.eq(value));
    let conditions = [
        text(Column::TenantId, filter.tenant_id.as_ref().map(TenantId::as_str)),
        text(Column::ClientId, filter.client_id.as_ref().map(ClientId::as_str)),
        text(Column::Action, filter.action.as_deref()),
        text(Column::ActorId, filter.actor_id.as_deref()),
        text(Column::Subject, filter.subject.as_deref()),
        text(Column::Outcome, filter.outcome.as_ref().map(Outcome::as_ref)),
        // Ids begin with the time, so that the indexes serve these too.
        filter
            .from
            .map(|from| Column::EventId.gte(first_id_at(from).as_str())),
        filter
            .until
            .map(|until| Column::EventId.lt(first_id_at(until).as_str())),
        page.after().map(|after| Column::EventId.lt(after)),
    ];
    let mut find = row::Entity::find();
    for condition in conditions.into_iter().flatten() {
        find = find.filter(condition);
    }
    find.order_by_desc(Column::EventId).limit(page.fetch())
}

/// The lowest id that an event of this millisecond can have.
fn first_id_at(time: UnixMillis) -> EventId {
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    EventId::of(Ulid::from_parts(millis.min((1 << 48) - 1), 0))
}

impl TryFrom<row::Model> for EventRow {
    type Error = StoreError;

    fn try_from(row: row::Model) -> Result<Self, StoreError> {
        const UNREADABLE: StoreError = StoreError::Corrupt("audit event");
        let tenant_id = row.tenant_id.as_deref().map(TenantId::parse).transpose();
        let client_id = row.client_id.as_deref().map(ClientId::parse).transpose();
        Ok(Self {
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
}

/// Creates `audit_events` and its indexes. Indexes other than that by time leave out the events of issued
/// tokens ([`ISSUE`]): there are thousands a second, and each index with scattered keys costs a page for each.
///
/// # Errors
/// What the database says.
pub async fn create_table(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    use row::Column;

    let table = Table::create()
        .table(row::Entity)
        .col(ColumnDef::new(Column::EventId).text().not_null().primary_key())
        .col(ColumnDef::new(Column::OccurredAt).big_integer().not_null())
        .col(ColumnDef::new(Column::Action).text().not_null())
        .col(ColumnDef::new(Column::Outcome).text().not_null())
        .col(ColumnDef::new(Column::ActorKind).text().not_null())
        .col(ColumnDef::new(Column::ActorId).text().not_null())
        .col(ColumnDef::new(Column::TenantId).text())
        .col(ColumnDef::new(Column::ClientId).text())
        .col(ColumnDef::new(Column::Subject).text())
        .col(ColumnDef::new(Column::RequestId).text().not_null())
        .col(ColumnDef::new(Column::Detail).text().not_null())
        .to_owned();
    manager.create_table(table).await?;

    for column in INDEXED {
        let columns = [column.as_str(), Column::EventId.as_str()];
        create_partial_index(manager, &index_name(column), "audit_events", columns, not_issue()).await?;
    }
    Ok(())
}

/// Columns with an index; within a value, by time.
const INDEXED: [row::Column; 5] = [
    row::Column::TenantId,
    row::Column::ClientId,
    row::Column::Action,
    row::Column::ActorId,
    row::Column::Subject,
];

fn index_name(column: row::Column) -> String {
    format!("audit_events_{}", column.as_str())
}

#[cfg(test)]
#[path = "../tests/audit.rs"]
mod tests;
