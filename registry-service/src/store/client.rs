//! Clients in the database.

use std::collections::HashMap;

use accord::{
    clock::UnixMillis,
    store::{
        Creation, StoreError,
        audit::{Event, Origin},
        change::Change,
        idempotency::Outcome,
    },
    text::{
        id::{ClientId, IntegrationRequestId, ScopeName, TenantId},
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use serde_json::Value;

use super::{
    Store,
    client_secret::{SecretRef, lock_client},
    commit, corrupt,
    entity::{
        client::{ActiveModel, Column, Entity, Model},
        client_tenant, scope,
    },
    integration_request::{check_references, mark_registered},
};
use crate::model::change_kind;
use crate::{
    error::Error,
    model::{
        client::{Client, ClientUpdate, Filter, NewClient, State},
        delivery::Handover,
    },
};

impl Store {
    /// Registers the client of an approved request, with its first credentials.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`], [`Error::RequestIdReused`].
    pub async fn register_client(
        &self,
        creation: &Creation,
        new: NewClient,
    ) -> Result<(Client, Handover), Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { resource_id, secrets } => {
                let made = SecretRef::read(&resource_id)?;
                let client = find(&tx, &made.client_id).await?.ok_or(corrupt("idempotency"))?;
                let handover = self.handover(&tx, new.delivery, &made, &secrets).await?;
                return Ok((client, handover));
            }
            Outcome::New(reservation) => reservation,
        };
        let now = self.now();
        let client_id = ClientId::generate(&*self.clock, &*self.random);
        let request = mark_registered(&tx, &new.integration_request_id, &client_id, now)
            .await?
            .content;
        let row = ActiveModel {
            client_id: Set(client_id.to_string()),
            integration_request_id: Set(new.integration_request_id.to_string()),
            display_name: Set(request.display_name),
            partner_name: Set(request.partner_name),
            purpose: Set(request.goals),
            scopes: Set(json(&request.scopes)?),
            redirect_uris: Set(json(&request.redirect_uris)?),
            state: Set(State::Active.name().to_owned()),
            version: Set(0),
            tokens_ended_seq: Set(0),
            families_ended_seq: Set(0),
            created_at: Set(now.as_millis()),
            updated_at: Set(now.as_millis()),
            etag: Set(1),
            json_web_key_set: Set(String::new()),
        };
        row.insert(&tx).await.map_err(StoreError::from)?;
        insert_tenants(&tx, &client_id, &request.tenant_ids).await?;
        let made = self
            .make_secret(&tx, &client_id, None, new.delivery, &reservation.secrets)
            .await?;
        let handover = self
            .handover(&tx, new.delivery, &made, &reservation.secrets)
            .await?;
        reservation.complete(&tx, &made.to_string()).await?;
        let event = Event::new("client.register")
            .client(&client_id)
            .subject(client_id.as_str())
            .detail("integration_request_id", new.integration_request_id.as_str())
            .detail("secret_id", made.secret_id.as_str());
        self.audit(&tx, &creation.origin, event).await?;
        let seq = self.bump(&tx, &[changed(&client_id)]).await?;
        set_version(&tx, &client_id, seq).await?;
        let client = find(&tx, &client_id).await?.ok_or(corrupt("clients"))?;
        commit(tx).await?;
        Ok((client, handover))
    }

    /// Reads a client.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_client(&self, client_id: &ClientId) -> Result<Option<Client>, Error> {
        find(self.db.read(), client_id).await
    }

    /// Descriptions of those of `names` that are enabled in the catalogue.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn enabled_scopes(&self, names: Vec<ScopeName>) -> Result<HashMap<ScopeName, String>, Error> {
        let rows = scope::Entity::find()
            .filter(scope::Column::Name.is_in(names.iter().map(ScopeName::as_str)))
            .filter(scope::Column::Enabled.eq(true))
            .all(self.db.read())
            .await
            .map_err(StoreError::from)?;
        let described = |row: scope::Model| {
            let name = ScopeName::parse(&row.name).map_err(|_| corrupt("scopes"))?;
            Ok((name, row.description))
        };
        rows.into_iter().map(described).collect()
    }

    /// Lists clients, newest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list_clients(&self, filter: &Filter, page: &PageRequest) -> Result<Page<Client>, Error> {
        let mut query = Entity::find().order_by_desc(Column::ClientId).limit(page.fetch());
        if let Some(state) = filter.state {
            query = query.filter(Column::State.eq(state.name()));
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
        let rows = query.all(self.db.read()).await.map_err(StoreError::from)?;
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
        if let Some(name) = update.display_name {
            query = query.col_expr(Column::DisplayName, Expr::value(name));
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
        query.exec(&tx).await.map_err(StoreError::from)?;
        if let Some(tenant_ids) = &update.tenant_ids {
            client_tenant::Entity::delete_many()
                .filter(client_tenant::Column::ClientId.eq(client_id.as_str()))
                .exec(&tx)
                .await
                .map_err(StoreError::from)?;
            insert_tenants(&tx, client_id, tenant_ids).await?;
            fields.push("tenant_ids");
        }
        let event = Event::new("client.update")
            .client(client_id)
            .subject(client_id.as_str())
            .detail("fields", fields.join(","));
        self.audit(&tx, origin, event).await?;
        let change = if narrows { tokens_ended } else { changed };
        let seq = self.bump(&tx, &[change(client_id)]).await?;
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
            .filter(Column::State.ne(to.name()))
            .col_expr(Column::State, Expr::value(to.name()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if moved.rows_affected == 1 {
            let action = match to {
                State::Suspended => "client.suspend",
                State::Active => "client.reinstate",
            };
            let event = Event::new(action).client(client_id).subject(client_id.as_str());
            self.audit(&tx, origin, event).await?;
            if to == State::Suspended {
                let seq = self.bump(&tx, &[tokens_ended(client_id)]).await?;
                end_tokens(&tx, client_id, seq).await?;
            } else {
                self.bump(&tx, &[changed(client_id)]).await?;
            }
        }
        let client = find(&tx, client_id).await?.ok_or(Error::NotFound("client"))?;
        commit(tx).await?;
        Ok(client)
    }
}

pub(super) async fn find(conn: &impl ConnectionTrait, client_id: &ClientId) -> Result<Option<Client>, Error> {
    let row = Entity::find_by_id(client_id.as_str())
        .one(conn)
        .await
        .map_err(StoreError::from)?;
    match row {
        Some(row) => with_tenants(conn, row).await.map(Some),
        None => Ok(None),
    }
}

pub(super) fn changed(client_id: &ClientId) -> Change {
    Change {
        kind: change_kind::CLIENT,
        id: client_id.to_string(),
        tenant_id: None,
    }
}

/// A change that ends the client's access tokens: to be recorded by [`end_tokens`] at its position.
pub(super) fn tokens_ended(client_id: &ClientId) -> Change {
    Change {
        kind: change_kind::CLIENT_TOKENS_ENDED,
        ..changed(client_id)
    }
}

async fn end_tokens(tx: &DatabaseTransaction, client_id: &ClientId, seq: i64) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::TokensEndedSeq, Expr::value(seq))
        .exec(tx)
        .await?;
    Ok(())
}

async fn set_version(tx: &DatabaseTransaction, client_id: &ClientId, seq: i64) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::ClientId.eq(client_id.as_str()))
        .col_expr(Column::Version, Expr::value(seq))
        .exec(tx)
        .await?;
    Ok(())
}

async fn insert_tenants(
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
        .await
        .map_err(StoreError::from)?;
    let tenant_ids = tenants.iter().map(|row| TenantId::parse(&row.tenant_id));
    Ok(Client {
        tenant_ids: tenant_ids.collect::<Result<_, _>>().map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        integration_request_id: IntegrationRequestId::parse(&row.integration_request_id)
            .map_err(|_| unreadable())?,
        display_name: row.display_name,
        partner_name: row.partner_name,
        purpose: row.purpose,
        scopes: serde_json::from_value(row.scopes).map_err(|_| unreadable())?,
        redirect_uris: serde_json::from_value(row.redirect_uris).map_err(|_| unreadable())?,
        state: State::from_name(&row.state).ok_or_else(unreadable)?,
        version: row.version,
        tokens_ended_seq: row.tokens_ended_seq,
        families_ended_seq: row.families_ended_seq,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
        etag: row.etag,
        json_web_key_set: row.json_web_key_set,
    })
}

fn json(value: &impl serde::Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| corrupt("clients"))
}

#[cfg(test)]
#[path = "tests/client.rs"]
pub(super) mod tests;
