//! Retention: sealed events are deleted by age, from the first leaf on. Their hashes stay in the log, so that the rest can
//! still be proven complete.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    Event, Origin, action,
    check::{check_contents, check_event},
    leaf_rows::{Row, delete, leaf, rows},
    list::actions,
    record,
    record::decode,
    resume::{self, stepped::decode_resume},
    row,
};
use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{Database, Keyed, StoreError, Transaction, error::lasting, log},
    text::id::{EventId, ulid_at},
    tlog::Hash,
};

/// How many leaves one transaction deletes.
const LEAVES: u64 = 500;

/// What retention has deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many leaves: events with rows of their own, and groups.
    pub leaves: u64,
    /// The log and the leaf at which it has stopped, if that is old enough and not what was sealed, or its log's hashes can't be
    /// read. It stays, with all that come after it, for a verification to name.
    pub stopped_at: Option<(i64, i64)>,
}

/// Deletes sealed events before `since`. An event in each transaction says up to which leaf, so that every deletion is recorded.
///
/// An older log that has a fault which two persons have accepted stays whole until the event of the last such resume is before
/// `since`. Then it is deleted as a whole. Until then, a verification reports exactly the accepted fault.
pub async fn delete_before(
    db: &Database,
    clock: &dyn Clock,
    random: &dyn Random,
    since: UnixMillis,
) -> Result<Deleted, StoreError> {
    let first_kept = EventId::of(ulid_at(since, 0));
    let mut all = Deleted::default();
    loop {
        let deleted = delete_some(db, clock, random, since, &first_kept).await?;
        all.leaves += deleted.leaves;
        if deleted.leaves == 0 || deleted.stopped_at.is_some() {
            all.stopped_at = deleted.stopped_at;
            actions::delete_before(db, since).await?;
            return Ok(all);
        }
    }
}

/// Whether a log with an accepted fault may be deleted.
enum Accepted {
    /// No resume has accepted a fault of it.
    Nothing,
    /// The resume is too recent; keep the log.
    Young,
    /// Delete the whole log, which has so many leaves.
    Old(i64),
}

/// Returns whether a resume has accepted a fault of a log that has ended, by events with the MAC of a holder of the keys.
async fn accepted(tx: &Transaction, log_id: i64, first_kept: &EventId) -> Result<Accepted, StoreError> {
    let logs = log::all(tx).await?.logs;
    let Some(log) = logs.iter().find(|log| log.log_id == log_id) else {
        return Ok(Accepted::Nothing);
    };
    let (Some(keyring), true) = (tx.keys(), logs.last().is_some_and(|last| last.log_id > log_id)) else {
        return Ok(Accepted::Nothing);
    };
    let resumes = row::Entity::find()
        .filter(row::Column::Action.eq(action::AUDIT_LOG_RESUME.as_str()))
        .order_by_asc(row::Column::Number);
    let mut found = Accepted::Nothing;
    for resume in resumes.all(tx).await? {
        let is_of_log = |accepted: resume::stepped::Accepted| {
            accepted
                .faults
                .iter()
                .any(|fault| fault.log == log.origin.as_str())
        };
        if check_event(&keyring, &resume).is_ok()
            && decode_resume(resume.number, &resume.record).is_some_and(is_of_log)
        {
            found = match *resume.event_id < *first_kept.as_str() {
                true => Accepted::Old(i64::try_from(log.head.size).unwrap_or(i64::MAX)),
                false => Accepted::Young,
            };
        }
    }
    Ok(found)
}

async fn delete_some(
    db: &Database,
    clock: &dyn Clock,
    random: &dyn Random,
    since: UnixMillis,
    first_kept: &EventId,
) -> Result<Deleted, StoreError> {
    let tx = db.write().await?;
    // Locked, before anything else is read: another replica may delete the same leaves, with their rows. Once it has, PostgreSQL
    // returns those that come after them.
    let leaves = leaf::Entity::find()
        .order_by_asc(leaf::Column::LogId)
        .order_by_asc(leaf::Column::LeafIndex)
        .limit(LEAVES)
        .lock_exclusive()
        .all(&tx)
        .await?;
    // A log at a time: its leaves are numbered on their own.
    let Some(first) = leaves.first() else {
        return Ok(Deleted::default());
    };
    let leaves: Vec<_> = leaves
        .iter()
        .take_while(|leaf| leaf.log_id == first.log_id)
        .collect();
    let whole = match accepted(&tx, first.log_id, first_kept).await? {
        Accepted::Young => return Ok(Deleted::default()),
        Accepted::Old(size) => Some(size),
        Accepted::Nothing => None,
    };
    // Without hashes, if they are damaged, nothing shows what was sealed.
    let sealed = lasting(sealed(&tx, first, leaves.len()).await)?.unwrap_or_default();
    let mut rows = rows(&tx, leaves.iter().copied()).await?;
    let mut last: Option<&leaf::Model> = None;
    let mut deleted = Deleted::default();
    let mut sealed = sealed.into_iter();
    for (leaf, index) in leaves.into_iter().zip(first.leaf_index..) {
        let row = rows.remove(&(leaf.source.clone(), leaf.number));
        let sealed = sealed.next();
        if whole.is_none() {
            // A row that is missing, or is not what was sealed, is a fault: it stays, for a verification to name.
            let contents = row.as_ref().and_then(|row| check_contents(row).ok());
            let is_sealed = contents.is_some_and(|contents| Some(contents.leaf) == sealed);
            let is_right = leaf.leaf_index == index && is_sealed;
            if !is_right {
                deleted.stopped_at = Some((leaf.log_id, index));
                break;
            }
            if row
                .as_ref()
                .is_none_or(|row| *row.event_id() >= *first_kept.as_str())
            {
                break;
            }
        }
        if let Some(Row::Own(row)) = &row
            && let Some(resume) = decode_resume(row.number, &row.record)
        {
            // The rows that it has stepped over are as old, and nothing else says why no log has them.
            for stepped in &resume.rows {
                delete(&tx, &stepped.writer, (stepped.from, stepped.through)).await?;
            }
        }
        delete(&tx, &leaf.source, (leaf.number, leaf.number)).await?;
        last = Some(leaf);
        deleted.leaves += 1;
    }
    let Some(last) = last else { return Ok(deleted) };
    leaf::Entity::delete_many()
        .filter(leaf::Column::LogId.eq(last.log_id))
        .filter(leaf::Column::LeafIndex.lte(last.leaf_index))
        .exec(&tx)
        .await?;
    // When the whole log is deleted, its first deletion event already covers every leaf.
    let through = whole.map_or(last.leaf_index, |size| size - 1);
    let event = Event::new(action::AUDIT_EVENTS_DELETE)
        .detail("count", deleted.leaves.to_string())
        .detail("log", last.log_id.to_string())
        .detail("through", through.to_string())
        .detail("until", since.to_timestamp().to_string());
    record(&tx, clock, random, &Origin::system("retention"), event).await;
    tx.commit().await?;
    Ok(deleted)
}

/// Returns the hashes that were sealed from a leaf on, of so many leaves; none if the log does not have them.
async fn sealed(tx: &Transaction, first: &leaf::Model, count: usize) -> Result<Vec<Hash>, StoreError> {
    let Ok(from) = u64::try_from(first.leaf_index) else {
        return Ok(Vec::new());
    };
    log::leaves(tx, first.log_id, from..from + count as u64).await
}

/// Returns the log, and the last deleted leaf of it, that an event names, if it is one about deleted leaves.
pub(super) fn decode_deleted(encoded: &[u8]) -> Option<(i64, u64)> {
    let event = decode(encoded).ok()?;
    if event.action != action::AUDIT_EVENTS_DELETE.as_str() {
        return None;
    }
    Some((
        event.detail.get("log")?.parse().ok()?,
        event.detail.get("through")?.parse().ok()?,
    ))
}
