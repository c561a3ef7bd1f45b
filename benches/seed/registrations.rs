//! What registry-service would have written: tenants and their users, the catalogue, clients and secrets.

use std::{net::Ipv4Addr, sync::Arc, thread};

use accord::{
    clock::{Clock, SystemClock},
    position::Position,
    random::{Random, SystemRandom},
    store::Database,
    text::{
        id::IntegrationRequestId,
        opaque::{ClientSecret, SecretTagKey},
    },
};
use registry_service::{
    config::Settings,
    model::account_name,
    server::Registry,
    store::entity::{client, client_secret, client_tenant, scope, tenant, user},
};
use sea_orm::IntoActiveModel;
use serde_json::json;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::{Client, REDIRECT_URI, SCOPES, Seeded, Tenant, cloud_api_url, rows::insert};
use crate::{progress::Progress, services::Setup};

/// Writes it all; the change feed's position.
pub async fn write(setup: &Setup, seeded: &Seeded, progress: &Progress) -> anyhow::Result<Position> {
    let db = Database::connect(&setup.registry_url).await?;
    let now = SystemClock.now().as_millis();
    insert(&db, tenants(seeded, now), None).await?;
    insert(&db, users(seeded, now), None).await?;
    insert(&db, scopes(now), None).await?;
    let clients = seeded.clients.iter().map(|client| registration(client, now));
    insert(&db, clients, Some(progress)).await?;
    let client_tenants = seeded.clients.iter().map(|client| {
        let row = client_tenant::Model {
            tenant_id: seeded.tenant_of(client).tenant_id.clone(),
            client_id: client.client_id.to_string(),
        };
        row.into_active_model()
    });
    insert(&db, client_tenants, None).await?;
    let secrets = secrets(setup, seeded, progress).await?;
    insert(
        &db,
        secrets.into_iter().map(IntoActiveModel::into_active_model),
        None,
    )
    .await?;
    let position = accord::store::change::position(db.read()).await?;
    db.close().await?;
    Ok(position)
}

fn tenants(seeded: &Seeded, now: i64) -> impl Iterator<Item = tenant::ActiveModel> {
    seeded.tenants.iter().enumerate().map(move |(number, tenant)| {
        let row = tenant::Model {
            tenant_id: tenant.tenant_id.clone(),
            display_name: format!("Firm {number} LLP"),
            cloud_api_url: cloud_api_url(number),
            state: "active".to_owned(),
            tokens_ended_seq: 0,
            created_at: now,
            updated_at: now,
        };
        row.into_active_model()
    })
}

fn users(seeded: &Seeded, now: i64) -> impl Iterator<Item = user::ActiveModel> {
    let of_tenant = move |tenant: &Tenant| {
        let user = |user_id: String, label: &str, tenant_admin| {
            // Nobody looks these users up by name.
            let mut name_hash = vec![0; 32];
            SystemRandom.fill(&mut name_hash);
            let row = user::Model {
                tenant_id: tenant.tenant_id.clone(),
                user_id,
                name_hash,
                name_key_version: 1,
                name_rules_version: account_name::RULES_VERSION,
                label: label.to_owned(),
                tenant_admin,
                state: "active".to_owned(),
                password_hash: None,
                pepper_version: None,
                tokens_ended_seq: 0,
                sessions_ended_seq: 0,
                created_at: now,
                updated_at: now,
            };
            row.into_active_model()
        };
        [
            user(tenant.designated.to_string(), "API user 1", false),
            user(tenant.admin.to_string(), "Administrator 1", true),
        ]
    };
    seeded.tenants.iter().flat_map(of_tenant)
}

fn scopes(now: i64) -> impl Iterator<Item = scope::ActiveModel> {
    SCOPES.into_iter().map(move |name| {
        let row = scope::Model {
            name: name.to_owned(),
            description: format!("See what {name} stands for."),
            enabled: true,
            created_at: now,
            updated_at: now,
        };
        row.into_active_model()
    })
}

fn registration(client: &Client, now: i64) -> client::ActiveModel {
    let scopes = SCOPES.map(|name| json!({"name": name, "reason": "Shown where it is worked with."}));
    let row = client::Model {
        client_id: client.client_id.to_string(),
        integration_request_id: IntegrationRequestId::generate(&SystemClock, &SystemRandom).into(),
        display_name: "Practice Integration".to_owned(),
        partner_name: "Integrations Ltd".to_owned(),
        purpose: "Keep contacts and matters in step with the partner's product.".to_owned(),
        scopes: json!(scopes),
        redirect_uris: json!([REDIRECT_URI]),
        state: "active".to_owned(),
        version: 0,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        created_at: now,
        updated_at: now,
        json_web_key_set: String::new(),
    };
    row.into_active_model()
}

/// Hashes the secrets, on all cores: one hasher hashes one at a time.
async fn secrets(
    setup: &Setup,
    seeded: &Seeded,
    progress: &Progress,
) -> anyhow::Result<Vec<client_secret::Model>> {
    let active: Vec<(String, ClientSecret)> = seeded
        .clients
        .iter()
        .map_while(|client| Some((client.client_id.to_string(), client.secret.clone()?)))
        .collect();
    progress.step(Some(active.len() as u64), &format!("{} secrets", active.len()));
    let tag_key = secret_tag_key(setup).await?;
    let cores = thread::available_parallelism()?.get();
    let mut hashing = JoinSet::new();
    for share in active.chunks(active.len().div_ceil(cores).max(1)) {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
        let registry = Registry::open(&settings(setup), clock, random).await?;
        let (share, progress, tag_key) = (share.to_vec(), progress.clone(), tag_key.clone());
        hashing.spawn(async move {
            let mut rows = Vec::with_capacity(share.len());
            for (client_id, secret) in share {
                let text = Zeroizing::new(secret.expose().as_bytes().to_vec());
                let hashed = registry.store().hasher().hash(text).await?;
                rows.push(client_secret::Model {
                    secret_id: secret.secret_id().to_string(),
                    client_id,
                    secret_hash: hashed.phc,
                    pepper_version: hashed.pepper_version,
                    tag_key_version: tag_key.version(),
                    awaiting_claim: false,
                    created_at: SystemClock.now().as_millis(),
                    expires_at: None,
                    last_used_at: None,
                    revoked_at: None,
                    revocation_reason: None,
                });
                progress.advance(1, None);
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = Vec::with_capacity(active.len());
    while let Some(share) = hashing.join_next().await {
        rows.extend(share??);
    }
    Ok(rows)
}

/// The key that the registry tags Client Secrets with.
pub async fn secret_tag_key(setup: &Setup) -> anyhow::Result<SecretTagKey> {
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let registry = Registry::open(&settings(setup), clock, random).await?;
    Ok(registry.store().secret_tag_key()?)
}

fn settings(setup: &Setup) -> Settings {
    Settings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        database_url: setup.registry_url.clone(),
        master_key_file: setup.master_key_file("registry"),
        public_base_url: setup.public_base_url(),
    }
}
