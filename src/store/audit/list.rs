//! Searches of the audit record. Both shapes of events are read as one list.

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, QueryTrait, Select, entity::prelude::*};

use super::{
    EventRow, ISSUE, Outcome,
    group::{self, MAX_SPAN_MILLIS},
    proof::groups_at,
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

/// How many groups a search reads at a time.
const GROUPS_AT_ONCE: u64 = 64;
/// The most groups that one search reads. Then it returns what it has found, and the next page goes on there.
const MAX_GROUPS: u64 = 2_048;

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
    fn range(&self, page: &PageRequest) -> Range {
        // Ids begin with the time, so that one index serves time and page too.
        let first_id_at = |time: UnixMillis| EventId::of(ulid_at(time, 0));
        let after = page.after().and_then(|after| EventId::parse(after).ok());
        let until = self.until.map(first_id_at);
        Range {
            from: self.from.map(first_id_at),
            until: [after, until].into_iter().flatten().min(),
        }
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

/// Returns a page of the events that match the filter, the newest first.
///
/// No index holds the events of issued tokens but by time. A search for those of a tenant, client, actor or subject
/// reads at most 2,048 groups of them for each page, so that a page may be short, or empty, and not the last.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event.
pub async fn list(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<EventRow>, StoreError> {
    let range = filter.range(page);
    let mut events = own_rows(conn, filter, &range, page.fetch()).await?;
    let mut stopped_at = None;
    if filter.action.as_deref().is_none_or(|action| action == ISSUE) {
        let issued;
        (issued, stopped_at) = issued_tokens(conn, filter, &range, page.fetch()).await?;
        events.extend(issued);
    }
    events.sort_unstable_by(|one, other| other.event_id.cmp(&one.event_id));
    if let Some(stopped_at) = &stopped_at {
        events.retain(|event| event.event_id >= *stopped_at);
    }
    events.truncate(usize::try_from(page.fetch()).unwrap_or(usize::MAX));
    let next = stopped_at.map(String::from);
    Ok(page.finish_before(events, next, |event| event.event_id.as_str().to_owned()))
}

/// Returns the newest events in range that have a row of their own.
async fn own_rows(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    range: &Range,
    limit: u64,
) -> Result<Vec<EventRow>, StoreError> {
    use row::Column;

    let text = |column: Column, value: Option<&str>| value.map(|value| column.eq(value));
    let conditions = [
        text(Column::TenantId, filter.tenant_id.as_ref().map(TenantId::as_str)),
        text(Column::ClientId, filter.client_id.as_ref().map(ClientId::as_str)),
        text(Column::Action, filter.action.as_deref()),
        text(Column::ActorId, filter.actor_id.as_deref()),
        text(Column::Subject, filter.subject.as_deref()),
        text(Column::Outcome, filter.outcome.as_ref().map(Outcome::as_ref)),
        range.from.as_ref().map(|from| Column::EventId.gte(from.as_str())),
        range
            .until
            .as_ref()
            .map(|until| Column::EventId.lt(until.as_str())),
    ];
    let conditions = conditions.into_iter().flatten();
    let rows = conditions
        .fold(row::Entity::find(), |find, condition| find.filter(condition))
        .order_by_desc(Column::EventId)
        .limit(limit)
        .all(conn)
        .await?;
    rows.iter().map(|row| decode(&row.record)).collect()
}

/// Returns the newest events of issued tokens in range, at least `limit` of them if there are as many. Returns with them
/// the id down to which the search got, unless it got to the end.
async fn issued_tokens(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    range: &Range,
    limit: u64,
) -> Result<(Vec<EventRow>, Option<EventId>), StoreError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut before = range.until.as_ref().map(|until| until.later(MAX_SPAN_MILLIS));
    let mut events: Vec<EventRow> = Vec::new();
    for _ in 0..MAX_GROUPS / GROUPS_AT_ONCE {
        let groups = groups(range)
            .apply_if(before.as_ref(), |groups, before| {
                groups.filter(group::Column::LastEventId.lt(before.as_str()))
            })
            .order_by_desc(group::Column::LastEventId)
            .limit(GROUPS_AT_ONCE)
            .all(conn)
            .await?;
        for group in &groups {
            for event in group::events(&group.events)? {
                let event = decode(event)?;
                let is_in_range = range.from.as_ref().is_none_or(|from| event.event_id >= *from)
                    && range.until.as_ref().is_none_or(|until| event.event_id < *until);
                if is_in_range && filter.matches(&event) {
                    events.push(event);
                }
            }
        }
        let Some(last) = groups.last().filter(|_| groups.len() as u64 == GROUPS_AT_ONCE) else {
            return Ok((events, None));
        };
        // All other groups end before this one, so that their events are older.
        let last = EventId::parse(&last.last_event_id).map_err(|_| StoreError::Corrupt("audit_groups"))?;
        let complete = events.iter().filter(|event| event.event_id >= last).count();
        if complete >= limit {
            return Ok((events, None));
        }
        before = Some(last);
    }
    Ok((events, before))
}

/// Returns the groups that may hold events in range.
fn groups(range: &Range) -> Select<group::Entity> {
    let from = range.from.as_ref();
    let until = range.until.as_ref();
    group::Entity::find()
        .apply_if(from, |groups, from| {
            groups.filter(group::Column::LastEventId.gte(from.as_str()))
        })
        .apply_if(until, |groups, until| {
            groups.filter(group::Column::FirstEventId.lt(until.as_str()))
        })
}

/// Finds the event of an issued token by the token's `jti`, which holds its time, so that few groups are read.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row that isn't an event.
pub async fn find_issued(conn: &impl ConnectionTrait, jti: &EventId) -> Result<Option<EventRow>, StoreError> {
    let own = row::Entity::find()
        .filter(row::Column::EventId.eq(jti.as_str()))
        .one(conn)
        .await?;
    if let Some(own) = own {
        return decode(&own.record).map(|event| Some(event).filter(|event| event.action == ISSUE));
    }
    for group in groups_at(conn, jti).await? {
        for event in group::events(&group.events)? {
            let event = decode(event)?;
            if event.event_id == *jti {
                return Ok(Some(event));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "../tests/audit/list.rs"]
mod tests;
