//! The audit record: who did what to what, and whether it was allowed. Append only: nothing here changes an event, and
//! only age deletes one.
//!
//! An event is stored in one of two shapes. That of a change is a row of its own, in the transaction of the change; it has
//! a number without gaps. Those of issued tokens share a row for each group commit. Both hold the encoded form,
//! [`crate::audit::v1::AuditRecord`].
//!
//! An event's id is a ULID whose time is the event's time. Details are for people who investigate; they must not hold a
//! secret, token or account name.

use sea_orm::{ActiveValue::Set, QuerySelect, entity::prelude::*};

use self::check::remove_beyond;
use super::{
    Keyed, StoreError, Transaction, change,
    rows::{all_written, version},
};
use crate::{
    clock::Clock,
    random::Random,
    text::id::{ClientId, EventId, TenantId},
};

mod check;
mod event;
mod extent;
pub(in crate::store) mod group;
mod leaf_rows;
mod list;
mod open_log;
mod proof;
pub(in crate::store) mod protection;
pub(in crate::store) mod record;
mod resume;
mod retention;
mod rollup;
mod seal;
mod verify;

pub use check::{UNREAD_VERSION, sealed_number};
pub use event::{
    Actor, ActorKind, CallerAddress, Event, GrantType, IssuedToken, Origin, Outcome, Record, Renewal,
    RowVersion,
    action::{self, Action},
    next_id,
};
pub use group::{Appended, GroupWriter, delete_ended_writers};
pub use list::{
    Cursor, Filter,
    actions::operator_actions,
    export::{Exported, export, has_position},
    find_issued, known, list,
    position::LogPosition,
};
pub use open_log::ensure_log;
pub use proof::{EventProof, Proven, prove};
pub use protection::KEYRING_PURPOSE;
pub use record::{EventRow, TokenUse};
pub use resume::restore::{copied_at, epoch_start};
pub use resume::{
    AuditAccess, CONFIRM_WITHIN, Decider, ResumeError, ResumeRequest, Resumed, Resuming, confirm_resume,
    request_resume,
};
use retention::decode_deleted;
pub use retention::{Deleted, delete_before};
pub use rollup::Rollup;
#[cfg(test)]
pub(crate) use seal::tests::Sealed;
pub use seal::{SealError, check_unsealed, seal};
pub use verify::{
    Fault, LogReport, Report, Verified,
    row_report::{RowReport, check_rows},
    verify_all,
};

/// The events that have a row of their own. The columns beside the number and the record are for searches.
mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i64,
        pub event_id: String,
        pub action: String,
        pub outcome: String,
        pub actor_id: String,
        pub tenant_id: Option<String>,
        pub client_id: Option<String>,
        pub subject: Option<String>,
        pub record: Vec<u8>,
        pub key_version: i32,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();
}

/// Records an event with a transaction, whose commit writes it.
pub async fn record(
    tx: &Transaction,
    clock: &dyn Clock,
    random: &dyn Random,
    origin: &Origin,
    event: Event,
) -> EventId {
    let record = Record::new(clock, random, origin.clone(), event);
    let event_id = record.event_id.clone();
    tx.record(record).await;
    event_id
}

impl Transaction {
    /// Writes the events of the transaction, and commits. After an error it is unknown whether the transaction was
    /// committed.
    pub async fn commit(self) -> Result<(), StoreError> {
        let events = self.take_events().await?;
        Box::pin(insert(&self, events)).await?;
        self.commit_written().await
    }
}

/// Returns whether the database has had an event.
pub(in crate::store) async fn is_begun(conn: &impl ConnectionTrait) -> Result<bool, StoreError> {
    Ok(row::Entity::find().limit(1).one(conn).await?.is_some())
}

/// Inserts events, each into a row of its own. All other writers of such events wait from here to the commit.
async fn insert(tx: &Transaction, mut records: Vec<Record>) -> Result<(), StoreError> {
    let count = records.len();
    let Some(last) = records.last_mut() else {
        return Ok(());
    };
    let key = protection::current(tx.keys().as_deref())?;
    // Before the counter, which others wait for.
    let sealed = sealed_number(tx).await?;
    let first = change::next_event_numbers(tx, count).await?;
    change::check_sealed(sealed, first - 1)?;
    if remove_beyond(tx, (first - 1, first - 1 + count as i64)).await? {
        last.event.add_altered("audit_events");
    }
    let encoded = records.iter().map(|record| (record, record::encode(record)));
    let rows = (first..)
        .zip(encoded)
        .map(|(number, (record, encoded))| row::ActiveModel {
            number: Set(number),
            event_id: Set(record.event_id.as_str().to_owned()),
            action: Set(record.event.action.as_str().to_owned()),
            outcome: Set(record.event.outcome.as_ref().to_owned()),
            actor_id: Set(record.origin.actor.id.clone()),
            tenant_id: Set(record.event.tenant_id.as_ref().map(TenantId::to_string)),
            client_id: Set(record.event.client_id.as_ref().map(ClientId::to_string)),
            subject: Set(record.event.subject_id()),
            key_version: Set(key.version()),
            mac: Set(protection::of_event(&key, number, &encoded).to_vec()),
            record: Set(encoded),
        });
    let insert = row::Entity::insert_many(rows);
    all_written("audit_events", insert.exec_without_returning(tx).await?, count)?;
    for (number, record) in (first..).zip(&records) {
        version::write(tx, number, &record.rows).await?;
    }
    list::actions::insert(tx, &records).await
}

#[cfg(test)]
#[path = "../tests/audit/rows.rs"]
mod tests;
