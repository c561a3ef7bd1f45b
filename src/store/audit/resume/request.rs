//! The request to resume, which waits for the confirmation of a second person.

use sea_orm::entity::prelude::*;
use subtle::ConstantTimeEq;

use super::{super::protection, CONFIRM_WITHIN, Decider, ResumeError, Resuming};
use crate::{
    clock::UnixMillis,
    keys::{DataKey, Keyring},
    store::StoreError,
    text::person::are_different_persons,
};

/// The id of the only row.
pub(super) const ONLY: i32 = 1;

/// The pending request. There is at most one: a later one replaces it.
mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_resume_requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub resume_id: String,
        pub operator_id: String,
        pub person: String,
        pub reason: String,
        pub fault: String,
        /// The digest of what is wrong.
        pub pin: String,
        pub origin: String,
        pub requested_at: i64,
        pub key_version: i32,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();
}

pub(super) use row::{Column, Entity, Model};

impl Resuming<'_> {
    /// Returns the request that waits for a confirmation by this operator.
    pub(super) async fn pending(
        &self,
        conn: &impl ConnectionTrait,
        by: &Decider,
        resume_id: &str,
    ) -> Result<Model, ResumeError> {
        let row = Entity::find_by_id(ONLY).one(conn).await?;
        let row = row
            .filter(|row| row.resume_id == resume_id)
            .ok_or(ResumeError::NoRequest)?;
        check(self.keyring, &row)?;
        let requested_at = UnixMillis::from_millis(row.requested_at);
        if self.clock.now() > requested_at.plus(CONFIRM_WITHIN) {
            return Err(ResumeError::NoRequest);
        }
        if row.operator_id == by.operator_id.as_str() || !are_different_persons(&row.person, &by.person) {
            return Err(ResumeError::SamePerson);
        }
        Ok(row)
    }
}

/// Returns the MAC of a request.
pub(super) fn mac(key: &DataKey, row: &Model) -> [u8; 32] {
    key.hmac(&[
        b"resume",
        row.resume_id.as_bytes(),
        row.operator_id.as_bytes(),
        row.person.as_bytes(),
        row.reason.as_bytes(),
        row.fault.as_bytes(),
        row.pin.as_bytes(),
        row.origin.as_bytes(),
        &row.requested_at.to_be_bytes(),
    ])
}

fn check(keyring: &Keyring, row: &Model) -> Result<(), StoreError> {
    const EDITED: StoreError = StoreError::Corrupt("the request to resume the audit log");
    let key = keyring
        .version(protection::KEYRING_PURPOSE, row.key_version)
        .ok_or(EDITED)?;
    match bool::from(row.mac.ct_eq(&mac(key, row))) {
        true => Ok(()),
        false => Err(EDITED),
    }
}
