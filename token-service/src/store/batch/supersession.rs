//! Ends the active grants of clients whose codes are redeemed, with the families of these grants: six statements for a
//! group, and one if there are none. Each row is locked, checked and written with a new MAC.

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{
        StoreError, Transaction,
        batch::json_rows::{Column, JsonRows},
        rows,
    },
};
use sea_orm::FromQueryResult;
use serde_json::{Value, json};

use super::super::entity::{family, grant};
use crate::model::grant::StoredState;

/// A client at a tenant.
pub(super) type ClientKey = (String, String);

/// The MACs of a row before and after its change.
const MACS: [Column; 2] = [("old_mac", "text"), ("mac", "text")];

static FIND_ACTIVE: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("client_id", "text")], |dialect| {
        format!(
            "SELECT grants.* FROM {} JOIN grants ON grants.tenant_id = input.tenant_id
                AND grants.client_id = input.client_id AND grants.state = 'active'
            ORDER BY grants.tenant_id, grants.client_id {}",
            dialect.input,
            dialect.lock("grants"),
        )
    })
});

static END_GRANTS: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [&super::GRANT_KEY[..], &MACS].concat();
    JsonRows::new(&columns, |dialect| {
        format!(
            "UPDATE grants SET state = 'superseded', ended_at = $2, mac = {} FROM {}
            WHERE grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id
                AND grants.mac = {}",
            dialect.unhex("input.mac"),
            dialect.input,
            dialect.unhex("input.old_mac"),
        )
    })
});

static FIND_FAMILIES: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&super::GRANT_KEY, |dialect| {
        format!(
            "SELECT families.* FROM {} JOIN families ON families.tenant_id = input.tenant_id
                AND families.grant_id = input.grant_id AND families.ended_at IS NULL
            ORDER BY families.tenant_id, families.family_id {}",
            dialect.input,
            dialect.lock("families"),
        )
    })
});

static END_FAMILIES: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [&[("tenant_id", "text"), ("family_id", "text")][..], &MACS].concat();
    JsonRows::new(&columns, |dialect| {
        format!(
            "UPDATE families SET ended_at = $2, end_reason = 'grant_ended', mac = {} FROM {}
            WHERE families.tenant_id = input.tenant_id AND families.family_id = input.family_id
                AND families.mac = {}",
            dialect.unhex("input.mac"),
            dialect.input,
            dialect.unhex("input.old_mac"),
        )
    })
});

/// Ends the active grant of each client at its tenant, with the grant's families. `clients` have `tenant_id` and
/// `client_id`. Returns the ids of the ended grants.
pub(super) async fn supersede(
    tx: &Transaction,
    key: &DataKey,
    clients: &[&Value],
    now: UnixMillis,
) -> Result<HashMap<ClientKey, String>, StoreError> {
    let now = now.as_millis();
    let (mut superseded, mut grants) = (HashMap::new(), Vec::new());
    let found = FIND_ACTIVE.query(tx, clients, []).await?;
    let found = found.iter().map(|row| grant::Model::from_query_result(row, ""));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let is_theirs = |row: &grant::Model| {
        let is_of =
            |client: &&Value| client["tenant_id"] == row.tenant_id && client["client_id"] == row.client_id;
        row.state == StoredState::Active.as_ref() && clients.iter().any(is_of)
    };
    for row in rows::check_locked::<grant::Entity>(tx, found, is_theirs).await? {
        let before = row.into_row();
        let mut row = before.clone();
        row.state = StoredState::Superseded.as_ref().to_owned();
        row.ended_at = Some(now);
        rows::protect::<grant::Entity>(key, &mut row)?;
        rows::note_version::<grant::Entity>(tx, Some(&before), &row)?;
        grants.push(json!({
            "tenant_id": row.tenant_id,
            "grant_id": row.grant_id,
            "old_mac": hex::encode(before.mac),
            "mac": hex::encode(row.mac),
        }));
        superseded.insert((row.tenant_id, row.client_id), row.grant_id);
    }
    write(tx, &END_GRANTS, &grants, now).await?;
    if grants.is_empty() {
        return Ok(superseded);
    }
    let mut families = Vec::new();
    let found = FIND_FAMILIES.query(tx, &grants, []).await?;
    let found = found.iter().map(|row| family::Model::from_query_result(row, ""));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let is_of_grants = |row: &family::Model| {
        let is_of = |grant: &Value| grant["tenant_id"] == row.tenant_id && grant["grant_id"] == row.grant_id;
        row.ended_at.is_none() && grants.iter().any(is_of)
    };
    for row in rows::authentic_of_locked::<family::Entity>(tx, found, is_of_grants).await? {
        let before = row.into_row();
        let mut row = before.clone();
        row.ended_at = Some(now);
        row.end_reason = Some("grant_ended".to_owned());
        rows::protect::<family::Entity>(key, &mut row)?;
        rows::note_version::<family::Entity>(tx, Some(&before), &row)?;
        families.push(json!({
            "tenant_id": row.tenant_id,
            "family_id": row.family_id,
            "old_mac": hex::encode(before.mac),
            "mac": hex::encode(row.mac),
        }));
    }
    write(tx, &END_FAMILIES, &families, now).await?;
    Ok(superseded)
}

/// Writes rows that this transaction has locked.
async fn write(tx: &Transaction, how: &JsonRows, rows: &[Value], now: i64) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let written = how.execute(tx, rows, [now.into()]).await?.rows_affected();
    match written == rows.len() as u64 {
        true => Ok(()),
        false => Err(StoreError::Busy),
    }
}
