//! Where a log begins and ends: nothing lies between two logs, outside of them, or beyond what counts as sealed.

use sea_orm::{
    Condition, ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*,
    sea_query::Expr,
};

use super::{Stop, Verification, fault};
use crate::{
    keys::Keyring,
    store::{
        StoreError,
        audit::{
            check, group,
            resume::stepped::{Accepted, Stepped},
            retention::DELETE,
            row,
            seal::{OWN, leaf},
        },
        log::{self, Log},
    },
};

/// Returns the number of the last event with a row of its own that a log counts as sealed.
fn position_of(log: &Log) -> Result<i64, StoreError> {
    let position = log.position.parse();
    position.map_err(|_| StoreError::Corrupt("audit_logs"))
}

impl<C: ConnectionTrait> Verification<'_, C> {
    /// Returns the rows that resumes have stepped over, as far as the logs that were read say.
    fn stepped(&self) -> impl Iterator<Item = &Stepped> {
        self.told.accepted.iter().flat_map(|accepted| &accepted.rows)
    }

    /// Looks for the event of a retention that is not sealed yet, with the MAC of a holder of the keys.
    pub(super) async fn read_retention(&mut self, keyring: Option<&Keyring>) -> Result<(), Stop> {
        let Some(keyring) = keyring.filter(|_| self.is_open) else {
            return Ok(());
        };
        let sealed = position_of(&self.log)?;
        let waiting = row::Entity::find()
            .filter(row::Column::Number.gt(sealed))
            .filter(row::Column::Action.eq(DELETE))
            .order_by_asc(row::Column::Number);
        for row in waiting.all(self.conn).await? {
            if check::check_event(keyring, &row).is_ok() {
                self.told.removed(&row.record);
            }
        }
        Ok(())
    }

    /// Checks that the log goes on where the one before it ends, but for what a resume has stepped over. Once retention has
    /// removed the beginning of the log, there is nothing to compare.
    pub(super) async fn check_begins(&self, first: u64) -> Result<(), Stop> {
        let Some(older) = log::before(self.conn, self.log.log_id).await? else {
            return Ok(());
        };
        if first > 0 {
            return Ok(());
        }
        let end = position_of(&self.log)?;
        let begin = self.first.get(OWN).map_or(end, |first| first - 1);
        self.check_gap(OWN, position_of(&older)?, begin)?;
        for (writer, first) in self.first.iter().filter(|(source, _)| *source != OWN) {
            let last = leaf::Entity::find()
                .filter(leaf::Column::Source.eq(writer))
                .filter(leaf::Column::Number.lt(*first))
                .order_by_desc(leaf::Column::Number)
                .limit(1)
                .one(self.conn)
                .await?;
            // Without one, retention has removed it, or the writer is new.
            if let Some(last) = last {
                self.check_gap(writer, last.number, first - 1)?;
            }
        }
        Ok(())
    }

    /// Checks that a resume has stepped over the rows of a source after `end`, up to `begin`.
    fn check_gap(&self, source: &str, end: i64, begin: i64) -> Result<(), Stop> {
        let is_stepped = |stepped: &Stepped| {
            (stepped.writer.as_str(), stepped.from, stepped.through) == (source, end + 1, begin)
        };
        match begin <= end || self.stepped().any(is_stepped) {
            true => Ok(()),
            false => Err(fault(
                "",
                format!(
                    "numbers {} to {begin} of `{source}` are in no log, and no resume says why",
                    end + 1
                ),
            )),
        }
    }

    /// Checks that what counts as sealed ends where the leaves end, so that nobody has moved the sealer over events.
    pub(super) async fn check_ends(&self, first: u64) -> Result<(), Stop> {
        let own = self.last.get(OWN);
        let position = position_of(&self.log)?;
        let is_first_log = self.log.log_id == 1 && first == 0;
        if own.map_or(is_first_log && position != 0, |last| *last != position) {
            return Err(fault("", "the log's position is not that of its last event"));
        }
        if !self.is_open {
            return Ok(());
        }
        for writer in group::writer::Entity::find().all(self.conn).await? {
            let last = self.last.get(&writer.writer);
            if last.map_or(is_first_log && writer.sealed != 0, |last| *last != writer.sealed) {
                let what = format!(
                    "what is sealed of the writer {} is not what the log has",
                    writer.writer
                );
                return Err(fault("", what));
            }
        }
        Ok(())
    }

    /// Looks for rows that count as sealed and that no leaf names, and for leaves that no log has.
    pub(super) async fn strays(&self) -> Result<(), Stop> {
        let size = i64::try_from(self.log.head.size).map_err(|_| StoreError::Corrupt("audit_logs"))?;
        let outside = Condition::any()
            .add(leaf::Column::LeafIndex.lt(0))
            .add(leaf::Column::LeafIndex.gte(size));
        let outside = Condition::all()
            .add(leaf::Column::LogId.eq(self.log.log_id))
            .add(outside);
        let of_no_log = leaf::Column::LogId.not_in_subquery(log::ids());
        let stray = leaf::Entity::find().filter(Condition::any().add(outside).add(of_no_log));
        if let Some(stray) = stray.one(self.conn).await? {
            return Err(fault("", format!("leaf {} is in no log", stray.leaf_index)));
        }
        self.stray_rows().await
    }

    async fn stray_rows(&self) -> Result<(), Stop> {
        let leaves = || leaf::Entity::find().select_only().expr(Expr::value(1));
        let own = |column| Expr::col((row::Entity, column));
        let named = leaves()
            .filter(leaf::Column::Source.eq(OWN))
            .filter(own(row::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
            .into_query();
        let position = position_of(&self.log)?;
        let older = log::before(self.conn, self.log.log_id).await?;
        let older = older.as_ref().map(position_of).transpose()?;
        let mut strays = row::Entity::find()
            .filter(row::Column::Number.lte(position))
            .apply_if(older, |rows, older| rows.filter(row::Column::Number.gt(older)))
            .filter(Expr::exists(named).not());
        for stepped in self.stepped().filter(|stepped| stepped.writer == OWN) {
            let passed = row::Column::Number.between(stepped.from, stepped.through);
            strays = strays.filter(passed.not());
        }
        let stray = strays.one(self.conn).await?;
        if let Some(stray) = stray {
            return Err(fault(&stray.event_id, "it was never sealed where it stands"));
        }
        Ok(())
    }
}

/// Looks for groups that count as sealed and that no leaf names, but for those that resumes have stepped over.
pub(super) async fn stray_groups(conn: &impl ConnectionTrait, accepted: &[Accepted]) -> Result<(), Stop> {
    let leaves = || leaf::Entity::find().select_only().expr(Expr::value(1));
    let of_group = |column| Expr::col((group::Entity, column));
    let named = leaves()
        .filter(of_group(group::Column::Writer).equals((leaf::Entity, leaf::Column::Source)))
        .filter(of_group(group::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
        .into_query();
    let waits = group::writer::Entity::find()
        .select_only()
        .expr(Expr::value(1))
        .filter(
            of_group(group::Column::Writer).equals((group::writer::Entity, group::writer::Column::Writer)),
        )
        .filter(
            of_group(group::Column::Number)
                .gt(Expr::col((group::writer::Entity, group::writer::Column::Sealed))),
        )
        .into_query();
    let mut strays = group::Entity::find()
        .filter(Expr::exists(named).not())
        .filter(Expr::exists(waits).not());
    for stepped in accepted
        .iter()
        .flat_map(|accepted| &accepted.rows)
        .filter(|stepped| stepped.writer != OWN)
    {
        let passed = Condition::all()
            .add(group::Column::Writer.eq(&*stepped.writer))
            .add(group::Column::Number.between(stepped.from, stepped.through));
        strays = strays.filter(passed.not());
    }
    match strays.one(conn).await? {
        Some(stray) => Err(fault(
            &stray.last_event_id,
            "its group was never sealed where it stands",
        )),
        None => Ok(()),
    }
}
