//! What is in no log, and belongs to none: rows that no leaf names, leaves of logs that there are not, and rows that a resume has
//! stepped over and that have changed since.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    super::{
        extent::{Extent, of_rows},
        group,
        leaf_rows::{OWN, last_leaf, leaf, rows_between},
        row,
    },
    Fault, Findings, RecordedFacts, whole,
};
use crate::store::{StoreError, log};

/// How many numbers are compared at a time.
const NUMBERS: u64 = 5_000;
/// The most strays of one source that are named one by one. Whoever inserts more has shown enough.
const MOST_STRAYS: usize = 10_000;

/// A row that no leaf names.
pub(super) struct Stray {
    pub(super) number: i64,
    pub(super) event_id: String,
    /// The digest of its columns.
    pub(super) content: String,
}

/// Looks for what no log accounts for.
pub(super) async fn find(
    conn: &impl ConnectionTrait,
    facts: &RecordedFacts,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    leaves_of_no_log(conn, findings).await?;
    groups(conn, facts, findings).await?;
    for accepted in &facts.accepted {
        for stepped in &accepted.rows {
            let found = of_rows(conn, &stepped.writer, (stepped.from, stepped.through)).await?;
            // Retention removes the rows together with the event.
            let is_changed = found != stepped.digest
                && row::Entity::find_by_id(accepted.number)
                    .one(conn)
                    .await?
                    .is_some();
            if is_changed {
                let (writer, from, through) = (&stepped.writer, stepped.from, stepped.through);
                let what = format!(
                    "numbers {from} to {through} of `{writer}` were changed since a resume has stepped over them"
                );
                findings.add(whole(what), &found);
            }
        }
    }
    Ok(())
}

async fn leaves_of_no_log(conn: &impl ConnectionTrait, findings: &mut Findings) -> Result<(), StoreError> {
    let all = log::all(conn).await?;
    let known = all.logs.iter().map(|log| log.log_id);
    let known: HashSet<_> = known.chain(all.unreadable).collect();
    let mut after = i64::MIN;
    // One look at the key for each log.
    while let Some(next) = leaf::Entity::find()
        .filter(leaf::Column::LogId.gt(after))
        .order_by_asc(leaf::Column::LogId)
        .order_by_asc(leaf::Column::LeafIndex)
        .limit(1)
        .one(conn)
        .await?
    {
        after = next.log_id;
        if !known.contains(&next.log_id) {
            findings.add_whole(format!("leaf {} is in no log", next.leaf_index));
        }
    }
    Ok(())
}

/// Looks for groups that count as sealed and that no leaf names, a writer at a time.
async fn groups(
    conn: &impl ConnectionTrait,
    facts: &RecordedFacts,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut after = String::new();
    while let Some((writer, from)) = group::Entity::find()
        .select_only()
        .columns([group::Column::Writer, group::Column::Number])
        .filter(group::Column::Writer.gt(&*after))
        .order_by_asc(group::Column::Writer)
        .order_by_asc(group::Column::Number)
        .limit(1)
        .into_tuple::<(String, i64)>()
        .one(conn)
        .await?
    {
        // The writer before its leaves: what counts as sealed by then has one.
        let row = group::writer::Entity::find_by_id(&*writer).one(conn).await?;
        let sealed = row.map_or(i64::MAX, |row| row.sealed);
        // Nothing but the numbers: another column of an edited leaf may not be readable.
        let number =
            |leaf: Select<leaf::Entity>| leaf.select_only().column(leaf::Column::Number).into_tuple();
        let first = leaf::Entity::find()
            .filter(leaf::Column::Source.eq(&*writer))
            .order_by_asc(leaf::Column::Number)
            .limit(1);
        let first: Option<i64> = number(first).one(conn).await?;
        let named = first.zip(number(last_leaf(&writer)).one(conn).await?);
        for stray in unnamed(conn, facts, &writer, (from, sealed), named).await? {
            let fault = Fault::new(stray.event_id, "its group was never sealed where it stands");
            findings.add(fault, &stray.content);
        }
        after = writer;
    }
    Ok(())
}

/// Returns the rows of a source in a range of numbers that no leaf names, but for those that a resume has stepped over. `named` are the
/// first and the last number that leaves name: unless a leaf names another row than its own, they name all between.
pub(super) async fn unnamed(
    conn: &impl ConnectionTrait,
    facts: &RecordedFacts,
    source: &str,
    (from, through): (i64, i64),
    named: Option<(i64, i64)>,
) -> Result<Vec<Stray>, StoreError> {
    let ranges = match named {
        Some((first, last)) if !facts.has_wrong_places => {
            vec![(from, first.saturating_sub(1)), (last.saturating_add(1), through)]
        }
        _ => vec![(from, through)],
    };
    let mut strays = Vec::new();
    for range in ranges {
        strays.extend(unnamed_in(conn, facts, source, range).await?);
    }
    Ok(strays)
}

/// Compares a bounded number of rows and leaves at a time, each in the order of a key.
async fn unnamed_in(
    conn: &impl ConnectionTrait,
    facts: &RecordedFacts,
    source: &str,
    (from, through): (i64, i64),
) -> Result<Vec<Stray>, StoreError> {
    let stepped: Vec<_> = facts
        .stepped()
        .filter(|stepped| stepped.writer == source)
        .map(|stepped| (stepped.from, stepped.through))
        .collect();
    let (mut strays, mut next) = (Vec::new(), Some(from));
    while let Some(from) = next.filter(|from| *from <= through && strays.len() < MOST_STRAYS) {
        let numbers = numbers(conn, source, (from, through)).await?;
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            break;
        };
        next = last.checked_add(1);
        let named = leaf::Entity::find()
            .select_only()
            .column(leaf::Column::Number)
            .filter(leaf::Column::Source.eq(source))
            .filter(leaf::Column::Number.between(*first, *last))
            .into_tuple::<i64>()
            .all(conn)
            .await?;
        let named: HashSet<_> = named.into_iter().collect();
        for number in numbers {
            let is_stepped = stepped
                .iter()
                .any(|(from, through)| (*from..=*through).contains(&number));
            if is_stepped || named.contains(&number) {
                continue;
            }
            // Retention may have removed it meanwhile, with its leaf.
            if let Some(row) = rows_between(conn, source, (number, number), 1).await?.pop() {
                let mut content = Extent::new();
                content.add_row(&row);
                strays.push(Stray {
                    number,
                    event_id: row.event_id().to_owned(),
                    content: content.finish(),
                });
            }
        }
    }
    Ok(strays)
}

async fn numbers(
    conn: &impl ConnectionTrait,
    source: &str,
    (from, through): (i64, i64),
) -> Result<Vec<i64>, StoreError> {
    if source == OWN {
        let rows = row::Entity::find()
            .select_only()
            .column(row::Column::Number)
            .filter(row::Column::Number.between(from, through))
            .order_by_asc(row::Column::Number)
            .limit(NUMBERS);
        return Ok(rows.into_tuple().all(conn).await?);
    }
    let rows = group::Entity::find()
        .select_only()
        .column(group::Column::Number)
        .filter(group::Column::Writer.eq(source))
        .filter(group::Column::Number.between(from, through))
        .order_by_asc(group::Column::Number)
        .limit(NUMBERS);
    Ok(rows.into_tuple().all(conn).await?)
}
