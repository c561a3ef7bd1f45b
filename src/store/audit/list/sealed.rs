//! The sealed part of the record, newest first by position.

use sea_orm::{ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};

use super::{
    Filter, GROUPS_AT_ONCE, LATENESS_MILLIS, MAX_GROUPS, Range, cursor::SealedPosition, group_leaves,
    sealed_group,
};
use crate::store::{
    StoreError,
    audit::{
        EventRow, LogPosition,
        group::events as encoded,
        leaf_rows::{OWN, Row, at, leaf, place, rows},
        record::decode,
        row,
    },
};

/// An event, its position, and its number if it has a row of its own.
type Located = (LogPosition, Option<i64>, EventRow);

/// Returns the events before a position that match, up to `limit`, each with its own position. Returns with them the position down
/// to which the search got, unless it got to the end.
pub(super) async fn events(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    start: SealedPosition,
    limit: u64,
) -> Result<(Vec<(EventRow, SealedPosition)>, Option<SealedPosition>), StoreError> {
    let range = filter.range(None);
    let mut found = own_rows(conn, filter, &range, start, limit).await?;
    let mut stopped_at = None;
    if filter.admits_tokens() {
        let issued;
        (issued, stopped_at) = issued_tokens(conn, filter, &range, start.before, limit).await?;
        found.extend(issued);
    }
    // Stable: a row without a leaf, which stands where the one before it does, comes after that one.
    found.sort_by_key(|(position, ..)| std::cmp::Reverse(*position));
    if let Some(stopped_at) = stopped_at {
        found.retain(|(position, ..)| *position >= stopped_at);
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut last = start;
    let events = found.into_iter().map(|(position, number, event)| {
        last = SealedPosition {
            before: position,
            own: number.map_or(last.own, |number| number - 1),
        };
        (event, last)
    });
    let events = events.collect();
    let stopped_at = stopped_at.map(|before| SealedPosition {
        before,
        own: last.own,
    });
    Ok((events, stopped_at))
}

/// Returns the newest events that have rows of their own.
async fn own_rows(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    range: &Range,
    start: SealedPosition,
    limit: u64,
) -> Result<Vec<Located>, StoreError> {
    let rows = filter
        .own_rows(range)
        .filter(row::Column::Number.lte(start.own))
        .order_by_desc(row::Column::Number)
        .limit(limit)
        .all(conn)
        .await?;
    let numbers = rows.iter().map(|row| row.number);
    let leaves = leaf::Entity::find()
        .filter(leaf::Column::Source.eq(OWN))
        .filter(leaf::Column::Number.is_in(numbers))
        .all(conn)
        .await?;
    // One that was never sealed is shown all the same; a verification names it.
    let mut last = start.before;
    rows.into_iter()
        .map(|row| {
            let mut event = decode(&row.record)?;
            if let Some(leaf) = leaves.iter().find(|leaf| leaf.number == row.number) {
                last = leaf.position(0);
                event.position = Some(last);
            }
            Ok((last, Some(row.number), event))
        })
        .collect()
}

/// Returns the newest events of issued tokens, at least `limit` of them if there are as many. Returns with them the position
/// down to which the search got, unless it got to the end.
async fn issued_tokens(
    conn: &impl ConnectionTrait,
    filter: &Filter,
    range: &Range,
    start: LogPosition,
    limit: u64,
) -> Result<(Vec<Located>, Option<LogPosition>), StoreError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found: Vec<Located> = Vec::new();
    let Some((first, mut last)) = limits(conn, range, start).await? else {
        return Ok((found, None));
    };
    let mut is_first = true;
    for _ in 0..MAX_GROUPS / GROUPS_AT_ONCE {
        let end = at(last.log_id, last.leaf_index);
        let leaves = group_leaves(range, None)
            .filter(match is_first {
                // The last page may have ended within this leaf.
                true => place().lte(end),
                false => place().lt(end),
            })
            .apply_if(first, |leaves, first| {
                leaves.filter(place().gte(at(first.log_id, first.leaf_index)))
            })
            .all(conn)
            .await?;
        is_first = false;
        let mut groups = rows(conn, &leaves).await?;
        for leaf in &leaves {
            last = leaf.position(0);
            let group = groups.remove(&(leaf.source.clone(), leaf.number));
            // One that is missing is a fault, which a verification names.
            let Some(group) = group.and_then(Row::into_group) else {
                continue;
            };
            for (index, event) in (0..).zip(encoded(&group.events)?) {
                let position = LogPosition { index, ..last };
                let mut event = decode(event)?;
                if position < start && range.holds(&event.event_id) && filter.matches(&event) {
                    event.position = Some(position);
                    found.push((position, None, event));
                }
            }
        }
        if (leaves.len() as u64) < GROUPS_AT_ONCE || found.len() >= limit {
            return Ok((found, None));
        }
    }
    Ok((found, Some(last)))
}

/// Returns the leaves that a range of time limits the search to: the first one, and the last one. `None` if there are none.
///
/// An index has the times of groups. A group that is sealed long after newer ones is not looked for.
async fn limits(
    conn: &impl ConnectionTrait,
    range: &Range,
    start: LogPosition,
) -> Result<Option<(Option<LogPosition>, LogPosition)>, StoreError> {
    let mut last = start;
    if let Some(until) = &range.until {
        let until = until.later(LATENESS_MILLIS);
        let newest = sealed_group(conn, |times| times.lt(until.as_str()), true);
        let Some(newest) = newest.await? else {
            return Ok(None);
        };
        last = last.min(newest);
    }
    let mut first = None;
    if let Some(from) = &range.from {
        let from = from.earlier(LATENESS_MILLIS);
        let oldest = sealed_group(conn, |times| times.gte(from.as_str()), false);
        let Some(oldest) = oldest.await? else {
            return Ok(None);
        };
        first = Some(oldest);
    }
    Ok(Some((first, last)))
}
