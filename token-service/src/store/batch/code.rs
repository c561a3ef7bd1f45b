//! Authorization codes. They are looked up with the grants that their redemption activates: two reads a group, in
//! place of two reads a call (decision 21; benchmark case `code`).

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    clock::UnixMillis,
    store::{
        Database, StoreError,
        audit::{Event, Origin},
        batch::{group_commit::Work, json_rows::JsonRows},
    },
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId},
        opaque::OpaqueToken,
    },
};
use sea_orm::{FromQueryResult, entity::prelude::*};
use serde::Serialize;
use serde_json::json;

use super::super::{
    Store,
    entity::{
        self,
        code::{Column, Entity, Model},
    },
    grant::grant,
};
use crate::{
    error::{Error, Result},
    model::{code::Code, grant::Grant},
};

impl Store {
    /// Reads a tenant's code, and the grant that its redemption activates.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the code is about to become usable again.
    pub async fn find_code(&self, tenant_id: &TenantId, code: &OpaqueToken) -> Result<Option<(Code, Grant)>> {
        if self.reopenings.is_under_way(code) {
            return Err(Error::Unavailable);
        }
        let key = CodeKey {
            tenant_id: tenant_id.clone(),
            code_hash: hex::encode(code.digest()),
        };
        Ok(self.codes.submit(key).await?)
    }

    /// Uses a code up without redeeming it. Returns false if it was used before.
    pub async fn invalidate_code(&self, origin: &Origin, code: &Code, event: Event) -> Result<bool> {
        let tx = self.db.write().await?;
        let used = Entity::update_many()
            .filter(Column::CodeHash.eq(code.digest.to_vec()))
            .filter(Column::UsedAt.is_null())
            .col_expr(Column::UsedAt, self.now().as_millis().into())
            .exec(&tx)
            .await?;
        if used.rows_affected == 0 {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await;
        tx.commit().await?;
        Ok(true)
    }
}

#[derive(Serialize)]
pub(in crate::store) struct CodeKey {
    tenant_id: TenantId,
    code_hash: String,
}

pub(in crate::store) struct CodeLookups(pub(in crate::store) Database);

static CODES: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("code_hash", "text")], |dialect| {
        format!(
            "SELECT codes.* FROM {} JOIN codes
            ON codes.code_hash = {} AND codes.tenant_id = input.tenant_id",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

static GRANTS: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&super::GRANT_KEY, |dialect| {
        format!(
            "SELECT grants.* FROM {} JOIN grants
            ON grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id",
            dialect.input
        )
    })
});

impl Work for CodeLookups {
    type Item = CodeKey;
    type Outcome = Option<(Code, Grant)>;

    const NAME: &'static str = "code_reads";

    async fn run(&self, keys: &[CodeKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.read();
        let mut codes = HashMap::new();
        for row in CODES.query(conn, keys, []).await? {
            let code = code(Model::from_query_result(&row, "")?)?;
            codes.insert(hex::encode(code.digest), code);
        }
        let grant_key = |code: &Code| json!({ "tenant_id": code.tenant_id, "grant_id": code.grant_id });
        let grant_keys: Vec<_> = codes.values().map(grant_key).collect();
        let mut grants = HashMap::new();
        for row in GRANTS.query(conn, &grant_keys, []).await? {
            let grant = grant(entity::grant::Model::from_query_result(&row, "")?)?;
            grants.insert(grant.grant_id.clone(), grant);
        }
        let outcomes = keys.iter().map(|key| {
            let code = codes.get(&key.code_hash)?;
            let grant = grants.get(&code.grant_id)?;
            // The code may be that of another caller, at another tenant.
            (code.tenant_id == key.tenant_id).then(|| (code.clone(), grant.clone()))
        });
        Ok(outcomes.collect())
    }
}

/// Reads a row.
fn code(row: Model) -> Result<Code, StoreError> {
    let unreadable = || StoreError::Corrupt("codes");
    let family_id = row.family_id.as_deref().map(FamilyId::parse).transpose();
    Ok(Code {
        digest: row.code_hash.try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: family_id.map_err(|_| unreadable())?,
    })
}
