//! Whether an event names what a row stands for. Reads the columns of `audit_events` that say so, and no event.

use sea_orm::{Condition, QuerySelect, QueryTrait, entity::prelude::*};

use crate::store::{StoreError, Transaction, audit::Outcome};

mod event {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub number: i64,
        pub action: String,
        pub outcome: String,
        pub tenant_id: Option<String>,
        pub subject: Option<String>,
    }

    crate::no_relations!();
}

/// Returns whether an event of something that was done is about a resource, by an action with one of these nouns: the subjects of
/// others may be anything, such as the name of a scope. `key` ends with the resource's id, behind its tenant's if it has one.
pub(super) async fn is_event_subject(
    tx: &Transaction,
    nouns: &[&str],
    key: &[&str],
) -> Result<bool, StoreError> {
    let (tenant_id, subject) = match key {
        _ if nouns.is_empty() => return Ok(false),
        [subject] => (None, subject),
        [tenant_id, subject] => (Some(*tenant_id), subject),
        _ => return Ok(false),
    };
    let is_about = nouns.iter().fold(Condition::any(), |any, noun| {
        any.add(event::Column::Action.starts_with(format!("{noun}.")))
    });
    let events = event::Entity::find()
        .filter(event::Column::Subject.eq(*subject))
        .filter(event::Column::Outcome.eq(Outcome::Success.as_ref()))
        .filter(is_about)
        .apply_if(tenant_id, |events, tenant_id| {
            events.filter(event::Column::TenantId.eq(tenant_id))
        });
    Ok(Box::pin(events.limit(1).one(tx)).await?.is_some())
}
