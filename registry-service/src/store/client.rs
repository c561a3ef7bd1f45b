//! Clients in the database.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
        change::Change,
    },
    text::{
        id::{ClientId, IntegrationRequestId, SecretId, TenantId},
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use serde_json::Value;

use super::{
    Store, change, commit, corrupt,
    entity::{
        client::{Column, Entity, Model},
        client_secret, client_tenant, scope,
    },
    integration_request::check_references,
};
use crate::{
    error::Error,
    model::{
        change_kind,
        client::{Client, ClientProfile, ClientUpdate, Filter, ProfileScope, State},
        client_keys::ClientKeys,
        client_secret::LiveSecret,
        integration_request::Presentation,
    },
};

impl Store {
    /// Reads a client.
    pub async fn find_client(&self, client_id: &ClientId) -> Result<Option<Client>, Error> {
        find(self.db.read(), client_id).await
    }

    /// Reads what token-service needs of a client.
    pub async fn find_client_profile(&self, client_id: &ClientId) -> Result<Option<ClientProfile>, Error> {
        let conn = self.db.read();
        let Some(client) = find(conn, client_id).await? else {
            return Ok(None);
        };
        let catalogue = scope::Entity::find()
            .filter(scope::Column::Name.is_in(client.scopes.iter().map(|scope| scope.name.as_str())))
            .filter(scope::Column::Enabled.eq(true))
            .all(conn)
            .await?;
        let scopes = client.scopes.iter().filter_map(|scope| {
            let row = catalogue.iter().find(|row| row.name == scope.name.as_str())?;
            Some(ProfileScope {
                name: scope.name.clone(),
                description: row.description.clone(),
                reason: scope.reason.clone(),
            })
        });
        Ok(Some(ClientProfile {
            scopes: scopes.collect(),
            live_secrets: live_secrets(conn, client_id, self.now()).await?,
            client,
        }))
    }

    /// Lists clients, newest first.
    pub async fn list_clients(&self, filter: &Filter, page: &PageRequest) -> Result<Page<Client>, Error> {
        let mut query = Entity::find().order_by_desc(Column::ClientId).limit(page.fetch());
        if let Some(state) = filter.state {
            query = query.filter(Column::State.eq(state.as_ref()));
        }
        if let Some(tenant_id) = &filter.tenant_id {
            let mut clients = sea_orm::sea_query::Query::select();
            clients
                .column(client_tenant::Column::ClientId)
                .from(client_tenant::Entity)
                .and_where(client_tenant::Column::TenantId.eq(tenant_id.as_str()));
            query = query.filter(Column::ClientId.in_subquery(clients));
        }
        if let Some(after) = page.after() {
            query = query.filter(Column::ClientId.lt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let mut clients = Vec::with_capacity(rows.len());
        for row in rows {
            clients.push(with_tenants(self.db.read(), row).await?);
        }
        Ok(page.finish(clients, |client| client.client_id.to_string()))
    }

    /// Changes the fields given. What takes a tenant or a scope away ends the client's access tokens.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::EtagMismatch`].
    pub async fn update_client(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        update: ClientUpdate,
    ) -> Result<Client, Error> {
        let tx = self.db.write().await?;
        let mut violations = Violations::default();
        check_references(&tx, &mut violations, &update.references).await?;
        if !violations.is_empty() {
            return Err(violations.into());
        }
        // Of racing updates, each compares with what the one before left.
        lock_client(&tx, client_id).await?;
        let before = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        if update.etag.is_some_and(|etag| etag != before.etag) {
            return Err(Error::EtagMismatch("client"));
        }
        let narrows = update.narrows(&before);
        let mut fields = Vec::new();
        let mut query = Entity::update_many()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1));
        if let Some(display_name) = update.display_name {
            let presentation = Presentation {
                display_name,
                ..before.presentation
            };
            query = query.col_expr(Column::Presentation, Expr::value(json(&presentation)?));
            fields.push("display_name");
        }
        if let Some(uris) = &update.redirect_uris {
            query = query.col_expr(Column::RedirectUris, Expr::value(json(uris)?));
            fields.push("redirect_uris");
        }
        if let Some(scopes) = &update.scopes {
            query = query.col_expr(Column::Scopes, Expr::value(json(scopes)?));
            fields.push("scopes");
        }
        query.exec(&tx).await?;
        if let Some(tenant_ids) = &update.tenant_ids {
            client_tenant::Entity::delete_many()
                .filter(client_tenant::Column::ClientId.eq(client_id.as_str()))
                .exec(&tx)
                .await?;
            insert_tenants(&tx, client_id, tenant_ids).await?;
            fields.push("tenant_ids");
        }
        let event = Event::new("client.update")
            .client(client_id)
            .subject(client_id.as_str())
            .detail("fields", fields.join(","));
        let change = if narrows { tokens_ended } else { changed };
        let seq = self.publish(&tx, origin, event, change(client_id)).await?;
        set_version(&tx, client_id, seq).await?;
        if narrows {
            end_tokens(&tx, client_id, seq).await?;
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx).await?;
        Ok(client)
    }

    /// Suspends or reinstates; no change, and no event, when it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_client_state(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        to: State,
    ) -> Result<Client, Error> {
        let tx = self.db.write().await?;
        let moved = Entity::update_many()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
            .exec(&tx)
            .await?;
        if moved.rows_affected == 1 {
            let (action, change) = match to {
                State::Suspended => ("client.suspend", tokens_ended(client_id)),
                State::Active => ("client.reinstate", changed(client_id)),
            };
            let event = Event::new(action).client(client_id).subject(client_id.as_str());
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Suspended {
                end_tokens(&tx, client_id, seq).await?;
            }
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx).await?;
        Ok(client)
    }

    /// Replaces a client's keys; no change, and no event, when they are these already. The client's
    /// version stays: nothing that a consent page shows has changed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_client_keys(
        &self,
        origin: &Origin,
        client_id: &ClientId,
        keys: &ClientKeys,
    ) -> Result<Client, Error> {
        let tx = self.db.write().await?;
        let replaced = Entity::update_many()
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::JsonWebKeySet.ne(keys.as_str()))
            .col_expr(Column::JsonWebKeySet, Expr::value(keys.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
            .exec(&tx)
            .await?;
        if replaced.rows_affected == 1 {
            // As JSON: a key's name may hold any separator.
            let kids = serde_json::to_string(keys.kids()).map_err(|_| corrupt("clients"))?;
            let event = Event::new("client.set_keys")
                .client(client_id)
                .subject(client_id.as_str())
                .detail("kids", kids);
            self.publish(&tx, origin, event, changed(client_id)).await?;
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx).await?;
        Ok(client)
    }
}

/// Locks a client's row until the transaction ends, so that calls that count, replace or revoke its
/// secrets come one after the other.
pub(super) async fn lock_client(tx: &DatabaseTransaction, client_id: &ClientId) -> Result<(), Error> {
    let client = Entity::find_by_id(client_id.as_str()).lock_exclusive();
    match client.one(tx).await? {
        Some(_) => Ok(()),
        None => Err(Error::NotFound("client")),
    }
}

pub(super) async fn find(conn: &impl ConnectionTrait, client_id: &ClientId) -> Result<Option<Client>, Error> {
    let row = Entity::find_by_id(client_id.as_str()).one(conn).await?;
    match row {
        Some(row) => with_tenants(conn, row).await.map(Some),
        None => Ok(None),
    }
}

/// The secrets that authenticate a client at this time.
async fn live_secrets(
    conn: &impl ConnectionTrait,
    client_id: &ClientId,
    now: UnixMillis,
) -> Result<Vec<LiveSecret>, Error> {
    use client_secret::{Column, Entity};
    let rows = Entity::find()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .filter(Column::RevokedAt.is_null())
        .filter(Column::AwaitingClaim.eq(false))
        .filter(
            Condition::any()
                .add(Column::ExpiresAt.is_null())
                .add(Column::ExpiresAt.gt(now.as_millis())),
        )
        .order_by_asc(Column::SecretId)
        .all(conn)
        .await?;
    let live = rows.into_iter().map(|row| {
        Ok(LiveSecret {
            secret_id: SecretId::parse(&row.secret_id).map_err(|_| corrupt("client_secrets"))?,
            expires_at: row.expires_at.map(UnixMillis::from_millis),
        })
    });
    live.collect()
}

pub(super) fn changed(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT, client_id, None)
}

/// A change that ends the client's access tokens: to be recorded by [`end_tokens`] at its position.
pub(super) fn tokens_ended(client_id: &ClientId) -> Change {
    change(change_kind::CLIENT_TOKENS_ENDED, client_id, None)
}

async fn end_tokens(tx: &DatabaseTransaction, client_id: &ClientId, seq: i64) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::TokensEndedSeq, Expr::value(seq))
        .exec(tx)
        .await?;
    Ok(())
}

pub(super) async fn set_version(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    seq: i64,
) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::Version, Expr::value(seq))
        .exec(tx)
        .await?;
    Ok(())
}

pub(super) async fn insert_tenants(
    tx: &DatabaseTransaction,
    client_id: &ClientId,
    tenant_ids: &[TenantId],
) -> Result<(), StoreError> {
    let rows = tenant_ids.iter().map(|tenant_id| client_tenant::ActiveModel {
        tenant_id: Set(tenant_id.to_string()),
        client_id: Set(client_id.to_string()),
    });
    client_tenant::Entity::insert_many(rows)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

async fn with_tenants(conn: &impl ConnectionTrait, row: Model) -> Result<Client, Error> {
    let unreadable = || corrupt("clients");
    let tenants = client_tenant::Entity::find()
        .filter(client_tenant::Column::ClientId.eq(row.client_id.as_str()))
        .order_by_asc(client_tenant::Column::TenantId)
        .all(conn)
        .await?;
    let tenant_ids = tenants.iter().map(|row| TenantId::parse(&row.tenant_id));
    Ok(Client {
        tenant_ids: tenant_ids.collect::<Result<_, _>>().map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        integration_request_id: IntegrationRequestId::parse(&row.integration_request_id)
            .map_err(|_| unreadable())?,
        presentation: serde_json::from_value(row.presentation).map_err(|_| unreadable())?,
        scopes: serde_json::from_value(row.scopes).map_err(|_| unreadable())?,
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

pub(super) fn json(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| corrupt("clients"))
}

#[cfg(test)]
#[path = "tests/client_keys.rs"]
mod key_tests;
#[cfg(test)]
#[path = "tests/client.rs"]
pub(super) mod tests;
