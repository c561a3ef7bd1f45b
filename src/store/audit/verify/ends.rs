//! Where a log begins and ends: nothing lies between two logs, outside of them, or beyond what counts as sealed.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{Fault, one_log::Verification, strays::unnamed, whole};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError,
        audit::{
            action, check, group,
            leaf_rows::{OWN, last_leaf, leaf},
            resume::stepped::Stepped,
            row,
            seal::last_own,
        },
        log,
    },
};

/// What is wrong, and the digest of what was found.
pub(super) type Wrong = Vec<(Fault, String)>;

fn wrong(what: String) -> (Fault, String) {
    (whole(what), String::new())
}

impl<C: Keyed> Verification<'_, C> {
    /// Looks for the event of a retention that is not sealed yet, with the MAC of a holder of the keys.
    pub(super) async fn read_retention(&mut self, keyring: Option<&Keyring>) -> Result<(), StoreError> {
        let keyring = keyring.filter(|_| self.is_open);
        let (Some(keyring), Ok(sealed)) = (keyring, last_own(&self.log)) else {
            return Ok(());
        };
        let waiting = row::Entity::find()
            .filter(row::Column::Number.gt(sealed))
            .filter(row::Column::Action.eq(action::AUDIT_EVENTS_DELETE.as_str()))
            .order_by_asc(row::Column::Number);
        for row in waiting.all(self.conn).await? {
            if check::check_event(keyring, &row).is_ok() {
                self.facts.add_event(row.number, &row.record);
            }
        }
        Ok(())
    }

    /// Returns the number of the last event with a row of its own of the log before, if there is one, by its last leaf: its position
    /// may be an edited one, which a resume has accepted. Its own verification compares both. Without a leaf, retention has
    /// removed it.
    async fn older_end(&self) -> Result<Option<i64>, StoreError> {
        let Some(older) = log::before(self.conn, self.log.log_id).await? else {
            return Ok(None);
        };
        let last = leaf::Entity::find()
            .filter(leaf::Column::LogId.eq(older.log_id))
            .filter(leaf::Column::Source.eq(OWN))
            .order_by_desc(leaf::Column::LeafIndex)
            .limit(1);
        let last = last.one(self.conn).await?;
        last.map_or_else(|| last_own(&older), |leaf| Ok(leaf.number))
            .map(Some)
    }

    /// Checks that the log goes on where the one before it ends, but for what a resume has stepped over. Once retention has
    /// removed the beginning of the log, there is nothing to compare.
    pub(super) async fn check_begins(&self, first: u64) -> Result<Wrong, StoreError> {
        let mut found = Vec::new();
        let older = if first > 0 { None } else { self.older_end().await? };
        let Some(older) = older else { return Ok(found) };
        let end = last_own(&self.log)?;
        let begin = self.first.get(OWN).map_or(end, |first| first - 1);
        found.extend(self.check_gap(OWN, older, begin));
        let mut sources: Vec<_> = self.first.iter().filter(|(source, _)| *source != OWN).collect();
        sources.sort_unstable();
        for (writer, first) in sources {
            let before = last_leaf(writer).filter(leaf::Column::Number.lt(*first));
            let last = before.one(self.conn).await?;
            // Without one, retention has removed it, or the writer is new.
            if let Some(last) = last {
                found.extend(self.check_gap(writer, last.number, first - 1));
            }
        }
        Ok(found)
    }

    /// Checks that a resume has stepped over the rows of a source after `end`, up to `begin`.
    fn check_gap(&self, source: &str, end: i64, begin: i64) -> Option<(Fault, String)> {
        let is_stepped = |stepped: &Stepped| {
            (stepped.writer.as_str(), stepped.from, stepped.through) == (source, end + 1, begin)
        };
        match begin <= end || self.facts.stepped().any(is_stepped) {
            true => None,
            false => Some(wrong(format!(
                "numbers {} to {begin} of `{source}` are in no log, and no resume says why",
                end + 1
            ))),
        }
    }

    /// Checks that what counts as sealed ends where the leaves end, so that nobody has moved the sealer over events.
    pub(super) async fn check_ends(&self, first: u64) -> Result<Wrong, StoreError> {
        let mut found = Vec::new();
        let own = self.last.get(OWN);
        let position = last_own(&self.log)?;
        let is_first_log = self.log.log_id == 1 && first == 0;
        let is_right = match own {
            Some(last) => *last == position,
            None if first > 0 => true,
            None => match self.older_end().await? {
                Some(end) => {
                    let mut stepped = self.facts.stepped().filter(|stepped| stepped.writer == OWN);
                    end == position || stepped.any(|stepped| stepped.through == position)
                }
                None => !is_first_log || position == 0,
            },
        };
        if !is_right {
            found.push(wrong(
                "the log's position is not that of its last event".to_owned(),
            ));
        }
        if !self.is_open {
            return Ok(found);
        }
        let writers = group::writer::Entity::find().order_by_asc(group::writer::Column::Writer);
        for writer in writers.all(self.conn).await? {
            let last = self.last.get(&writer.writer);
            if last.map_or(is_first_log && writer.sealed != 0, |last| *last != writer.sealed) {
                found.push(wrong(format!(
                    "what is sealed of the writer {} is not what the log has",
                    writer.writer
                )));
            }
        }
        Ok(found)
    }

    /// Looks for leaves behind the end of the log, and for events that count as sealed in this log and that no leaf names.
    ///
    /// The leaves of a source were seen to have numbers without gaps. So only the numbers before the first and after the last
    /// of them can have rows that none names, and nothing compares two tables.
    pub(super) async fn strays(&mut self) -> Result<Wrong, StoreError> {
        let mut found = Vec::new();
        let size = i64::try_from(self.log.head.size).map_err(|_| StoreError::Corrupt("audit_logs"))?;
        for outside in [
            leaf::Column::LeafIndex.lt(0_i64),
            leaf::Column::LeafIndex.gte(size),
        ] {
            let mut after = None::<i64>;
            loop {
                let mut strays = leaf::Entity::find()
                    .filter(leaf::Column::LogId.eq(self.log.log_id))
                    .filter(outside.clone());
                if let Some(after) = after {
                    strays = strays.filter(leaf::Column::LeafIndex.gt(after));
                }
                let stray = strays
                    .order_by_asc(leaf::Column::LeafIndex)
                    .limit(1)
                    .one(self.conn)
                    .await?;
                let Some(stray) = stray else { break };
                after = Some(stray.leaf_index);
                let what = format!("leaf {} is in no log", stray.leaf_index);
                found.push((whole(what), format!("{} {}", stray.source, stray.number)));
            }
        }
        found.extend(self.stray_rows().await?);
        Ok(found)
    }

    async fn stray_rows(&mut self) -> Result<Wrong, StoreError> {
        // Somebody may have moved the position over events to come: these are no strays.
        let sealed = last_leaf(OWN).one(self.conn).await?;
        let position = last_own(&self.log)?.min(sealed.map_or(i64::MIN, |leaf| leaf.number));
        let older = self.older_end().await?;
        let from = older.map_or(i64::MIN, |older| older.saturating_add(1));
        let named = self.first.get(OWN).copied().zip(self.last.get(OWN).copied());
        let mut found = Vec::new();
        for stray in unnamed(self.conn, self.facts, OWN, (from, position), named).await? {
            self.facts.untrusted.add(stray.number, stray.number);
            let fault = Fault::new(stray.event_id, "it was never sealed where it stands");
            found.push((fault, stray.content));
        }
        Ok(found)
    }
}
