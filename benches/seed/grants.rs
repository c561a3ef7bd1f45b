//! What token-service would have written: grants, refresh families, and codes that wait to be redeemed.

use std::{
    iter::repeat_n,
    path::{Path, PathBuf},
    time::Duration,
};

use accord::{
    clock::{Clock, SystemClock, UnixMillis},
    keys::{FileMasterKey, Keyring},
    position::Position,
    random::SystemRandom,
    store::{Database, keyring},
    text::{
        id::{FamilyId, GrantId, TenantId},
        opaque::{OpaqueToken, TokenKind, sha256},
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sea_orm::IntoActiveModel;
use serde_json::json;
use token_service::{
    model::{
        family::{Family, Generations},
        purpose,
    },
    store::{
        PURPOSES,
        entity::{code, family, grant},
    },
};

use super::{Client, REDIRECT_URI, SCOPES, Seeded, rows::insert, write_file};
use crate::{
    load::stock::{Chain, Code},
    progress::Progress,
    services::Setup,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// As long as a code's own verifier may be short (RFC 7636 §4.1).
const VERIFIER: &str = "bench-verifier-bench-verifier-bench-verifier";

/// Writes grants for all clients, and families for the first `chains`; their first refresh tokens.
/// `position` is the registry's, which families hold.
pub async fn write(
    setup: &Setup,
    seeded: &Seeded,
    position: Position,
    chains: usize,
    progress: &Progress,
) -> anyhow::Result<Vec<Chain>> {
    let db = Database::connect(&setup.token_url).await?;
    let master = FileMasterKey::load(&setup.master_key_file("token"))?;
    let keyring = keyring::open(&db, &master, PURPOSES, &SystemClock, &SystemRandom).await?;
    let now = SystemClock.now();
    let grants = seeded.clients.iter().map(|client| {
        let row = grant::Model {
            state: "active".to_owned(),
            activated_at: Some(now.as_millis()),
            ..pending(seeded, client, client.grant_id.clone(), now)
        };
        row.into_active_model()
    });
    progress.step(Some(seeded.clients.len() as u64), "grants");
    insert(&db, grants, Some(progress)).await?;
    let mut first_tokens = Vec::with_capacity(chains);
    let mut families = Vec::with_capacity(chains);
    for (person, client) in seeded.clients.iter().enumerate().take(chains) {
        let family = begin(seeded, client, &position, &keyring, now)?;
        first_tokens.push(Chain {
            person,
            refresh_token: family
                .token(&keyring, family.generations.current)?
                .expose()
                .to_owned(),
        });
        families.push(row(&family, now).into_active_model());
    }
    insert(&db, families.into_iter(), None).await?;
    db.close().await?;
    Ok(first_tokens)
}

fn pending(seeded: &Seeded, client: &Client, grant_id: GrantId, now: UnixMillis) -> grant::Model {
    let tenant = seeded.tenant_of(client);
    grant::Model {
        tenant_id: tenant.tenant_id.clone(),
        grant_id: grant_id.into(),
        client_id: client.client_id.to_string(),
        client_display_name: "Practice Integration".to_owned(),
        scopes: json!(SCOPES),
        designated_user_id: tenant.designated.to_string(),
        purpose: "Keep contacts and matters in step with the partner's product.".to_owned(),
        granted_by_user_id: tenant.admin.to_string(),
        state: "pending".to_owned(),
        created_at: now.as_millis(),
        redeem_until: now.plus(DAY).as_millis(),
        activated_at: None,
        expires_at: None,
        ended_at: None,
    }
}

fn begin(
    seeded: &Seeded,
    client: &Client,
    position: &Position,
    keyring: &Keyring,
    now: UnixMillis,
) -> anyhow::Result<Family> {
    Ok(Family {
        family_id: FamilyId::generate(&SystemClock, &SystemRandom),
        tenant_id: TenantId::parse(&seeded.tenant_of(client).tenant_id)?,
        grant_id: client.grant_id.clone(),
        client_id: client.client_id.clone(),
        generations: Generations::first(now),
        key_version: keyring.current(purpose::REFRESH)?.version(),
        registry: position.clone(),
        expires_at: now.plus(90 * DAY),
        ended_at: None,
    })
}

fn row(family: &Family, now: UnixMillis) -> family::Model {
    family::Model {
        tenant_id: family.tenant_id.to_string(),
        family_id: family.family_id.to_string(),
        grant_id: family.grant_id.to_string(),
        client_id: family.client_id.to_string(),
        used_generation: 0,
        current_generation: 1,
        handed_out_at: now.as_millis(),
        key_version: family.key_version,
        registry_epoch: family.registry.epoch.to_string(),
        registry_seq: family.registry.seq,
        created_at: now.as_millis(),
        expires_at: family.expires_at.as_millis(),
        ended_at: None,
        end_reason: None,
    }
}

/// Codes for one job of the load generator.
pub struct Codes {
    /// How many callers share them.
    pub callers: usize,
    /// How many codes each caller has.
    pub each: usize,
    /// The clients whose they are begin here, among those with a secret: their grants and families end
    /// as the codes are redeemed.
    pub first_client: usize,
}

impl Codes {
    /// Writes them, and the grants that they activate; the file of codes.
    pub async fn write(&self, setup: &Setup, seeded: &Seeded, directory: &Path) -> anyhow::Result<PathBuf> {
        let db = Database::connect(&setup.token_url).await?;
        let now = SystemClock.now();
        let (mut grants, mut codes) = (Vec::new(), Vec::new());
        let mut shares = Vec::with_capacity(self.callers);
        let people = self.first_client..self.first_client + self.callers;
        for person in people {
            let client = &seeded.clients[person];
            let mut share = Vec::with_capacity(self.each);
            for _ in repeat_n((), self.each) {
                let grant_id = GrantId::generate(&SystemClock, &SystemRandom);
                let code = OpaqueToken::generate(TokenKind::AuthorizationCode, &SystemRandom);
                grants.push(pending(seeded, client, grant_id.clone(), now).into_active_model());
                codes.push(waiting(seeded, client, &grant_id, &code, now).into_active_model());
                share.push(Code {
                    person,
                    code: code.expose().to_owned(),
                    redirect_uri: REDIRECT_URI.to_owned(),
                    code_verifier: VERIFIER.to_owned(),
                });
            }
            shares.push(share);
        }
        insert(&db, grants.into_iter(), None).await?;
        insert(&db, codes.into_iter(), None).await?;
        db.close().await?;
        let file = directory.join("codes.json");
        write_file(&file, &shares)?;
        Ok(file)
    }
}

fn waiting(
    seeded: &Seeded,
    client: &Client,
    grant_id: &GrantId,
    code: &OpaqueToken,
    now: UnixMillis,
) -> code::Model {
    code::Model {
        code_hash: code.digest().to_vec(),
        tenant_id: seeded.tenant_of(client).tenant_id.clone(),
        grant_id: grant_id.to_string(),
        client_id: client.client_id.to_string(),
        redirect_uri: REDIRECT_URI.to_owned(),
        code_challenge: URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes())),
        resource: String::new(),
        expires_at: now.plus(DAY).as_millis(),
        used_at: None,
        family_id: None,
    }
}
