//! Tenants in the database.

use accord::{
    clock::UnixMillis,
    store::{
        Creation, Keyed, StoreError, Transaction,
        audit::{Action, Event, Origin, action},
        change::Change,
        idempotency::CreationOutcome,
        rows::{self, Authentic, Locked, ProtectedRows},
    },
    text::{
        id::TenantId,
        page::{Page, PageRequest},
    },
};
use sea_orm::{Order::Asc, QueryTrait};

use super::{
    Store, change, commit, corrupt,
    entity::tenant::{Column, Entity, Model},
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
        let CreationOutcome::New(reservation) = outcome else {
            return find(&tx, id).await?.ok_or(corrupt("idempotency"));
        };
        let now = self.now().as_millis();
        let row = Model {
            tenant_id: id.to_string(),
            display_name: new.display_name,
            cloud_api_url: new.cloud_api_url,
            state: State::Active.as_ref().to_owned(),
            tokens_ended_seq: 0,
            created_at: now,
            updated_at: now,
            etag: 1,
            mac: Vec::new(),
        };
        let row = rows::insert::<Entity>(&tx, row).await.map_err(exists("tenant"))?;
        reservation.complete(&tx, id.as_str()).await?;
        let event = event(action::TENANT_CREATE, id)
            .detail("display_name", row.display_name.as_str())
            .detail("cloud_api_url", row.cloud_api_url.as_str());
        self.publish(&tx, &creation.origin, event, changed(id)).await?;
        commit(tx, tenant(row)?).await
    }

    /// Reads a tenant.
    pub async fn find_tenant(&self, tenant_id: &TenantId) -> Result<Option<Tenant>> {
        find(self.db.read(), tenant_id).await
    }

    /// Lists tenants by id.
    pub async fn list_tenants(&self, state: Option<State>, page: &PageRequest) -> Result<Page<Tenant>> {
        let query = Entity::look_up();
        let query = query.apply_if(state, |query, state| query.equal(Column::State, state.as_ref()));
        self.page(query, Column::TenantId, Asc, page, tenant).await
    }

    /// Changes the fields given. Changes and records nothing if they have these values already.
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
        let mut row = lock(&tx, tenant_id).await?.ok_or(Error::NotFound("tenant"))?;
        if update.etag.is_some_and(|etag| etag != row.etag) {
            return Err(Error::EtagMismatch("tenant"));
        }
        let name = update.display_name.filter(|new| *new != row.display_name);
        let url = update.cloud_api_url.filter(|new| *new != row.cloud_api_url);
        if name.is_none() && url.is_none() {
            return tenant(row.stored());
        }
        let event = event(action::TENANT_UPDATE, tenant_id);
        let event = replaced(event, "display_name", &row.display_name, &name)?;
        let event = replaced(event, "cloud_api_url", &row.cloud_api_url, &url)?;
        if let Some(name) = name {
            row.display_name = name;
        }
        if let Some(url) = url {
            row.cloud_api_url = url;
        }
        row.set_next_version(self.now());
        row.save(&tx).await?;
        self.publish(&tx, origin, event, changed(tenant_id)).await?;
        commit(tx, tenant(row.stored())?).await
    }

    /// Suspends or reinstates a tenant; `reason` may be empty. Changes and records nothing if it is in that state already.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`StoreError::Altered`], after the suspension was recorded and published.
    pub async fn set_tenant_state(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        to: State,
        reason: &str,
    ) -> Result<Tenant> {
        let tx = self.db.write().await?;
        let (action, kind) = match to {
            State::Suspended => (action::TENANT_SUSPEND, change_kind::TENANT_TOKENS_ENDED),
            State::Active => (action::TENANT_REINSTATE, change_kind::TENANT),
        };
        let change = change(kind, tenant_id, Some(tenant_id));
        let event = with_reason(event(action, tenant_id), reason);
        let mut row = match rows::lock_to_end::<Entity>(&tx, &[tenant_id.as_str()]).await {
            Err(StoreError::Altered(table)) if to == State::Suspended => {
                return Err(self.end_altered(tx, origin, event, change, table).await);
            }
            row => row?.ok_or(Error::NotFound("tenant"))?,
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
        commit(tx, tenant(row.stored())?).await
    }
}

pub(super) async fn find(conn: &impl Keyed, tenant_id: &TenantId) -> Result<Option<Tenant>> {
    let row = Entity::look_up_by_id(tenant_id.as_str()).read_one(conn).await?;
    row.map(tenant).transpose()
}

/// Reads a tenant, and locks its row until the transaction ends.
pub(super) async fn lock(tx: &Transaction, tenant_id: &TenantId) -> Result<Option<Locked<Entity>>> {
    Ok(Entity::look_up_by_id(tenant_id.as_str()).lock_one(tx).await?)
}

fn event(action: Action, tenant_id: &TenantId) -> Event {
    Event::new(action).tenant(tenant_id).subject(tenant_id.as_str())
}

fn changed(tenant_id: &TenantId) -> Change {
    change(change_kind::TENANT, tenant_id, Some(tenant_id))
}

pub(super) fn tenant(row: Authentic<Entity>) -> Result<Tenant> {
    let row = row.into_row();
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
