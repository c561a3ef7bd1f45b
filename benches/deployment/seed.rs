//! Fills a pair of databases with tenants, clients and grants, straight through the entities: a million
//! registrations and consents by RPC would take hours. The rows are what the services would have written.
//!
//! A secret is stored as its argon2id hash, which takes its time: only clients that calls are made for have one, and
//! of more than [`HASHED`] such clients the others count as verified by a replica, with the hash of another secret in
//! the registry. A call that ran argon2 for one of these would fail.

mod events;
mod rows;

use std::{
    net::Ipv4Addr,
    ops::Range,
    sync::{Arc, Mutex},
};

use accord::{
    clock::SystemClock,
    random::{Random, SystemRandom},
    rpc::{
        config::settings::ServiceSettings,
        run::{self, Service},
    },
    store::{
        Creation, Database,
        audit::Origin,
        rows::{Protected, Recorded, current, protect, version},
    },
    text::{
        account_name::AccountName,
        id::{ClientId, GrantId, IntegrationRequestId, ScopeName, SecretId, TenantId, UserId},
        opaque::{ClientSecret, OpaqueToken, SecretTagKey, TokenKind},
    },
    token::v1::{AuthorizationCodeGrant, PushAuthorizationRequestRequest},
};
use anyhow::{Context, Result};
use registry_service::{
    config::Settings,
    model::{
        argon2_hash::Argon2Hash,
        scope::NewScope,
        tenant::NewTenant,
        user::{NewUser, User},
    },
    server::RegistryServer,
    store::{
        Store as RegistryStore,
        entity::{client, client_secret, integration_request},
    },
};
use sea_orm::{EntityTrait, IntoActiveModel, ModelTrait};
use token_service::store::{
    self, Store,
    entity::{code, grant},
    migration::Migrator,
};
use zeroize::Zeroizing;

use super::services::Setup;
use crate::{
    bare::{SCOPE, cloud_api_url},
    load::{Credentials, grpc::Codes},
    protocol::Plan,
};

/// Clients whose own secret is hashed, at most.
pub const HASHED: usize = 1_000;
/// Clients are spread over these.
const TENANTS: usize = 10;
/// Clients that have an ended secret beside their live one, at most.
const ENDED: usize = 16;
const REDIRECT_URI: &str = "https://integration.example/oauth/callback";
/// As short as a verifier may be (RFC 7636 §4.1).
const CODE_VERIFIER: &str = "bench-verifier-bench-verifier-bench-verifier";
/// Rows in one insert: SQLite allows 32,766 parameters.
const ROWS: usize = 1_000;
/// Inserts in one transaction.
const INSERTS: usize = 20;

/// What was written, as far as calls need it.
pub struct Dataset {
    plan: Plan,
    /// The first of them have secrets.
    clients: Vec<Client>,
    pub credentials: Arc<[Credentials]>,
    /// Revoked secrets of the first clients.
    pub ended: Arc<[Credentials]>,
}

#[derive(Clone)]
struct Tenant {
    tenant_id: TenantId,
    /// The Tenant Admin who consented, and the user that API transactions run as.
    user_id: UserId,
}

struct Client {
    tenant: Tenant,
    client_id: ClientId,
    integration_request_id: IntegrationRequestId,
    secret: Option<ClientSecret>,
    ended_secret: Option<ClientSecret>,
}

/// Writes everything. The services don't run yet.
pub async fn run(setup: &Setup, plan: &Plan) -> Result<Dataset> {
    let registry = registry(setup, plan).await?;
    let tenants = tenants(registry.store()).await?;
    let tag_key = registry.store().secret_tag_key().await?;
    let client = |number| client(&tenants[number % TENANTS], number, plan.active, &tag_key);
    let clients: Vec<Client> = (0..plan.clients).map(client).collect();

    let db = registry.database();
    let requests = clients.iter().map(rows::integration_request);
    insert_protected::<integration_request::Entity>(db, requests).await?;
    insert_protected::<client::Entity>(db, clients.iter().map(rows::client)).await?;
    insert(db, clients.iter().map(rows::client_tenant)).await?;
    let hasher = &registry.store().hasher;
    let live = clients.iter().map(|client| (client, &client.secret, false));
    let ended = clients.iter().map(|client| (client, &client.ended_secret, true));
    let (mut first, mut secrets) = (None::<Argon2Hash>, Vec::new());
    for (client, secret, is_ended) in live.chain(ended) {
        let Some(secret) = secret else { continue };
        let hash = match &first {
            Some(first) if secrets.len() >= HASHED && !is_ended => first.clone(),
            _ => {
                let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
                hasher.hash(client.client_id.as_str(), text).await?
            }
        };
        first.get_or_insert_with(|| hash.clone());
        secrets.push(rows::secret(client, secret, (hash, tag_key.version()), is_ended));
    }
    insert_protected::<client_secret::Entity>(db, secrets.into_iter()).await?;
    db.close().await;

    let (db, store) = token_store(plan).await?;
    insert_protected::<grant::Entity>(&db, clients.iter().map(rows::active_grant)).await?;
    verified(&store, &clients).await?;
    db.close().await;

    let live = |client| credentials(client, &client.secret);
    let ended = |client| credentials(client, &client.ended_secret);
    Ok(Dataset {
        plan: plan.clone(),
        credentials: clients.iter().map_while(live).collect(),
        ended: clients.iter().map_while(ended).collect(),
        clients,
    })
}

/// Opens registry-service's database.
async fn registry(setup: &Setup, plan: &Plan) -> Result<RegistryServer> {
    let settings = Settings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        service: ServiceSettings::new(plan.registry_url.clone(), setup.master_key_file("registry")),
        public_base_url: setup.public_base_url(),
        ..Settings::default()
    };
    RegistryServer::open(&settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await
}

/// Creates the tenants, each with its user, and the scopes.
async fn tenants(store: &RegistryStore) -> Result<Vec<Tenant>> {
    let creation = |method| Creation {
        origin: Origin::system("benchmark"),
        method,
        request_id: None,
        content: Zeroizing::default(),
    };
    for name in SCOPE.split(' ') {
        let (name, description) = (ScopeName::parse(name)?, format!("See what {name} stands for."));
        let scope = NewScope { name, description };
        store.create_scope(&creation("CreateScope"), scope).await?;
    }
    let mut tenants = Vec::with_capacity(TENANTS);
    for number in 0..TENANTS {
        let tenant_id = TenantId::parse(&format!("firm-{number}"))?;
        let tenant = NewTenant {
            tenant_id: tenant_id.clone(),
            display_name: format!("Firm {number} LLP"),
            cloud_api_url: cloud_api_url(number),
        };
        store.create_tenant(&creation("CreateTenant"), tenant).await?;
        let user = NewUser {
            tenant_id: tenant_id.clone(),
            account_name: AccountName::parse("administrator")?,
            label: "Administrator 1".to_owned(),
            tenant_admin: true,
        };
        let (User { user_id, .. }, _) = store.create_user(&creation("CreateUser"), user).await?;
        tenants.push(Tenant { tenant_id, user_id });
    }
    Ok(tenants)
}

/// Writes the secrets that count as verified.
async fn verified(store: &Store, clients: &[Client]) -> Result<()> {
    for client in clients.iter().skip(HASHED) {
        let Some(secret) = &client.secret else { continue };
        store
            .insert_verified_secret(&client.client_id, secret, None)
            .await?;
    }
    Ok(())
}

/// Opens token-service's database.
pub async fn token_store(plan: &Plan) -> Result<(Database, Store)> {
    let settings = ServiceSettings::new(plan.token_url.clone(), plan.directory.join("token.key"));
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let opened = run::open::<Migrator>(&settings, store::PURPOSES, clock.clone(), &*random);
    let (db, keyring) = opened.await?;
    Ok((db.clone(), Store::new(db, keyring, clock, random)))
}

impl Dataset {
    /// Writes codes, and the grants that they activate: `each` for each of some clients, by number.
    pub async fn codes(&self, clients: Range<usize>, each: usize) -> Result<Vec<Codes>> {
        let (mut grants, mut rows, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for client in &self.clients[clients] {
            let mut own = Vec::with_capacity(each);
            for _ in 0..each {
                let grant_id = GrantId::generate(&SystemClock, &SystemRandom);
                let code = OpaqueToken::generate(TokenKind::AuthorizationCode, &SystemRandom);
                rows.push(rows::code(client, &grant_id, &code));
                grants.push(rows::grant(client, grant_id));
                own.push(AuthorizationCodeGrant {
                    code: code.expose().to_owned(),
                    redirect_uri: REDIRECT_URI.to_owned(),
                    code_verifier: CODE_VERIFIER.to_owned(),
                });
            }
            let credentials = credentials(client, &client.secret).context("a client without a secret")?;
            let own = Mutex::new(own);
            codes.push(Codes { credentials, own });
        }
        let (db, _) = token_store(&self.plan).await?;
        insert_protected::<grant::Entity>(&db, grants.into_iter()).await?;
        insert_protected::<code::Entity>(&db, rows.into_iter()).await?;
        db.close().await;
        Ok(codes)
    }
}

/// The authorization request that every client may make.
pub fn authorization_request() -> PushAuthorizationRequestRequest {
    PushAuthorizationRequestRequest {
        redirect_uri: REDIRECT_URI.to_owned(),
        scopes: SCOPE.split(' ').map(str::to_owned).collect(),
        state: "af0ifjsldkj".to_owned(),
        code_challenge: rows::code_challenge(),
        ..Default::default()
    }
}

fn client(tenant: &Tenant, number: usize, active: usize, tag_key: &SecretTagKey) -> Client {
    let client_id = ClientId::generate(&SystemClock, &SystemRandom);
    let secret = || {
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes);
        let secret_id = SecretId::generate(&SystemClock, &SystemRandom);
        ClientSecret::compose(tag_key, &client_id, secret_id, &bytes)
    };
    Client {
        tenant: tenant.clone(),
        secret: (number < active).then(secret),
        ended_secret: (number < active.min(ENDED)).then(secret),
        client_id,
        integration_request_id: IntegrationRequestId::generate(&SystemClock, &SystemRandom),
    }
}

fn credentials(client: &Client, secret: &Option<ClientSecret>) -> Option<Credentials> {
    Some(Credentials {
        tenant_id: client.tenant.tenant_id.to_string(),
        client_id: client.client_id.to_string(),
        client_secret: secret.as_ref()?.expose().to_owned(),
    })
}

/// Inserts rows with their MACs, as they are produced.
async fn insert_protected<E: Protected>(db: &Database, rows: impl Iterator<Item = E::Model>) -> Result<()>
where
    E::ActiveModel: Send,
{
    let key = current(db.read())?;
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let (mut some, mut versions) = (Vec::new(), Vec::new());
        for mut row in rows.by_ref().take(ROWS * INSERTS) {
            protect::<E>(&key, &mut row)?;
            if matches!(E::RECORDED, Recorded::Always) {
                versions.push(version::unrecorded::<E>(&key, &row)?);
            }
            some.push(row);
        }
        insert(db, some.into_iter()).await?;
        insert(db, versions.into_iter()).await?;
    }
    Ok(())
}

/// Inserts rows as they are produced.
async fn insert<M>(db: &Database, rows: impl Iterator<Item = M>) -> Result<()>
where
    M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel>,
    <M::Entity as EntityTrait>::ActiveModel: Send,
{
    let mut rows = rows.map(IntoActiveModel::into_active_model).peekable();
    while rows.peek().is_some() {
        let tx = db.write().await?;
        for _ in 0..INSERTS {
            let some: Vec<_> = rows.by_ref().take(ROWS).collect();
            if some.is_empty() {
                break;
            }
            M::Entity::insert_many(some).exec_without_returning(&tx).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
