//! Rows as the services write them.

use std::time::Duration;

use accord::{
    clock::{Clock, SystemClock},
    random::SystemRandom,
    text::{
        id::GrantId,
        opaque::{ClientSecret, OpaqueToken, sha256},
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use registry_service::{
    model::{argon2_hash::Argon2Hash, client::security::Security},
    store::entity::{client, client_secret, client_tenant, integration_request},
};
use serde_json::{Value, json};
use token_service::store::entity::{code, grant};

use super::{CODE_VERIFIER, Client, REDIRECT_URI};
use crate::bare::SCOPE;

const PURPOSE: &str = "Keep contacts and matters in step with the partner's product.";

/// As long as a family, so that a clean-up that passes one bound deletes neither before its time.
const CODE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

fn now() -> i64 {
    SystemClock.now().as_millis()
}

fn tomorrow() -> i64 {
    SystemClock.now().plus(Duration::from_secs(24 * 3600)).as_millis()
}

pub fn client(client: &Client) -> client::Model {
    let scope = |name| json!({"name": name, "reason": "Shown where it is worked with."});
    client::Model {
        client_id: client.client_id.to_string(),
        integration_request_id: client.integration_request_id.to_string(),
        presentation: json!({
            "display_name": "Practice Integration",
            "partner_name": "Integrations Ltd",
            "goals": PURPOSE,
        }),
        tenants: json!([client.tenant.tenant_id.as_str()]),
        scopes: SCOPE.split(' ').map(scope).collect::<Value>(),
        added: json!({
            "tenants": {client.tenant.tenant_id.as_str(): 0},
            "scopes": SCOPE.split(' ').map(|name| (name.to_owned(), json!(0))).collect::<serde_json::Map<_, _>>(),
        }),
        redirect_uris: json!([REDIRECT_URI]),
        state: "active".to_owned(),
        version: 0,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        created_at: now(),
        updated_at: now(),
        etag: 1,
        json_web_key_set: String::new(),
        security: json!(Security::default()),
        fapi_from: None,
        mac: Vec::new(),
    }
}

/// The request that a client was registered from.
pub fn integration_request(client: &Client) -> integration_request::Model {
    integration_request::Model {
        integration_request_id: client.integration_request_id.to_string(),
        content: json!({}),
        state: "registered".to_owned(),
        rejection_reason: String::new(),
        submitter: "ada".to_owned(),
        submitted_by: "ada".to_owned(),
        approved_by: Some("grace".to_owned()),
        client_id: Some(client.client_id.to_string()),
        created_at: now(),
        updated_at: now(),
        mac: Vec::new(),
    }
}

pub fn client_tenant(client: &Client) -> client_tenant::Model {
    client_tenant::Model {
        tenant_id: client.tenant.tenant_id.to_string(),
        client_id: client.client_id.to_string(),
    }
}

pub fn secret(
    client: &Client,
    secret: &ClientSecret,
    (hashed, tag_key_version): (Argon2Hash, i32),
    is_ended: bool,
) -> client_secret::Model {
    client_secret::Model {
        secret_id: secret.secret_id().to_string(),
        client_id: client.client_id.to_string(),
        secret_hash: hashed.phc,
        pepper_version: hashed.pepper_version,
        tag_key_version,
        awaiting_claim: false,
        created_at: now(),
        expires_at: None,
        last_used_at: None,
        revoked_at: is_ended.then(now),
        revocation_reason: is_ended.then(|| "rotated".to_owned()),
        mac: Vec::new(),
    }
}

/// A grant whose code was not redeemed yet.
pub fn grant(client: &Client, grant_id: GrantId) -> grant::Model {
    grant::Model {
        tenant_id: client.tenant.tenant_id.to_string(),
        grant_id: grant_id.into(),
        client_id: client.client_id.to_string(),
        profile: json!({
            "display_name": "Practice Integration",
            "partner_name": "Practice Ltd",
            "purpose": PURPOSE,
        }),
        scopes: SCOPE.split(' ').collect(),
        designated_user_id: client.tenant.user_id.to_string(),
        granted_by_user_id: client.tenant.user_id.to_string(),
        state: "pending".to_owned(),
        family_id: None,
        client_version: 0,
        created_at: now(),
        redeem_until: tomorrow(),
        allowed_networks: serde_json::json!([]),
        activated_at: None,
        expires_at: None,
        ended_at: None,
        mac: Vec::new(),
    }
}

pub fn active_grant(client: &Client) -> grant::Model {
    grant::Model {
        state: "active".to_owned(),
        activated_at: Some(now()),
        ..grant(client, GrantId::generate(&SystemClock, &SystemRandom))
    }
}

/// The challenge of [`CODE_VERIFIER`].
pub fn code_challenge() -> String {
    URL_SAFE_NO_PAD.encode(sha256(CODE_VERIFIER.as_bytes()))
}

pub fn code(client: &Client, grant_id: &GrantId, code: &OpaqueToken) -> code::Model {
    code::Model {
        code_hash: code.digest().to_vec(),
        tenant_id: client.tenant.tenant_id.to_string(),
        grant_id: grant_id.to_string(),
        client_id: client.client_id.to_string(),
        redirect_uri: REDIRECT_URI.to_owned(),
        code_challenge: code_challenge(),
        resource: String::new(),
        dpop_jkt: None,
        expires_at: SystemClock.now().plus(CODE_LIFE).as_millis(),
        used_at: None,
        family_id: None,
        mac: Vec::new(),
    }
}
