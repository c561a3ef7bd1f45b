//! Reads clients, tenants and users for token-service, which asks in groups: one statement per table, whatever the size of the
//! group (decision 16). With a query for each fact, the first call of a client cost
//! registry-service 382 µs of CPU on SQLite and 484 µs on PostgreSQL; in groups it costs 89 and 54 µs (benchmark case
//! `new-replica`, docs/PERFORMANCE.md).

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        batch::json_rows::JsonRows,
        rows::{self, Authentic, Protected},
    },
    text::id::{ClientId, SecretId, TenantId, UserId},
};
use sea_orm::Value;
use serde::Serialize;

use super::super::{
    Store,
    client::client,
    corrupt,
    entity::{client, client_secret, scope, tenant, user},
    tenant::tenant,
    user::user,
};
use crate::{
    error::Result,
    model::{
        client::{Client, ClientProfile, ProfileScope, since},
        tenant::Tenant,
        user::User,
    },
};

/// Names clients, tenants and users, each once.
#[derive(Clone, Debug, Default)]
pub struct ProfileKeys {
    /// The clients.
    pub client_ids: Vec<ClientId>,
    /// The tenants.
    pub tenant_ids: Vec<TenantId>,
    /// The users.
    pub users: Vec<UserKey>,
}

/// Names a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct UserKey {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
}

/// Clients, tenants and users in any order.
#[derive(Clone, Debug, Default)]
pub struct Profiles {
    /// The clients.
    pub clients: Vec<ClientProfile>,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The users.
    pub users: Vec<User>,
}

#[derive(Serialize)]
struct Id<'a> {
    id: &'a str,
}

fn by_id<E: Protected>(key: &'static str, rest: &'static str) -> JsonRows {
    JsonRows::new(&[("id", "text")], |dialect| {
        let (input, entity) = (&dialect.input, E::default());
        let table = entity.table_name();
        let (columns, versions) = dialect.versioned::<E>();
        format!("SELECT {columns} FROM {input} JOIN {table} ON {table}.{key} = input.id {versions} {rest}")
    })
}

static CLIENTS: LazyLock<JsonRows> = LazyLock::new(|| by_id::<client::Entity>("client_id", ""));
static TENANTS: LazyLock<JsonRows> = LazyLock::new(|| by_id::<tenant::Entity>("tenant_id", ""));
static LIVE_SECRETS: LazyLock<JsonRows> = LazyLock::new(|| {
    let live = "WHERE NOT awaiting_claim AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
        ORDER BY secret_id";
    by_id::<client_secret::Entity>("client_id", live)
});
static SCOPES: LazyLock<JsonRows> = LazyLock::new(|| by_id::<scope::Entity>("name", "WHERE enabled"));
static USERS: LazyLock<JsonRows> = LazyLock::new(|| {
    JsonRows::new(&[("tenant_id", "text"), ("user_id", "text")], |dialect| {
        let (columns, versions) = dialect.versioned::<user::Entity>();
        format!(
            "SELECT {columns} FROM {} JOIN users
            ON users.tenant_id = input.tenant_id AND users.user_id = input.user_id {versions}",
            dialect.input
        )
    })
});

impl Store {
    /// Reads what token-service needs of clients, tenants and users. Leaves out those that don't exist.
    pub async fn find_profiles(&self, keys: &ProfileKeys) -> Result<Profiles> {
        let tenant_ids = ids(&keys.tenant_ids, TenantId::as_str);
        let is_tenant = |row: &tenant::Model| is_one_of(&tenant_ids, &row.tenant_id);
        let tenants = self.rows(&TENANTS, &tenant_ids, [], is_tenant).await?;
        let tenants = tenants.into_iter().map(tenant);
        let user_keys = keys.users.iter();
        let user_keys = user_keys.map(|key| (key.tenant_id.as_str(), key.user_id.as_str()));
        let user_keys = user_keys.collect::<HashSet<_>>();
        let is_user = |row: &user::Model| user_keys.contains(&(row.tenant_id.as_str(), row.user_id.as_str()));
        let users = self.rows(&USERS, &keys.users, [], is_user).await?;
        let users = users.into_iter().map(user);
        Ok(Profiles {
            tenants: tenants.collect::<Result<_>>()?,
            users: users.collect::<Result<_>>()?,
            clients: self.client_profiles(&keys.client_ids).await?,
        })
    }

    /// Reads what token-service needs of a client.
    pub async fn find_client_profile(&self, client_id: &ClientId) -> Result<Option<ClientProfile>> {
        Ok(self.client_profiles(std::slice::from_ref(client_id)).await?.pop())
    }

    async fn client_profiles(&self, client_ids: &[ClientId]) -> Result<Vec<ClientProfile>> {
        let client_ids = ids(client_ids, ClientId::as_str);
        let is_client = |row: &client::Model| is_one_of(&client_ids, &row.client_id);
        let clients = self.rows(&CLIENTS, &client_ids, [], is_client).await?.into_iter();
        let clients: Vec<Client> = clients.map(client).collect::<Result<_>>()?;
        let mut live_secrets = HashMap::<_, Vec<_>>::new();
        let now = self.now().as_millis();
        let is_live = |row: &client_secret::Model| {
            is_one_of(&client_ids, &row.client_id)
                && !row.awaiting_claim
                && row.revoked_at.is_none()
                && row.expires_at.is_none_or(|at| at > now)
        };
        let secrets = self.rows::<client_secret::Entity>(&LIVE_SECRETS, &client_ids, [now.into()], is_live);
        for row in secrets.await? {
            let secret_id = SecretId::parse(&row.secret_id).map_err(|_| corrupt("client_secrets"))?;
            let secret = (secret_id, row.expires_at.map(UnixMillis::from_millis));
            live_secrets
                .entry(row.client_id.clone())
                .or_default()
                .push(secret);
        }
        let names = clients.iter().flat_map(|client| &client.scopes);
        let mut names: Vec<_> = names.map(|scope| &scope.name).collect();
        names.sort_unstable();
        names.dedup();
        let names = ids(names, |name| name.as_str());
        let is_enabled = |row: &scope::Model| row.enabled && is_one_of(&names, &row.name);
        let scopes = self
            .rows::<scope::Entity>(&SCOPES, &names, [], is_enabled)
            .await?;
        let descriptions: HashMap<_, _> = scopes
            .into_iter()
            .map(|row| row.into_row())
            .map(|row| (row.name, row.description))
            .collect();
        let profiles = clients.into_iter().map(|client| {
            let id = client.client_id.as_str();
            let scopes = client.scopes.iter().filter_map(|scope| {
                Some(ProfileScope {
                    description: descriptions.get(scope.name.as_str())?.clone(),
                    name: scope.name.clone(),
                    reason: scope.reason.clone(),
                    added_seq: since(&client.added.scopes, &scope.name, i64::MAX),
                })
            });
            ClientProfile {
                scopes: scopes.collect(),
                live_secrets: live_secrets.remove(id).unwrap_or_default(),
                client,
            }
        });
        Ok(profiles.collect())
    }

    async fn rows<E: Protected>(
        &self,
        statement: &JsonRows,
        keys: &[impl Serialize],
        others: impl IntoIterator<Item = Value>,
        is_match: impl Fn(&E::Model) -> bool,
    ) -> Result<Vec<Authentic<E>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let conn = self.db.read();
        let rows = statement.query(conn, keys, others).await?;
        let rows = rows.iter().map(|row| rows::checked(conn, row, &is_match));
        Ok(rows.collect::<Result<_, StoreError>>()?)
    }
}

fn ids<'a, T: 'a>(ids: impl IntoIterator<Item = &'a T>, text: fn(&'a T) -> &'a str) -> Vec<Id<'a>> {
    let mut ids: Vec<_> = ids.into_iter().map(|id| Id { id: text(id) }).collect();
    ids.sort_unstable_by_key(|id| id.id);
    ids
}

/// Returns whether the sorted `ids` hold this one.
fn is_one_of(ids: &[Id<'_>], id: &str) -> bool {
    ids.binary_search_by_key(&id, |id| id.id).is_ok()
}

#[cfg(test)]
#[path = "../tests/profiles.rs"]
mod tests;
