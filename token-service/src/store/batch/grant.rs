//! The active grants of clients. Calls of clients that memory does not know read them together, with one position: two
//! reads a group, in place of two reads a call (benchmark case `new-replica`).

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    store::{
        Database, StoreError,
        batch::{group_commit::Work, json_rows::JsonRows},
        rows,
    },
    text::id::{ClientId, TenantId},
};
use serde::Serialize;
use tokio::time::Instant;

use super::super::{
    Store,
    entity::grant::{Entity, Model},
    grant::grant,
};
use crate::{
    error::Result,
    model::{
        grant::{Grant, StoredState},
        watermark::AsOf,
    },
};

impl Store {
    /// Reads the grant of a tenant to a client whose stored state is active. There is at most one.
    pub async fn find_current_grant(
        &self,
        tenant_id: &TenantId,
        client_id: &ClientId,
    ) -> Result<AsOf<Option<Grant>>> {
        let key = CurrentGrantKey {
            tenant_id: tenant_id.clone(),
            client_id: client_id.clone(),
        };
        Ok(self.current_grants.submit(key).await?)
    }
}

#[derive(Serialize)]
pub(in crate::store) struct CurrentGrantKey {
    tenant_id: TenantId,
    client_id: ClientId,
}

pub(in crate::store) struct CurrentGrants(pub(in crate::store) Database);

static GRANTS: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("client_id", "text")], |dialect| {
        let (columns, versions) = dialect.versioned::<Entity>();
        format!(
            "SELECT {columns} FROM {} JOIN grants ON grants.tenant_id = input.tenant_id
            AND grants.client_id = input.client_id AND grants.state = 'active' {versions}",
            dialect.input
        )
    })
});

impl Work for CurrentGrants {
    type Item = CurrentGrantKey;
    type Outcome = AsOf<Option<Grant>>;

    const NAME: &'static str = "grant_reads";

    async fn run(&self, keys: &[CurrentGrantKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.read();
        let sent_at = Instant::now();
        // The position first, so that the grants reflect all changes up to it.
        let position = self.0.position().await?;
        let mut grants = HashMap::new();
        for row in GRANTS.query(conn, keys, []).await? {
            // Tenant and client are compared below.
            let is_active = |row: &Model| row.state == StoredState::Active.as_ref();
            let grant = grant(&rows::checked::<Entity>(conn, &row, is_active)?)?;
            grants.insert((grant.tenant_id.clone(), grant.client_id.clone()), grant);
        }
        let outcomes = keys.iter().map(|key| AsOf {
            value: grants
                .get(&(key.tenant_id.clone(), key.client_id.clone()))
                .cloned(),
            position: position.clone(),
            sent_at,
        });
        Ok(outcomes.collect())
    }
}
