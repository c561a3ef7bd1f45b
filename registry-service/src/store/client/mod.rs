//! Clients in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Keyed, StoreError, Transaction,
        audit::{Action, Event, Origin, action},
        change::Change,
        rows::{self, Authentic, Locked, Lookup, ProtectedRows, all_written},
    },
    text::{
        id::{ClientId, IntegrationRequestId, TenantId},
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Desc, QuerySelect, QueryTrait, Set, entity::prelude::*, sea_query::ExprTrait};

use super::{
    Store, change, commit, corrupt,
    entity::{
        client::{Column, Entity, Model},
        client_secret, client_tenant,
    },
    json, replaced, with_reason,
};
use crate::{
    error::{Error, Result},
    model::{
        change_kind,
        client::{Added, Client, ClientUpdate, State, security::Security},
        integration_request::DisplayInfo,
    },
};

mod amendment;
mod registration;
pub(super) mod security;
pub(super) mod signing_algorithms;
pub(super) mod tenant_index;

impl Store {
    /// Reads a client.
    pub async fn find_client(&self, client_id: &ClientId) -> Result<Option<Client>> {
        find(self.db.read(), client_id).await
    }

    /// Lists clients, newest first.
    pub async fn list_clients(
        &self,
        tenant_id: Option<&TenantId>,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<Client>> {
        let query = Entity::look_up();
        let query = query.apply_if(state, |query, state| query.equal(Column::State, state.as_ref()));
        // No MAC covers the rows that find the clients of a tenant. A client has the tenants of its own row.
        let query = query.apply_if(tenant_id, |query, tenant_id| {
            let clients = client_tenant::Entity::find()
                .select_only()
                .column(client_tenant::Column::ClientId)
                .filter(client_tenant::Column::TenantId.eq(tenant_id.as_str()));
            let tenant_id = serde_json::json!(tenant_id.as_str());
            let has_tenant =
                move |row: &Model| row.tenants.as_array().is_some_and(|all| all.contains(&tenant_id));
            query.filter(Column::ClientId.in_subquery(clients.into_query()), has_tenant)
        });
        self.page(query, Column::ClientId, Desc, page, client).await
    }

    /// Narrows a client: leaves out tenants, scopes, redirect URIs and keys of proofs, and narrows its networks. An update that
    /// removes a tenant, a scope or a key of proofs ends the client's access tokens. Changes and records nothing if the client is
    /// like that already.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for what the client does not have, [`Error::EtagMismatch`].
    pub async fn update_client(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        update: ClientUpdate,
    ) -> Result<Client> {
        let tx = self.db.write().await?;
        // Locks before it compares, so that a racing update compares with what this one writes.
        let row = lock_client(&tx, client_id).await?;
        let before = client(row.stored())?;
        if update.etag.is_some_and(|etag| etag != before.etag) {
            return Err(Error::EtagMismatch("client"));
        }
        let update = update.with_reasons_of(&before);
        update.require_narrowing(&before, "client.")?;
        let Some(update) = update.effective(&before) else {
            return Ok(before);
        };
        let event = event(action::CLIENT_UPDATE, client_id);
        let client = self.change(&tx, origin, event, row, update).await?;
        commit(tx, client).await
    }

    /// Writes a change of a client, whose row is locked, with its event: the old and new values of what it sets.
    ///
    /// New keys, or another method to authenticate, leave the client's `version`, because no consent page shows them.
    pub(super) async fn change(
        &self,
        tx: &Transaction,
        origin: &Origin,
        event: Event,
        mut row: Locked<Entity>,
        update: ClientUpdate,
    ) -> Result<Client> {
        let before = client(row.stored())?;
        let client_id = &before.client_id;
        let (narrows, is_shown) = (update.narrows(&before), update.is_shown());
        let event = replaced_fields(event, &before, &update)?;
        row.set_next_version(self.now());
        if let Some(tenant_ids) = &update.tenant_ids {
            row.tenants = tenants(tenant_ids)?;
            let rows = client_tenant::Entity::delete_many();
            let of_client = client_tenant::Column::ClientId.eq(client_id.as_str());
            rows.filter(of_client).exec(tx).await?;
            index_tenants(tx, client_id, tenant_ids).await?;
        }
        set_fields(&mut row, &before, update)?;
        let change = if narrows {
            tokens_ended(client_id)
        } else {
            changed(client_id)
        };
        let seq = self.publish(tx, origin, event, change).await?;
        if narrows {
            row.tokens_ended_seq = seq;
        }
        if is_shown {
            set_version(&mut row, seq)?;
        }
        row.save(tx).await?;
        client(row.stored())
    }

    /// Suspends or reinstates a client; `reason` may be empty. Changes and records nothing if it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`StoreError::Altered`], after the suspension was recorded and published.
    pub async fn set_client_state(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        to: State,
        reason: &str,
    ) -> Result<Client> {
        let tx = self.db.write().await?;
        let (action, change) = match to {
            State::Suspended => (action::CLIENT_SUSPEND, tokens_ended(client_id)),
            State::Active => (action::CLIENT_REINSTATE, changed(client_id)),
        };
        let event = with_reason(event(action, client_id), reason);
        let mut row = match rows::lock_to_end::<Entity>(&tx, &[client_id.as_str()]).await {
            Err(StoreError::Altered(table)) if to == State::Suspended => {
                let event = event.concerning(indexed_tenants(&tx, client_id).await?);
                return Err(self.end_altered(tx, origin, event, change, table).await);
            }
            row => row?.ok_or(Error::NotFound("client"))?,
        };
        if row.state != to.as_ref() {
            let event = replaced(event, "state", &row.state, &Some(to.as_ref()))?;
            row.state = to.as_ref().to_owned();
            row.set_next_version(self.now());
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Suspended {
                row.tokens_ended_seq = seq;
            }
            row.save(&tx).await?;
        } else if to == State::Suspended {
            self.publish_again(&tx, change).await?;
        }
        commit(tx, client(row.stored())?).await
    }
}

/// Adds to an event the old and the new values of what an update sets.
fn replaced_fields(event: Event, before: &Client, update: &ClientUpdate) -> Result<Event> {
    let (texts, keys) = (&before.presentation, &before.json_web_key_set);
    let event = replaced(event, "display_name", &texts.display_name, &update.display_name)?;
    let event = replaced(
        event,
        "redirect_uris",
        &before.redirect_uris,
        &update.redirect_uris,
    )?;
    let event = replaced(event, "scopes", &before.scopes, &update.scopes)?;
    let event = replaced(event, "tenant_ids", &before.tenant_ids, &update.tenant_ids)?;
    // Those that lose the client see it, too.
    let event = event.concerning(before.tenant_ids.clone());
    let event = replaced(event, "json_web_key_set", keys, &update.json_web_key_set)?;
    security::replaced_security(event, before, update)
}

/// Sets the columns of an update, that of the tenants aside.
fn set_fields(row: &mut Model, before: &Client, update: ClientUpdate) -> Result<()> {
    if let Some(display_name) = update.display_name {
        row.presentation = json(&DisplayInfo {
            display_name,
            ..before.presentation.clone()
        })?;
    }
    if let Some(redirect_uris) = &update.redirect_uris {
        row.redirect_uris = json(redirect_uris)?;
    }
    if let Some(scopes) = &update.scopes {
        row.scopes = json(scopes)?;
    }
    if let Some(keys) = update.json_web_key_set {
        row.json_web_key_set = keys;
    }
    let old = before.security.clone();
    row.security = json(&Security {
        authentication: update.authentication.unwrap_or(old.authentication),
        dpop_jkts: update.dpop_jkts.unwrap_or(old.dpop_jkts),
        allowed_networks: update.allowed_networks.unwrap_or(old.allowed_networks),
    })?;
    if let Some(from) = update.fapi_from {
        row.fapi_from = from.map(UnixMillis::as_millis);
    }
    Ok(())
}

/// Locks a client's row until the transaction ends. Updates of a client, and transactions that count or revoke its
/// secrets, then run one after the other.
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn lock_client(tx: &Transaction, client_id: &ClientId) -> Result<Locked<Entity>> {
    let row = Entity::look_up_by_id(client_id.as_str()).lock_one(tx).await?;
    row.ok_or(Error::NotFound("client"))
}

pub(super) async fn find(conn: &impl Keyed, client_id: &ClientId) -> Result<Option<Client>> {
    let row = Entity::look_up_by_id(client_id.as_str()).read_one(conn).await?;
    row.map(client).transpose()
}

/// Selects the secrets of a client that are neither revoked nor expired.
pub(super) fn unended_secrets(client_id: &ClientId, now: UnixMillis) -> Lookup<client_secret::Entity> {
    use client_secret::{Column, Entity};
    let (expires_at, now) = (Column::ExpiresAt, now.as_millis());
    Entity::look_up()
        .equal(Column::ClientId, client_id.as_str())
        .null(Column::RevokedAt)
        .filter(expires_at.is_null().or(expires_at.gt(now)), move |row| {
            row.expires_at.is_none_or(|at| at > now)
        })
}

pub(super) fn event(action: Action, client_id: &ClientId) -> Event {
    Event::new(action).client(client_id).subject(client_id.as_str())
}

pub(super) fn changed(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT, client_id, None)
}

/// Returns a change that ends the client's access tokens. The caller writes its position to `tokens_ended_seq`.
pub(super) fn tokens_ended(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT_TOKENS_ENDED, client_id, None)
}

/// Sets the version of a client to the position of a change, which is also when it got what is new.
pub(super) fn set_version(row: &mut Model, seq: i64) -> Result<()> {
    let client = parse(row.clone())?;
    row.added = json(&Added::after(&client, seq))?;
    row.version = seq;
    Ok(())
}

/// Returns the column of a client's tenants.
pub(super) fn tenants(tenant_ids: &[TenantId]) -> Result<serde_json::Value> {
    let mut sorted: Vec<_> = tenant_ids.iter().collect();
    sorted.sort_unstable();
    json(&sorted)
}

/// Inserts the rows by which the clients of a tenant are found.
pub(super) async fn index_tenants(
    tx: &Transaction,
    client_id: &ClientId,
    tenant_ids: &[TenantId],
) -> Result<()> {
    let rows = tenant_ids.iter().map(|tenant_id| client_tenant::ActiveModel {
        tenant_id: Set(tenant_id.to_string()),
        client_id: Set(client_id.to_string()),
    });
    let insert = client_tenant::Entity::insert_many(rows);
    let written = insert.exec_without_returning(tx).await?;
    Ok(all_written("client_tenants", written, tenant_ids.len())?)
}

/// Returns the tenants that a client whose row was altered is found by. It may have had others.
async fn indexed_tenants(tx: &Transaction, client_id: &ClientId) -> Result<Vec<TenantId>> {
    let of_client = client_tenant::Column::ClientId.eq(client_id.as_str());
    let rows = client_tenant::Entity::find().filter(of_client).all(tx).await?;
    let tenants = rows.iter().filter_map(|row| TenantId::parse(&row.tenant_id).ok());
    Ok(tenants.collect())
}

/// Returns the tenants that a client may ask for consent; none for a client that does not exist.
pub(super) async fn tenants_of(conn: &impl Keyed, client_id: &ClientId) -> Result<Vec<TenantId>> {
    let client = find(conn, client_id).await?;
    Ok(client.map(|client| client.tenant_ids).unwrap_or_default())
}

pub(super) fn client(row: Authentic<Entity>) -> Result<Client> {
    parse(row.into_row())
}

fn parse(row: Model) -> Result<Client> {
    let unreadable = || corrupt("clients");
    let request_id = IntegrationRequestId::parse(&row.integration_request_id);
    Ok(Client {
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        integration_request_id: request_id.map_err(|_| unreadable())?,
        presentation: serde_json::from_value(row.presentation).map_err(|_| unreadable())?,
        tenant_ids: serde_json::from_value(row.tenants).map_err(|_| unreadable())?,
        scopes: serde_json::from_value(row.scopes).map_err(|_| unreadable())?,
        added: serde_json::from_value(row.added).map_err(|_| unreadable())?,
        redirect_uris: serde_json::from_value(row.redirect_uris).map_err(|_| unreadable())?,
        state: row.state.parse().map_err(|_| unreadable())?,
        version: row.version,
        tokens_ended_seq: row.tokens_ended_seq,
        families_ended_seq: row.families_ended_seq,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
        etag: row.etag,
        json_web_key_set: row.json_web_key_set,
        security: serde_json::from_value(row.security).map_err(|_| unreadable())?,
        fapi_from: row.fapi_from.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "../tests/client.rs"]
pub(super) mod tests;
