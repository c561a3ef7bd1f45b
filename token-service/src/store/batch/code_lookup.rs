//! Looks authorization codes up, with the grants that their redemption activates: two reads a group, in place
//! of two reads a call (decision 21; benchmark case `code`).

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    store::{
        Database, StoreError,
        batch::{group_commit::Work, json_rows::JsonRows},
    },
    text::{id::TenantId, opaque::OpaqueToken},
};
use sea_orm::FromQueryResult;
use serde::Serialize;

use super::super::{
    Store,
    code::read,
    entity,
    grant::{GrantKey, grant},
};
use crate::{
    error::Error,
    model::{code::Code, grant::Grant},
};

impl Store {
    /// Reads a tenant's code, and the grant that its redemption activates.
    pub async fn find_code(
        &self,
        tenant_id: &TenantId,
        code: &OpaqueToken,
    ) -> Result<Option<(Code, Grant)>, Error> {
        let key = CodeKey {
            tenant_id: tenant_id.to_string(),
            code_hash: hex::encode(code.digest()),
        };
        Ok(self.codes.submit(key).await?)
    }
}

#[derive(Serialize)]
pub(in crate::store) struct CodeKey {
    tenant_id: String,
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
    JsonRows::new(&[("tenant_id", "text"), ("grant_id", "text")], |dialect| {
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

    async fn run(&self, keys: &[CodeKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.read();
        let mut codes = HashMap::new();
        for row in CODES.query(conn, keys, []).await? {
            let code = read(entity::code::Model::from_query_result(&row, "")?)?;
            codes.insert((code.tenant_id.to_string(), hex::encode(code.digest)), code);
        }
        let of_codes: Vec<_> = codes.values().map(GrantKey::of_code).collect();
        let mut grants = HashMap::new();
        for row in GRANTS.query(conn, &of_codes, []).await? {
            let grant = grant(entity::grant::Model::from_query_result(&row, "")?)?;
            grants.insert(GrantKey::new(&grant.tenant_id, &grant.grant_id), grant);
        }
        let outcomes = keys.iter().map(|key| {
            let code = codes.get(&(key.tenant_id.clone(), key.code_hash.clone()))?;
            let grant = grants.get(&GrantKey::of_code(code))?;
            Some((code.clone(), grant.clone()))
        });
        Ok(outcomes.collect())
    }
}
