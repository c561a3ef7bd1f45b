//! The newest part of the record: the events that were not sealed when the first page was read, newest first by time.

use sea_orm::{ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, entity::prelude::*};

use super::{Filter, GROUPS_AT_ONCE, MAX_GROUPS, Range, cursor::Head, group_leaves};
use crate::{
    store::{
        StoreError,
        audit::{
            EventRow,
            group::{self, MAX_SPAN_MILLIS, events as encoded},
            leaf_rows::{Row, at, place, rows},
            record::decode,
            row,
            seal::unsealed_writers,
        },
    },
    text::id::EventId,
};

/// Returns the newest events after the boundary that match, up to `limit`. Returns with them the id down to which the search
/// got, unless it got to the end.
pub(super) async fn events(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    head: &Head,
    limit: u64,
) -> Result<(Vec<EventRow>, Option<EventId>), StoreError> {
    let range = filter.range(head.before.as_ref());
    let own = filter
        .own_rows(&range)
        .filter(row::Column::Number.gt(head.own))
        .order_by_desc(row::Column::EventId)
        .limit(limit)
        .all(conn)
        .await?;
    let own = own.iter().map(|row| decode(&row.record));
    let mut events = own.collect::<Result<Vec<_>, _>>()?;
    let mut stopped_at = None;
    if filter.admits_tokens() {
        let issued;
        (issued, stopped_at) = issued_tokens(conn, filter, &range, head, limit).await?;
        events.extend(issued);
    }
    events.sort_unstable_by(|one, other| other.event_id.cmp(&one.event_id));
    if let Some(stopped_at) = &stopped_at {
        events.retain(|event| event.event_id >= *stopped_at);
    }
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((events, stopped_at))
}

/// Returns the newest events of issued tokens in range, at least `limit` of them if there are as many. Returns with them
/// the id down to which the search got, unless it got to the end.
async fn issued_tokens(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    range: &Range,
    head: &Head,
    limit: u64,
) -> Result<(Vec<EventRow>, Option<EventId>), StoreError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut before = range.until.as_ref().map(|until| until.later(MAX_SPAN_MILLIS));
    let mut events: Vec<EventRow> = Vec::new();
    for _ in 0..MAX_GROUPS / GROUPS_AT_ONCE {
        let groups = groups(conn, range, head, before.as_ref()).await?;
        for group in &groups {
            for event in encoded(&group.events)? {
                let event = decode(event)?;
                if range.holds(&event.event_id) && filter.matches(&event) {
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

/// Returns the newest groups after the boundary that end before an id, the newest first: those that wait for the sealer, and
/// those that were sealed since the first page.
async fn groups(
    conn: &impl ConnectionTrait,
    range: &Range,
    head: &Head,
    before: Option<&EventId>,
) -> Result<Vec<group::Model>, StoreError> {
    let mut found = Vec::new();
    // In this order: a group that is sealed between the two queries is found by both, and not by none.
    for writer in unsealed_writers(conn).await? {
        let waiting = group::Entity::find()
            .filter(group::Column::Writer.eq(&*writer.writer))
            .filter(group::Column::Number.gt(writer.sealed));
        // By number, so that both databases read a range of the primary key.
        let waiting = range
            .of_groups(waiting, before)
            .order_by_desc(group::Column::Number)
            .limit(GROUPS_AT_ONCE);
        found.extend(waiting.all(conn).await?);
    }
    let sealed = group_leaves(range, before).filter(place().gte(at(head.log_id, head.size)));
    let sealed = sealed.all(conn).await?;
    let groups = rows(conn, &sealed).await?.into_values();
    found.extend(groups.filter_map(Row::into_group));
    found.sort_unstable_by(|one, other| other.last_event_id.cmp(&one.last_event_id));
    found.dedup_by(|one, other| (&one.writer, one.number) == (&other.writer, other.number));
    found.truncate(usize::try_from(GROUPS_AT_ONCE).unwrap_or(usize::MAX));
    Ok(found)
}
