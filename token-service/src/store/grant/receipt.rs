//! What the receipt of a consent says beside its grant: the texts that the consent page showed, and the changes of the designated
//! user and of the allowed networks. It is stored when it happens, because catalogue and client change, and events leave by retention.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError, Transaction,
        rows::{self, ProtectedRows},
    },
    text::id::{GrantId, TenantId, UserId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{
    Store, corrupt,
    entity::grant_receipt::{Entity, Model},
};
use crate::{
    error::Result,
    model::{
        client::ClientScope,
        grant::{
            Grant, GrantChange,
            receipt::{GrantHistory, MAX_CHANGES, NetworkChange, UserChange},
        },
    },
};

const TABLE: &str = "grant_receipts";

impl Store {
    /// Reads what a receipt says of a grant beside the grant itself.
    pub async fn grant_history(&self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<GrantHistory> {
        let key = (tenant_id.to_string(), grant_id.to_string());
        let row = Entity::look_up_by_id(key).read_one(self.db.read()).await?;
        let row = row.ok_or(corrupt(TABLE))?.into_row();
        Ok(GrantHistory {
            scopes: Deserialize::deserialize(row.scopes).map_err(|_| corrupt(TABLE))?,
            user_changes: Deserialize::deserialize(row.user_changes).map_err(|_| corrupt(TABLE))?,
            network_changes: Deserialize::deserialize(row.network_changes).map_err(|_| corrupt(TABLE))?,
        })
    }
}

/// Stores the scopes of a new grant, with the texts that the consent page showed.
pub(in crate::store) async fn begin(tx: &Transaction, grant: &Grant, shown: &[ClientScope]) -> Result<()> {
    let granted: Vec<_> = shown
        .iter()
        .filter(|scope| grant.scopes.contains(&scope.name))
        .collect();
    let row = Model {
        tenant_id: grant.tenant_id.to_string(),
        grant_id: grant.grant_id.to_string(),
        scopes: json(&granted)?,
        user_changes: json::<[UserChange]>(&[])?,
        network_changes: json::<[NetworkChange]>(&[])?,
        mac: Vec::new(),
    };
    rows::insert::<Entity>(tx, row).await?;
    Ok(())
}

/// Adds a change, with when and by whom it was made. Forgets the oldest one of too many of its kind.
pub(in crate::store) async fn add_change(
    tx: &Transaction,
    grant: &Grant,
    (at, by): (UnixMillis, &UserId),
    change: &GrantChange,
) -> Result<()> {
    let key = (grant.tenant_id.to_string(), grant.grant_id.to_string());
    let row = Entity::look_up_by_id(key).lock_one(tx).await?;
    let mut row = row.ok_or(corrupt(TABLE))?;
    let (changed_at, changed_by) = (at.as_millis(), by.clone());
    match change.clone() {
        GrantChange::DesignatedUser(user_id) => {
            let change = UserChange {
                changed_at,
                changed_by,
                user_id,
            };
            row.user_changes = with(&row.user_changes, change)?;
        }
        GrantChange::AllowedNetworks(allowed_networks) => {
            let change = NetworkChange {
                changed_at,
                changed_by,
                allowed_networks,
            };
            row.network_changes = with(&row.network_changes, change)?;
        }
    }
    Ok(row.save(tx).await?)
}

/// Returns a list of changes with one more.
fn with<T: Serialize + DeserializeOwned>(
    changes: &serde_json::Value,
    change: T,
) -> Result<serde_json::Value> {
    let changes: Vec<T> = Deserialize::deserialize(changes).map_err(|_| corrupt(TABLE))?;
    let forgotten = (changes.len() + 1).saturating_sub(MAX_CHANGES);
    let changes: Vec<_> = changes.into_iter().skip(forgotten).chain([change]).collect();
    Ok(json(&changes)?)
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|_| StoreError::Corrupt(TABLE))
}
