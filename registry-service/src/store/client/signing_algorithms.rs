//! The FAPI 2.0 Security Profile forbids RS256 (§5.4.1): no client is admitted to it while access tokens are signed so, and
//! there is no key for RS256 while a client follows it, or will.
//!
//! One row holds the algorithms that token-service reported. Both transactions lock it: admitting a client, after the rows of the
//! request and the client, and reporting algorithms, first. So each sees what the other has committed.

use std::collections::BTreeSet;

use accord::store::{
    Keyed, Transaction,
    audit::{Event, Origin, action},
    rows::ProtectedRows,
};
use sea_orm::{QuerySelect, entity::prelude::*, sea_query::Expr};

use super::super::{
    Store, commit, corrupt,
    entity::{
        client,
        signing_algorithms::{Column, Entity},
    },
};
use crate::{
    error::{Error, Result},
    model::integration_request::RequestedSecurityProfile,
};

const TABLE: &str = "signing_algorithms";
const RS256: &str = "RS256";

impl Store {
    /// Records by which algorithms token-service signs. Changes and records nothing if they are the same.
    ///
    /// # Errors
    /// [`Error::ProfileForbidsRs256`].
    pub async fn report_signing_algorithms(
        &self,
        origin: &Origin,
        algorithms: &BTreeSet<String>,
    ) -> Result<()> {
        let new = algorithms
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let row = Entity::find_by_id(1).one(self.db.read()).await?;
        if row.ok_or(corrupt(TABLE))?.algorithms == new {
            return require_no_fapi_client(self.db.read(), &new).await;
        }
        let tx = self.db.write().await?;
        let old = lock(&tx).await?;
        require_no_fapi_client(&tx, &new).await?;
        let update = Entity::update_many().filter(Column::Id.eq(1));
        let update = update.col_expr(Column::Algorithms, Expr::value(new.as_str()));
        update.exec(&tx).await?;
        let event = Event::new(action::SIGNING_ALGORITHMS_REPORT)
            .detail("old", old)
            .detail("new", new);
        self.audit(&tx, origin, event).await?;
        commit(tx, ()).await
    }
}

/// Rejects a request for the profile while a key is for RS256, or about to be made. Until the transaction ends, none comes.
///
/// # Errors
/// [`Error::UnsuitableSigningKey`].
pub(in crate::store) async fn require_signing_key(
    tx: &Transaction,
    profile: RequestedSecurityProfile,
) -> Result<()> {
    match profile {
        RequestedSecurityProfile::Fapi2 { .. } if includes_rs256(&lock(tx).await?) => {
            Err(Error::UnsuitableSigningKey)
        }
        _ => Ok(()),
    }
}

/// Rejects RS256 while a client follows the profile, or will.
async fn require_no_fapi_client(conn: &impl Keyed, algorithms: &str) -> Result<()> {
    if !includes_rs256(algorithms) {
        return Ok(());
    }
    let follows = client::Entity::look_up().not_null(client::Column::FapiFrom);
    match follows.limit(1).read_one(conn).await? {
        None => Ok(()),
        Some(row) => Err(Error::ProfileForbidsRs256(row.into_row().client_id)),
    }
}

/// Reads the algorithms, and locks their row until the transaction ends.
async fn lock(tx: &Transaction) -> Result<String> {
    let row = Entity::find_by_id(1).lock_exclusive().one(tx).await?;
    Ok(row.ok_or(corrupt(TABLE))?.algorithms)
}

fn includes_rs256(algorithms: &str) -> bool {
    algorithms.split(' ').any(|name| name == RS256)
}

#[cfg(test)]
#[path = "../tests/client/signing_algorithms.rs"]
mod tests;
