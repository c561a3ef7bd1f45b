//! Tenants in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation,
        audit::{Event, Origin},
        idempotency::Outcome,
    },
    text::{
        id::TenantId,
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

use super::{
    Store, change, commit, corrupt,
    entity::tenant::{ActiveModel, Column, Entity, Model},
    exists,
};
use crate::{
    error::Error,
    model::{
        change_kind,
        tenant::{NewTenant, State, Tenant, TenantUpdate},
    },
};

impl Store {
    /// Adds a tenant, active.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::RequestIdReused`].
    pub async fn create_tenant(&self, creation: &Creation, new: NewTenant) -> Result<Tenant, Error> {
        let (tx, outcome) = self.begin_creation(creation).await?;
        let reservation = match outcome {
            Outcome::Replay { .. } => {
                return find(&tx, &new.tenant_id).await?.ok_or(corrupt("idempotency"));
            }
            Outcome::New(reservation) => reservation,
        };
        let now = self.now().as_millis();
        let row = ActiveModel {
            tenant_id: Set(new.tenant_id.to_string()),
            display_name: Set(new.display_name),
            cloud_api_url: Set(new.cloud_api_url),
            state: Set(State::Active.as_ref().to_owned()),
            tokens_ended_seq: Set(0),
            created_at: Set(now),
            updated_at: Set(now),
            etag: Set(1),
        };
        let row = row.insert(&tx).await.map_err(exists("tenant"))?;
        reservation.complete(&tx, new.tenant_id.as_str()).await?;
        let event = Event::new("tenant.create")
            .tenant(&new.tenant_id)
            .subject(new.tenant_id.as_str());
        self.publish(
            &tx,
            &creation.origin,
            event,
            change(change_kind::TENANT, &new.tenant_id, Some(&new.tenant_id)),
        )
        .await?;
        commit(tx).await?;
        tenant(row)
    }

    /// Reads a tenant.
    pub async fn find_tenant(&self, tenant_id: &TenantId) -> Result<Option<Tenant>, Error> {
        find(self.db.read(), tenant_id).await
    }

    /// Lists tenants by id.
    pub async fn list_tenants(
        &self,
        state: Option<State>,
        page: &PageRequest,
    ) -> Result<Page<Tenant>, Error> {
        let mut query = Entity::find().order_by_asc(Column::TenantId).limit(page.fetch());
        if let Some(state) = state {
            query = query.filter(Column::State.eq(state.as_ref()));
        }
        if let Some(after) = page.after() {
            query = query.filter(Column::TenantId.gt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let tenants = rows.into_iter().map(tenant).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(tenants, |tenant| tenant.tenant_id.to_string()))
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
    ) -> Result<Tenant, Error> {
        let tx = self.db.write().await?;
        let mut fields = Vec::new();
        let mut query = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1));
        if let Some(name) = update.display_name {
            query = query.col_expr(Column::DisplayName, Expr::value(name));
            fields.push("display_name");
        }
        if let Some(url) = update.cloud_api_url {
            query = query.col_expr(Column::CloudApiUrl, Expr::value(url));
            fields.push("cloud_api_url");
        }
        if let Some(etag) = update.etag {
            query = query.filter(Column::Etag.eq(etag));
        }
        let updated = query.exec(&tx).await?;
        if updated.rows_affected == 0 {
            find(&tx, tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
            return Err(Error::EtagMismatch("tenant"));
        }
        let event = Event::new("tenant.update")
            .tenant(tenant_id)
            .subject(tenant_id.as_str())
            .detail("fields", fields.join(","));
        self.publish(
            &tx,
            origin,
            event,
            change(change_kind::TENANT, tenant_id, Some(tenant_id)),
        )
        .await?;
        let tenant = find(&tx, tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
        commit(tx).await?;
        Ok(tenant)
    }

    /// Suspends or reinstates; no change, and no event, when it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_tenant_state(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        to: State,
    ) -> Result<Tenant, Error> {
        let tx = self.db.write().await?;
        let moved = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::State.ne(to.as_ref()))
            .col_expr(Column::State, Expr::value(to.as_ref()))
            .col_expr(Column::UpdatedAt, Expr::value(self.now().as_millis()))
            .col_expr(Column::Etag, Expr::col(Column::Etag).add(1))
            .exec(&tx)
            .await?;
        if moved.rows_affected == 1 {
            let (action, kind) = match to {
                State::Suspended => ("tenant.suspend", change_kind::TENANT_TOKENS_ENDED),
                State::Active => ("tenant.reinstate", change_kind::TENANT),
            };
            let event = Event::new(action).tenant(tenant_id).subject(tenant_id.as_str());
            let change = change(kind, tenant_id, Some(tenant_id));
            let seq = self.publish(&tx, origin, event, change).await?;
            if to == State::Suspended {
                Entity::update_many()
                    .filter(Column::TenantId.eq(tenant_id.as_str()))
                    .col_expr(Column::TokensEndedSeq, Expr::value(seq))
                    .exec(&tx)
                    .await?;
            }
        }
        let tenant = find(&tx, tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
        commit(tx).await?;
        Ok(tenant)
    }
}

pub(super) async fn find(conn: &impl ConnectionTrait, tenant_id: &TenantId) -> Result<Option<Tenant>, Error> {
    let row = Entity::find_by_id(tenant_id.as_str()).one(conn).await?;
    row.map(tenant).transpose()
}

fn tenant(row: Model) -> Result<Tenant, Error> {
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
