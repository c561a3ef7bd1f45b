//! Clients in the database.

use std::collections::HashMap;

use accord::{
    clock::UnixMillis,
    store::{
        Transaction,
        audit::{Event, Origin},
        change::Change,
    },
    text::{
        id::{ClientId, IntegrationRequestId, TenantId},
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use sea_orm::{
    Order::Desc, QueryOrder, QuerySelect, QueryTrait, Set, UpdateMany, entity::prelude::*,
    sea_query::ExprTrait,
};

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
        client::{Added, Client, ClientUpdate, State},
        client_keys::ClientKeys,
        integration_request::Presentation,
    },
};

mod amendment;
mod registration;

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
        let state = state.map(|state| Column::State.eq(state.as_ref()));
        let tenant = tenant_id.map(|tenant_id| {
            let clients = client_tenant::Entity::find()
                .select_only()
                .column(client_tenant::Column::ClientId)
                .filter(client_tenant::Column::TenantId.eq(tenant_id.as_str()));
            Column::ClientId.in_subquery(clients.into_query())
        });
        let query = Entity::find().apply_if(state, QueryFilter::filter);
        let query = query.apply_if(tenant, QueryFilter::filter);
        let page = self.page(query, Column::ClientId, Desc, page, client).await?;
        let with_tenants = async |mut clients: Vec<Client>| {
            read_tenants(self.db.read(), &mut clients).await?;
            Ok(clients)
        };
        page.try_map(with_tenants).await
    }

    /// Narrows a client: leaves out tenants, scopes and redirect URIs. An update that removes a tenant or a scope ends the
    /// client's access tokens.
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
        // Locks before it reads, so that a racing update compares with what this one writes.
        lock_client(&tx, client_id).await?;
        let before = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        if update.etag.is_some_and(|etag| etag != before.etag) {
            return Err(Error::EtagMismatch("client"));
        }
        update.require_narrowing(&before, "client.")?;
        let event = event("client.update", client_id);
        let client = self.change(&tx, origin, event, before, update).await?;
        commit(tx, client).await
    }

    /// Writes a change of a client, whose row is locked, with its event: the old and new values of what it sets.
    ///
    /// New keys alone leave the client's `version`, because no consent page shows keys.
    pub(super) async fn change(
        &self,
        tx: &Transaction,
        origin: &Origin,
        event: Event,
        before: Client,
        update: ClientUpdate,
    ) -> Result<Client> {
        let client_id = &before.client_id;
        let (narrows, is_shown) = (update.narrows(&before), update.is_shown());
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
        let presentation = update.display_name.map(|display_name| Presentation {
            display_name,
            ..before.presentation.clone()
        });
        let columns = [
            (Column::Presentation, json(&presentation)?),
            (Column::RedirectUris, json(&update.redirect_uris)?),
            (Column::Scopes, json(&update.scopes)?),
        ];
        let mut query = next_version(client_id, self.now());
        for (column, value) in columns.into_iter().filter(|(_, value)| !value.is_null()) {
            query = query.col_expr(column, Expr::value(value));
        }
        if let Some(keys) = update.json_web_key_set {
            query = query.col_expr(Column::JsonWebKeySet, Expr::value(keys));
        }
        query.exec(tx).await?;
        if let Some(tenant_ids) = &update.tenant_ids {
            let rows = client_tenant::Entity::delete_many();
            let of_client = client_tenant::Column::ClientId.eq(client_id.as_str());
            rows.filter(of_client).exec(tx).await?;
            insert_tenants(tx, client_id, tenant_ids).await?;
        }
        let seq = if narrows {
            let seq = self.publish(tx, origin, event, tokens_ended(client_id)).await?;
            set_seq(tx, client_id, &[Column::TokensEndedSeq], seq).await?;
            seq
        } else {
            self.publish(tx, origin, event, changed(client_id)).await?
        };
        match is_shown {
            true => set_version(tx, client_id, seq).await,
            false => Ok(find(tx, client_id).await?.ok_or(corrupt("clients"))?),
        }
    }

    /// Suspends or reinstates a client; `reason` may be empty. Changes and records nothing if it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_client_state(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        to: State,
        reason: &str,
    ) -> Result<Client> {
        let tx = self.db.write().await?;
        let updated = next_version(client_id, self.now())
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .exec(&tx)
            .await?;
        if updated.rows_affected == 1 {
            let (action, change) = match to {
                State::Suspended => ("client.suspend", tokens_ended(client_id)),
                State::Active => ("client.reinstate", changed(client_id)),
            };
            let event = with_reason(event(action, client_id), reason);
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Suspended {
                set_seq(&tx, client_id, &[Column::TokensEndedSeq], seq).await?;
            }
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx, client).await
    }

    /// Leaves a client only these of its keys. Changes and records nothing if it has no others. Keeps the client's
    /// `version`, because no consent page shows keys.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a key that the client does not have.
    pub async fn set_client_keys(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        keys: &ClientKeys,
    ) -> Result<Client> {
        let tx = self.db.write().await?;
        lock_client(&tx, client_id).await?;
        let before = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        if before.json_web_key_set == keys.as_str() {
            return Ok(before);
        }
        if !keys.are_within(&before.json_web_key_set) {
            let mut v = Violations::default();
            v.add(
                "json_web_key_set",
                "may hold only keys that the client has: AmendClient adds others",
            );
            return Err(Error::Invalid(v));
        }
        // As JSON, because a `kid` may contain any separator.
        let event = event("client.set_keys", client_id).detail("kids", json(&keys.kids())?.to_string());
        let update = ClientUpdate {
            json_web_key_set: Some(keys.as_str().to_owned()),
            ..ClientUpdate::default()
        };
        let client = self.change(&tx, origin, event, before, update).await?;
        commit(tx, client).await
    }
}

/// Locks a client's row until the transaction ends. Updates of a client, and transactions that count or revoke its
/// secrets, then run one after the other.
pub(super) async fn lock_client(tx: &Transaction, client_id: &ClientId) -> Result<()> {
    let client = Entity::find_by_id(client_id.as_str()).lock_exclusive();
    client.one(tx).await?.ok_or(Error::NotFound("client"))?;
    Ok(())
}

pub(super) async fn find(conn: &impl ConnectionTrait, client_id: &ClientId) -> Result<Option<Client>> {
    let row = Entity::find_by_id(client_id.as_str()).one(conn).await?;
    let mut client = row.map(client).transpose()?;
    read_tenants(conn, client.as_mut_slice()).await?;
    Ok(client)
}

/// Selects the secrets of a client that are neither revoked nor expired.
pub(super) fn unended_secrets(client_id: &ClientId, now: UnixMillis) -> Select<client_secret::Entity> {
    use client_secret::{Column, Entity};
    let expires_at = Column::ExpiresAt;
    Entity::find()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .filter(Column::RevokedAt.is_null())
        .filter(expires_at.is_null().or(expires_at.gt(now.as_millis())))
}

pub(super) fn event(action: &'static str, client_id: &ClientId) -> Event {
    Event::new(action).client(client_id).subject(client_id.as_str())
}

pub(super) fn changed(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT, client_id, None)
}

/// Returns a change that ends the client's access tokens. The caller writes its position to `tokens_ended_seq`.
pub(super) fn tokens_ended(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT_TOKENS_ENDED, client_id, None)
}

/// Begins an update of a client. Increments its etag and sets `updated_at`.
fn next_version(client_id: &ClientId, now: UnixMillis) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()))
        .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
}

/// Sets the version of a client to the position of a change, which is also when it got what is new. Returns the client.
pub(super) async fn set_version(tx: &Transaction, client_id: &ClientId, seq: i64) -> Result<Client> {
    let client = find(tx, client_id).await?.ok_or(Error::NotFound("client"))?;
    let added = Added::after(&client, seq);
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::Version, Expr::value(seq))
        .col_expr(Column::Added, Expr::value(json(&added)?))
        .exec(tx)
        .await?;
    Ok(Client {
        version: seq,
        added,
        ..client
    })
}

/// Sets columns of a client to the position of a change.
pub(super) async fn set_seq(
    tx: &Transaction,
    client_id: &ClientId,
    columns: &[Column],
    seq: i64,
) -> Result<()> {
    let mut update = Entity::update_many().filter(Column::ClientId.eq(client_id.as_str()));
    for column in columns {
        update = update.col_expr(*column, Expr::value(seq));
    }
    update.exec(tx).await?;
    Ok(())
}

pub(super) async fn insert_tenants(
    tx: &Transaction,
    client_id: &ClientId,
    tenant_ids: &[TenantId],
) -> Result<()> {
    let rows = tenant_ids.iter().map(|tenant_id| client_tenant::ActiveModel {
        tenant_id: Set(tenant_id.to_string()),
        client_id: Set(client_id.to_string()),
    });
    let insert = client_tenant::Entity::insert_many(rows);
    insert.exec_without_returning(tx).await?;
    Ok(())
}

/// Returns the tenants that a client may ask for consent.
pub(super) async fn tenants_of(conn: &impl ConnectionTrait, client_id: &ClientId) -> Result<Vec<TenantId>> {
    let rows = client_tenant::Entity::find().filter(client_tenant::Column::ClientId.eq(client_id.as_str()));
    let rows = rows.all(conn).await?.into_iter();
    let tenants = rows.map(|row| TenantId::parse(&row.tenant_id).map_err(|_| corrupt("client_tenants")));
    tenants.collect()
}

/// Adds the tenants to clients that [`client`] converted, with one query.
async fn read_tenants(conn: &impl ConnectionTrait, clients: &mut [Client]) -> Result<()> {
    if clients.is_empty() {
        return Ok(());
    }
    let ids = clients.iter().map(|client| client.client_id.as_str());
    let rows = client_tenant::Entity::find()
        .filter(client_tenant::Column::ClientId.is_in(ids))
        .order_by_asc(client_tenant::Column::TenantId)
        .all(conn)
        .await?;
    let mut tenants: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let tenant_id = TenantId::parse(&row.tenant_id).map_err(|_| corrupt("client_tenants"))?;
        tenants.entry(row.client_id).or_default().push(tenant_id);
    }
    for client in clients {
        client.tenant_ids = tenants.remove(client.client_id.as_str()).unwrap_or_default();
    }
    Ok(())
}

/// Converts a client's row. Leaves `tenant_ids` empty.
pub(super) fn client(row: Model) -> Result<Client> {
    let unreadable = || corrupt("clients");
    let request_id = IntegrationRequestId::parse(&row.integration_request_id);
    Ok(Client {
        tenant_ids: Vec::new(),
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        integration_request_id: request_id.map_err(|_| unreadable())?,
        presentation: serde_json::from_value(row.presentation).map_err(|_| unreadable())?,
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
    })
}

#[cfg(test)]
#[path = "../tests/client_keys.rs"]
mod key_tests;
#[cfg(test)]
#[path = "../tests/client.rs"]
pub(super) mod tests;
