//! Authorization codes in the database: looked up, or used up without a token. Their redemption is in
//! [`super::redemption`].

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
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, sea_query::Expr};
use serde::Serialize;

use super::{
    Store, commit,
    entity::code::{Column, Entity, Model},
    grant::{GrantKey, find_grants},
};
use crate::{
    error::Error,
    model::{code::Code, grant::Grant},
};

impl Store {
    /// Reads a tenant's code, and the grant that its redemption activates. Those who come at the same
    /// time share the question.
    ///
    /// # Errors
    /// [`Error::Store`].
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

    /// Uses a code up without redeeming it; whether it was unused. The event goes with it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn burn_code(&self, origin: &Origin, code: &Code, event: Event) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        if !use_up(&tx, code, self.now()).await? {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await?;
        commit(tx).await?;
        Ok(true)
    }
}

/// A tenant's code, to be looked up.
#[derive(Serialize)]
pub(super) struct CodeKey {
    tenant_id: String,
    code_hash: String,
}

/// Looks codes up together.
pub(super) struct Lookups(pub(super) Database);

static FIND: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("code_hash", "text")], |dialect| {
        format!(
            "SELECT codes.* FROM {} JOIN codes
            ON codes.code_hash = {} AND codes.tenant_id = input.tenant_id",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

impl Work for Lookups {
    type Item = CodeKey;
    type Outcome = Option<(Code, Grant)>;

    async fn run(&self, keys: &[CodeKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.read();
        let mut codes = HashMap::new();
        for row in FIND.query(conn, keys, []).await? {
            let code = read(Model::from_query_result(&row, "")?)?;
            codes.insert((code.tenant_id.to_string(), hex::encode(code.digest)), code);
        }
        let grants: Vec<_> = codes.values().map(Code::grant_key).collect();
        let grants = find_grants(conn, &grants).await?;
        let outcomes = keys.iter().map(|key| {
            let code = codes.get(&(key.tenant_id.clone(), key.code_hash.clone()))?;
            let grant = grants.get(&code.grant_key())?;
            Some((code.clone(), grant.clone()))
        });
        Ok(outcomes.collect())
    }
}

impl Code {
    /// The grant that the code's redemption activates.
    pub(super) fn grant_key(&self) -> GrantKey {
        GrantKey {
            tenant_id: self.tenant_id.to_string(),
            grant_id: self.grant_id.to_string(),
        }
    }
}

/// Marks a code as used that yields nothing; whether it was unused.
async fn use_up(tx: &DatabaseTransaction, code: &Code, now: UnixMillis) -> Result<bool, StoreError> {
    let used = Entity::update_many()
        .filter(Column::CodeHash.eq(code.digest.to_vec()))
        .filter(Column::UsedAt.is_null())
        .col_expr(Column::UsedAt, Expr::value(now.as_millis()))
        .exec(tx)
        .await?;
    Ok(used.rows_affected == 1)
}

fn read(row: Model) -> Result<Code, StoreError> {
    let unreadable = || StoreError::Corrupt("codes");
    Ok(Code {
        digest: row.code_hash.try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: match row.family_id {
            Some(id) => Some(FamilyId::parse(&id).map_err(|_| unreadable())?),
            None => None,
        },
    })
}
