//! Pushed authorization requests: one insert a group, in place of a transaction a call (decision 78; benchmark case `par`).

use accord::{
    clock::{SharedClock, UnixMillis},
    random::SharedRandom,
    store::{
        Database, StoreError,
        audit::{self, Event, Origin, action},
        batch::group_commit::Work,
        rows::{self, Authentic, ProtectedRows, all_written},
    },
    text::{
        id::{ClientId, SetupId, TenantId, join_scopes},
        opaque::{OpaqueToken, TokenKind},
    },
};
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};
use serde::Deserialize;

use super::super::{
    Store,
    entity::pushed_request::{Entity, Model},
    setup::json,
};
use crate::{
    error::Result,
    model::setup::{
        pushed_request::{LIFETIME, PushedRequest},
        request::{AuthorizationRequest, Parameters},
    },
};

impl Store {
    /// Stores the request of a client. Returns the reference to it.
    pub async fn push_request(
        &self,
        origin: Origin,
        tenant_id: &TenantId,
        client_id: &ClientId,
        parameters: &Parameters,
    ) -> Result<OpaqueToken> {
        let now = self.now();
        let reference = OpaqueToken::generate(TokenKind::PushedRequest, &*self.random);
        let setup_id = SetupId::generate(&*self.clock, &*self.random);
        let event = Event::new(action::AUTHORIZATION_REQUEST_PUSH)
            .tenant(tenant_id)
            .client(client_id)
            .subject(setup_id.as_str())
            .detail("scopes", join_scopes(&parameters.scopes));
        let row = Model {
            tenant_id: tenant_id.to_string(),
            reference_hash: reference.digest().to_vec(),
            client_id: client_id.to_string(),
            setup_id: setup_id.into(),
            parameters: json(parameters)?,
            created_at: now.as_millis(),
            expires_at: now.plus(LIFETIME).as_millis(),
            mac: Vec::new(),
        };
        self.pushed_requests.submit(Push { origin, event, row }).await?;
        Ok(reference)
    }

    /// Reads the request of a tenant that a reference names. It may have expired.
    pub async fn find_pushed_request(
        &self,
        tenant_id: &TenantId,
        reference: &OpaqueToken,
    ) -> Result<Option<PushedRequest>> {
        let key = (tenant_id.to_string(), reference.digest().to_vec());
        let row = Entity::look_up_by_id(key).read_one(self.db.read()).await?;
        Ok(row.as_ref().map(pushed_request).transpose()?)
    }
}

/// A request to store, and its event.
#[derive(Debug)]
pub(in crate::store) struct Push {
    origin: Origin,
    event: Event,
    row: Model,
}

pub(in crate::store) struct PushedRequests {
    pub(in crate::store) db: Database,
    pub(in crate::store) clock: SharedClock,
    pub(in crate::store) random: SharedRandom,
}

impl Work for PushedRequests {
    type Item = Push;
    type Outcome = ();

    const NAME: &'static str = "pushed_requests";

    async fn run(&self, items: &[Push]) -> Result<Vec<()>, StoreError> {
        let tx = self.db.write().await?;
        let key = rows::current(&tx)?;
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let mut row = item.row.clone();
            rows::protect::<Entity>(&key, &mut row)?;
            rows.push(row.into_active_model().reset_all());
        }
        let written = Entity::insert_many(rows).exec_without_returning(&tx).await?;
        all_written("pushed_requests", written, items.len())?;
        for Push { origin, event, .. } in items {
            audit::record(&tx, &*self.clock, &*self.random, origin, event.clone()).await;
        }
        tx.commit().await?;
        Ok(vec![(); items.len()])
    }
}

/// Reads a row.
fn pushed_request(row: &Authentic<Entity>) -> Result<PushedRequest, StoreError> {
    let unreadable = || StoreError::Corrupt("pushed_requests");
    Ok(PushedRequest {
        setup_id: SetupId::parse(&row.setup_id).map_err(|_| unreadable())?,
        request: AuthorizationRequest {
            tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
            client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
            parameters: Deserialize::deserialize(&row.parameters).map_err(|_| unreadable())?,
            pushed: true,
        },
        expires_at: UnixMillis::from_millis(row.expires_at),
    })
}
