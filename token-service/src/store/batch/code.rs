//! Authorization codes. They are looked up with the grants that their redemption activates: two reads a group, in
//! place of two reads a call (decision 21; benchmark case `code`).

use std::{collections::HashMap, sync::LazyLock};

use accord::{
    clock::UnixMillis,
    store::{
        Database, StoreError,
        audit::{Event, Origin},
        batch::{group_commit::Work, json_rows::JsonRows},
        rows::{self, Authentic, ProtectedRows},
    },
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId},
        opaque::OpaqueToken,
    },
};
use serde::Serialize;
use serde_json::json;

use super::super::{
    Store, Stored,
    entity::{self, code::Entity},
    grant::{StoredGrant, grant},
};
use crate::{
    error::{Error, Result},
    model::code::Code,
};

/// A code with its row.
pub type StoredCode = Stored<Code, Entity>;

impl Store {
    /// Reads a tenant's code, and the grant that its redemption activates.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the code is about to become usable again.
    pub async fn find_code(
        &self,
        tenant_id: &TenantId,
        code: &OpaqueToken,
    ) -> Result<Option<(StoredCode, StoredGrant)>> {
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
        let row = Entity::look_up_by_id(code.digest.to_vec()).lock_one(&tx).await?;
        let Some(mut row) = row.filter(|row| row.used_at.is_none()) else {
            return Ok(false);
        };
        row.used_at = Some(self.now().as_millis());
        row.save(&tx).await?;
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
        let (columns, versions) = dialect.versioned::<Entity>();
        format!(
            "SELECT {columns} FROM {} JOIN codes
            ON codes.code_hash = {} AND codes.tenant_id = input.tenant_id {versions}",
            dialect.input,
            dialect.unhex("input.code_hash"),
        )
    })
});

static GRANTS: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&super::GRANT_KEY, |dialect| {
        let (columns, versions) = dialect.versioned::<entity::grant::Entity>();
        format!(
            "SELECT {columns} FROM {} JOIN grants
            ON grants.tenant_id = input.tenant_id AND grants.grant_id = input.grant_id {versions}",
            dialect.input
        )
    })
});

impl Work for CodeLookups {
    type Item = CodeKey;
    type Outcome = Option<(StoredCode, StoredGrant)>;

    const NAME: &'static str = "code_reads";

    async fn run(&self, keys: &[CodeKey]) -> Result<Vec<Self::Outcome>, StoreError> {
        let conn = self.0.read();
        let mut codes = HashMap::new();
        for row in CODES.query(conn, keys, []).await? {
            let is_asked_for = |row: &entity::code::Model| {
                let hash = hex::encode(&row.code_hash);
                keys.iter()
                    .any(|key| key.code_hash == hash && key.tenant_id.as_str() == row.tenant_id)
            };
            let code = Stored::read(rows::checked::<Entity>(conn, &row, is_asked_for)?, code)?;
            codes.insert(hex::encode(code.digest), code);
        }
        let grant_key = |code: &StoredCode| json!({ "tenant_id": code.tenant_id, "grant_id": code.grant_id });
        let grant_keys: Vec<_> = codes.values().map(grant_key).collect();
        let mut grants = HashMap::new();
        for row in GRANTS.query(conn, &grant_keys, []).await? {
            // Found by its key below.
            let row = rows::checked::<entity::grant::Entity>(conn, &row, |_| true)?;
            let grant = Stored::read(row, grant)?;
            grants.insert((grant.tenant_id.clone(), grant.grant_id.clone()), grant);
        }
        let outcomes = keys.iter().map(|key| {
            let code = codes.get(&key.code_hash)?;
            let grant = grants.get(&(code.tenant_id.clone(), code.grant_id.clone()))?;
            // The code may be that of another caller, at another tenant.
            (code.tenant_id == key.tenant_id).then(|| (code.clone(), grant.clone()))
        });
        Ok(outcomes.collect())
    }
}

/// Reads a row.
fn code(row: &Authentic<Entity>) -> Result<Code, StoreError> {
    let unreadable = || StoreError::Corrupt("codes");
    let family_id = row.family_id.as_deref().map(FamilyId::parse).transpose();
    Ok(Code {
        digest: row.code_hash.as_slice().try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri.clone(),
        code_challenge: row.code_challenge.clone(),
        dpop_jkt: row.dpop_jkt.clone(),
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: family_id.map_err(|_| unreadable())?,
    })
}
