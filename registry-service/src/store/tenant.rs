//! Tenants in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Transaction,
        audit::{Event, Origin},
        change::Change,
        idempotency::Outcome,
    },
    text::{
        id::TenantId,
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    Order::Asc, QuerySelect, QueryTrait, Set, UpdateMany, entity::prelude::*, sea_query::ExprTrait,
};

use super::{
    Store, change, commit, corrupt,
    entity::tenant::{ActiveModel, Column, Entity, Model},
    exists, replaced, with_reason,
};
use crate::{
    error::{Error, Result},
    model::{
        change_kind,
        tenant::{NewTenant, State, Tenant, TenantUpdate},
    },
};

impl Store {
    /// Adds an active tenant.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_tenant(&self, creation: &Creation, new: NewTenant) -> Result<Tenant> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let id = &new.tenant_id;
        let Outcome::New(reservation) = outcome else {
            return find(&tx, id).await?.ok_or(corrupt("idempotency"));
        };
        let now = self.now().as_millis();
        let row = ActiveModel {
            tenant_id: Set(id.to_string()),
            display_name: Set(new.display_name),
            cloud_api_url: Set(new.cloud_api_url),
            state: Set(State::Active.as_ref().to_owned()),
            tokens_ended_seq: Set(0),
            created_at: Set(now),
            updated_at: Set(now),
            etag: Set(1),
        };
        let row = row.insert(&tx).await.map_err(exists("tenant"))?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = event("tenant.create", id);
        self.publish(&tx, &creation.origin, event, changed(id)).await?;
        commit(tx, tenant(row)?).await
    }

    /// Reads a tenant.
    pub async fn find_tenant(&self, tenant_id: &TenantId) -> Result<Option<Tenant>> {
        find(self.db.read(), tenant_id).await
    }

    /// Lists tenants by id.
    pub async fn list_tenants(&self, state: Option<State>, page: &PageRequest) -> Result<Page<Tenant>> {
        let state = state.map(|state| Column::State.eq(state.as_ref()));
        let query = Entity::find().apply_if(state, QueryFilter::filter);
        self.page(query, Column::TenantId, Asc, page, tenant).await
    }

    /// Changes the fields given.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`].
    pub async fn update_tenant(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        update: TenantUpdate,
    ) -> Result<Tenant> {
        let tx = self.db.write().await?;
        // Locks before it reads, so that the event holds the value that this update replaces.
        let row = Entity::find_by_id(tenant_id.as_str())
            .lock_exclusive()
            .one(&tx)
            .await?;
        let before = tenant(row.ok_or(Error::NotFound("tenant"))?)?;
        if update.etag.is_some_and(|etag| etag != before.etag) {
            return Err(Error::EtagMismatch("tenant"));
        }
        let event = event("tenant.update", tenant_id);
        let event = replaced(event, "display_name", &before.display_name, &update.display_name)?;
        let event = replaced(
            event,
            "cloud_api_url",
            &before.cloud_api_url,
            &update.cloud_api_url,
        )?;
        let mut query = next_version(tenant_id, self.now());
        if let Some(name) = update.display_name {
            query = query.col_expr(Column::DisplayName, Expr::value(name));
        }
        if let Some(url) = update.cloud_api_url {
            query = query.col_expr(Column::CloudApiUrl, Expr::value(url));
        }
        query.exec(&tx).await?;
        let tenant = find(&tx, tenant_id).await?.ok_or(corrupt("tenants"))?;
        self.publish(&tx, origin, event, changed(tenant_id)).await?;
        commit(tx, tenant).await
    }

    /// Suspends or reinstates a tenant; `reason` may be empty. Changes and records nothing if it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_tenant_state(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        to: State,
        reason: &str,
    ) -> Result<Tenant> {
        let tx = self.db.write().await?;
        let moved = next_version(tenant_id, self.now())
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .exec(&tx)
            .await?;
        if moved.rows_affected == 1 {
            let (action, kind) = match to {
                State::Suspended => ("tenant.suspend", change_kind::TENANT_TOKENS_ENDED),
                State::Active => ("tenant.reinstate", change_kind::TENANT),
            };
            let change = change(kind, tenant_id, Some(tenant_id));
            let event = with_reason(event(action, tenant_id), reason);
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Suspended {
                let row = Entity::update_many().filter(Column::TenantId.eq(tenant_id.as_str()));
                let ended = row.col_expr(Column::TokensEndedSeq, Expr::value(seq));
                ended.exec(&tx).await?;
            }
        }
        let tenant = find(&tx, tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
        commit(tx, tenant).await
    }
}

pub(super) async fn find(conn: &impl ConnectionTrait, tenant_id: &TenantId) -> Result<Option<Tenant>> {
    let row = Entity::find_by_id(tenant_id.as_str()).one(conn).await?;
    row.map(tenant).transpose()
}

/// Reads a tenant, and locks its row until the transaction ends.
pub(super) async fn lock(tx: &Transaction, tenant_id: &TenantId) -> Result<Option<Tenant>> {
    let row = Entity::find_by_id(tenant_id.as_str())
        .lock_exclusive()
        .one(tx)
        .await?;
    row.map(tenant).transpose()
}

/// Begins an update of a tenant, which raises its etag.
fn next_version(tenant_id: &TenantId, now: UnixMillis) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .col_expr(Column::UpdatedAt, Expr::value(now.as_millis()))
        .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
}

fn event(action: &'static str, tenant_id: &TenantId) -> Event {
    Event::new(action).tenant(tenant_id).subject(tenant_id.as_str())
}

fn changed(tenant_id: &TenantId) -> Change {
    change(change_kind::TENANT, tenant_id, Some(tenant_id))
}

pub(super) fn tenant(row: Model) -> Result<Tenant> {
    Ok(Tenant {
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| corrupt("tenants"))?,
        display_name: row.display_name,
        cloud_api_url: row.cloud_api_url,
        state: row.state.parse().map_err(|_| corrupt("tenants"))?,
        tokens_ended_seq: row.tokens_ended_seq,
        created_at: UnixMillis::from_millis(row.created_at),
        updated_at: UnixMillis::from_millis(row.updated_at),
        etag: row.etag,
    })
}
