//! Fills a pair of databases with tenants, clients and grants, straight through the entities: a million
//! registrations and consents by RPC would take hours. The rows are what the services would have written.
//!
//! A secret is stored as its argon2id hash, which takes its time: only clients that calls are made for
//! have one.

mod rows;

use std::{
    net::Ipv4Addr,
    ops::Range,
    sync::{Arc, Mutex},
};

use accord::{
    clock::SystemClock,
    random::{Random, SystemRandom},
    store::Database,
    text::{
        id::{ClientId, GrantId, SecretId, UserId},
        opaque::{ClientSecret, OpaqueToken, SecretTagKey, TokenKind},
    },
    token::v1::AuthorizationCodeGrant,
};
use anyhow::{Context, Result};
use registry_service::{config::Settings, server::Registry};
use sea_orm::{EntityTrait, IntoActiveModel, ModelTrait};
use zeroize::Zeroizing;

use super::services::Setup;
use crate::{
    bare::SCOPE,
    load::{Credentials, grpc::Codes},
    protocol::Plan,
};

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
    token_url: String,
    /// The first of them have secrets.
    clients: Vec<Client>,
    pub credentials: Arc<[Credentials]>,
    /// Revoked secrets of the first clients.
    pub ended: Arc<[Credentials]>,
}

#[derive(Clone)]
struct Tenant {
    number: usize,
    tenant_id: String,
    /// The Tenant Admin who consented, and the user that API transactions run as.
    user_id: UserId,
}

struct Client {
    tenant: Tenant,
    client_id: ClientId,
    secret: Option<ClientSecret>,
    ended_secret: Option<ClientSecret>,
}

/// Writes everything. The services don't run yet.
pub async fn run(setup: &Setup, plan: &Plan) -> Result<Dataset> {
    let tenant = |number| Tenant {
        number,
        tenant_id: format!("firm-{number}"),
        user_id: UserId::generate(&SystemClock, &SystemRandom),
    };
    let tenants: Vec<Tenant> = (0..TENANTS).map(tenant).collect();
    let settings = Settings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        database_url: plan.registry_url.clone(),
        master_key_file: setup.master_key_file("registry"),
        public_base_url: setup.public_base_url(),
    };
    let registry = Registry::open(&settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let tag_key = registry.store().secret_tag_key()?;
    let client = |number| client(&tenants[number % TENANTS], number, plan.active, &tag_key);
    let clients: Vec<Client> = (0..plan.clients).map(client).collect();

    let db = Database::connect(&plan.registry_url).await?;
    insert(&db, tenants.iter().map(rows::tenant)).await?;
    insert(&db, tenants.iter().map(rows::user)).await?;
    insert(&db, SCOPE.split(' ').map(rows::scope)).await?;
    insert(&db, clients.iter().map(rows::client)).await?;
    insert(&db, clients.iter().map(rows::client_tenant)).await?;
    let live = clients.iter().map(|client| (client, &client.secret, false));
    let ended = clients.iter().map(|client| (client, &client.ended_secret, true));
    let mut secrets = Vec::new();
    for (client, secret, is_ended) in live.chain(ended) {
        let Some(secret) = secret else { continue };
        let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let hashed = (
            registry
                .store()
                .hasher
                .hash(client.client_id.as_str(), text)
                .await?,
            tag_key.version(),
        );
        secrets.push(rows::secret(client, secret, hashed, is_ended));
    }
    insert(&db, secrets.into_iter()).await?;
    db.close().await;

    let db = Database::connect(&plan.token_url).await?;
    insert(&db, clients.iter().map(rows::active_grant)).await?;
    db.close().await;

    let live = |client| credentials(client, &client.secret);
    let ended = |client| credentials(client, &client.ended_secret);
    Ok(Dataset {
        token_url: plan.token_url.clone(),
        credentials: clients.iter().map_while(live).collect(),
        ended: clients.iter().map_while(ended).collect(),
        clients,
    })
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
        let db = Database::connect(&self.token_url).await?;
        insert(&db, grants.into_iter()).await?;
        insert(&db, rows.into_iter()).await?;
        db.close().await;
        Ok(codes)
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
    }
}

fn credentials(client: &Client, secret: &Option<ClientSecret>) -> Option<Credentials> {
    Some(Credentials {
        tenant_id: client.tenant.tenant_id.clone(),
        client_id: client.client_id.to_string(),
        client_secret: secret.as_ref()?.expose().to_owned(),
    })
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
