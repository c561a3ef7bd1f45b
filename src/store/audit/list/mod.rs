//! Searches of the audit record. Both shapes of events are read as one list, which is paged by position: an event that is
//! committed late comes before those that were sealed earlier, whatever its time.

use std::collections::HashSet;

use sea_orm::{
    ConnectionTrait, ExprTrait, Order, QueryOrder, QuerySelect, QueryTrait, Select, entity::prelude::*,
    sea_query::Expr,
};

use super::{
    EventRow, LogPosition, Outcome, action, group,
    leaf_rows::{OWN, leaf},
    proof::find,
    record::decode,
    row,
};
use crate::{
    clock::UnixMillis,
    store::StoreError,
    text::{
        id::{ClientId, EventId, TenantId, ulid_at},
        page::{Page, PageRequest},
    },
};

pub(super) mod actions;
mod cursor;
pub(super) mod export;
mod head;
pub(super) mod position;
mod sealed;

pub use cursor::Cursor;
use cursor::Head;

/// How many groups a search reads at a time.
const GROUPS_AT_ONCE: u64 = 64;
/// The most groups that one search reads. Then it returns what it has found, and the next page goes on there.
const MAX_GROUPS: u64 = 2_048;
/// How much later than newer ones a group may be sealed that a search by time finds.
const LATENESS_MILLIS: u64 = 600_000;

impl Range {
    fn holds(&self, event_id: &EventId) -> bool {
        self.from.as_ref().is_none_or(|from| event_id >= from)
            && self.until.as_ref().is_none_or(|until| event_id < until)
    }

    /// Limits a query to groups that may hold events in range, and that end before an id.
    fn of_groups(&self, groups: Select<group::Entity>, before: Option<&EventId>) -> Select<group::Entity> {
        groups
            .apply_if(self.from.as_ref(), |groups, from| {
                groups.filter(group::Column::LastEventId.gte(from.as_str()))
            })
            .apply_if(self.until.as_ref(), |groups, until| {
                groups.filter(group::Column::FirstEventId.lt(until.as_str()))
            })
            .apply_if(before, |groups, before| {
                groups.filter(group::Column::LastEventId.lt(before.as_str()))
            })
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

/// The ids that a search is limited to.
struct Range {
    /// Inclusive.
    from: Option<EventId>,
    /// Exclusive.
    until: Option<EventId>,
}

impl Filter {
    /// Returns the ids of the events in the filter's time, and before one of them.
    fn range(&self, before: Option<&EventId>) -> Range {
        let first_id_at = |time: UnixMillis| EventId::of(ulid_at(time, 0));
        let until = self.until.map(first_id_at);
        Range {
            from: self.from.map(first_id_at),
            until: [before.cloned(), until].into_iter().flatten().min(),
        }
    }

    /// Returns whether events of issued tokens can match.
    fn admits_tokens(&self) -> bool {
        self.action
            .as_deref()
            .is_none_or(|action| action == action::TOKEN_ISSUE.as_str())
    }

    /// Returns a query for the events that match and have rows of their own.
    fn own_rows(&self, range: &Range) -> Select<row::Entity> {
        use row::Column;

        let text = |column: Column, value: Option<&str>| value.map(|value| column.eq(value));
        let conditions = [
            text(Column::TenantId, self.tenant_id.as_ref().map(TenantId::as_str)),
            text(Column::ClientId, self.client_id.as_ref().map(ClientId::as_str)),
            text(Column::Action, self.action.as_deref()),
            text(Column::ActorId, self.actor_id.as_deref()),
            text(Column::Subject, self.subject.as_deref()),
            text(Column::Outcome, self.outcome.as_ref().map(Outcome::as_ref)),
            range.from.as_ref().map(|from| Column::EventId.gte(from.as_str())),
            range
                .until
                .as_ref()
                .map(|until| Column::EventId.lt(until.as_str())),
        ];
        let conditions = conditions.into_iter().flatten();
        conditions.fold(row::Entity::find(), |find, condition| find.filter(condition))
    }

    fn matches(&self, event: &EventRow) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, value: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| value == Some(wanted))
        }
        is(&self.tenant_id, event.tenant_id.as_ref())
            && is(&self.client_id, event.client_id.as_ref())
            && is(&self.action, Some(&event.action))
            && is(&self.actor_id, Some(&event.actor.id))
            && is(&self.subject, event.subject.as_ref())
            && is(&self.outcome, Some(&event.outcome))
    }
}

/// Returns a page of the events that match the filter. First come those that are not sealed yet, by time, then the sealed ones
/// by position, each the newest first.
///
/// The first page draws the boundary between both. An event that is committed later is on no further page of the list, but
/// has a higher position than every sealed event on them. So whoever reads the record again, down to the highest position of
/// the last time, misses none, however late it was committed.
///
/// No index holds the events of issued tokens but by position and time. A search for those of a tenant, client, actor or
/// subject reads at most 2,048 groups of them for each page, so that a page may be short, or empty, and not the last. A search
/// by time may leave out those that were sealed more than ten minutes later than newer ones, which only a fault can delay so.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event.
pub async fn list(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<EventRow>, StoreError> {
    let cursor = match page.after() {
        Some(after) => after.parse().map_err(|_| StoreError::Corrupt("a page token"))?,
        None => Cursor::Head(Head::now(conn).await?),
    };
    let (mut listed, mut next) = (Vec::new(), None);
    let start = match &cursor {
        Cursor::Head(head) => {
            let (events, stopped_at) = head::events(conn, filter, head, page.fetch()).await?;
            listed.extend(events.into_iter().map(|event| {
                let after = head.after(&event.event_id);
                (event, after)
            }));
            next = stopped_at.map(|stopped_at| head.after(&stopped_at));
            head.boundary()
        }
        Cursor::Sealed(position) => *position,
    };
    let rest = page.fetch().saturating_sub(listed.len() as u64);
    if next.is_none() && rest > 0 {
        let (events, stopped_at) = sealed::events(conn, filter, start, rest).await?;
        let events = events.into_iter();
        listed.extend(events.map(|(event, position)| (event, Cursor::Sealed(position))));
        next = stopped_at.map(Cursor::Sealed);
    }
    let next = next.as_ref().map(Cursor::to_string);
    let page = page.finish_before(listed, next, |(_, after)| after.to_string());
    Ok(page.map(|(event, _)| event))
}

/// Returns the leaves of groups that may hold events in range and that end before an id, up to [`GROUPS_AT_ONCE`], the newest
/// first.
fn group_leaves(range: &Range, before: Option<&EventId>) -> Select<leaf::Entity> {
    let is_limited = range.from.is_some() || range.until.is_some() || before.is_some();
    let named = is_limited.then(|| {
        let of_group = |column| Expr::col((group::Entity, column));
        range
            .of_groups(group::Entity::find(), before)
            .filter(of_group(group::Column::Writer).equals((leaf::Entity, leaf::Column::Source)))
            .filter(of_group(group::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
            .select_only()
            .expr(Expr::value(1))
            .into_query()
    });
    leaf::Entity::find()
        .filter(leaf::Column::Source.ne(OWN))
        .apply_if(named, |leaves, named| leaves.filter(Expr::exists(named)))
        .order_by_desc(leaf::Column::LogId)
        .order_by_desc(leaf::Column::LeafIndex)
        .limit(GROUPS_AT_ONCE)
}

/// Returns the position of the newest, or oldest, sealed group whose last event has such an id.
async fn sealed_group(
    conn: &impl ConnectionTrait,
    ids: impl FnOnce(group::Column) -> Expr,
    newest: bool,
) -> Result<Option<LogPosition>, StoreError> {
    let of_group = |column| Expr::col((group::Entity, column));
    let leaf_of = |query: Select<leaf::Entity>| {
        query
            .filter(of_group(group::Column::Writer).equals((leaf::Entity, leaf::Column::Source)))
            .filter(of_group(group::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
    };
    let is_sealed = leaf_of(leaf::Entity::find().select_only().expr(Expr::value(1))).into_query();
    let order = if newest { Order::Desc } else { Order::Asc };
    let newest_or_oldest = group::Entity::find()
        .select_only()
        .columns([group::Column::Writer, group::Column::Number])
        .filter(ids(group::Column::LastEventId))
        .filter(Expr::exists(is_sealed))
        .order_by(group::Column::LastEventId, order)
        .limit(1)
        .into_query();
    // In one statement: between two, retention may remove the leaf of the group that was found, and newer ones stay.
    let source = [leaf::Column::Source, leaf::Column::Number].map(Expr::col);
    let leaf = leaf::Entity::find()
        .filter(Expr::tuple(source).in_subquery(newest_or_oldest))
        .one(conn)
        .await?;
    Ok(leaf.map(|leaf| leaf.position(u32::MAX)))
}

/// Returns which of these events have rows of their own.
pub async fn known(conn: &impl ConnectionTrait, ids: &[String]) -> Result<HashSet<String>, StoreError> {
    let rows = row::Entity::find()
        .select_only()
        .column(row::Column::EventId)
        .filter(row::Column::EventId.is_in(ids))
        .into_tuple()
        .all(conn)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Finds the event of an issued token by the token's `jti`, which holds its time, so that few groups are read.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event.
pub async fn find_issued(conn: &impl ConnectionTrait, jti: &EventId) -> Result<Option<EventRow>, StoreError> {
    let found = find(conn, jti).await?;
    let event = found.map(|found| decode(&found.event)).transpose()?;
    Ok(event.filter(|event| event.action == action::TOKEN_ISSUE.as_str()))
}

#[cfg(test)]
#[path = "../../tests/audit/list.rs"]
mod tests;
