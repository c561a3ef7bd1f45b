//! The rules of followers and of facts in memory, with sources that fail, lag and change in between.

#![allow(clippy::unwrap_used)]

use accord::{random::SeededRandom, testing::test_clock};

use super::{follower::ChangeSource, *};
use crate::{
    error::Error,
    model::{
        change::{Change, Changes},
        client::{Client, Profile},
        revocation::{Revocation, RevocationKind},
    },
};

mod affected;
mod changes;
mod edited;
mod epochs;
mod group_read;
mod secrets;

fn tenant_id(n: usize) -> TenantId {
    TenantId::parse(&format!("tenant-{n}")).unwrap()
}

fn tenant(n: usize, version: i64) -> Tenant {
    Tenant {
        tenant_id: tenant_id(n),
        display_name: String::new(),
        active: true,
        issuer: String::new(),
        cloud_api_url: String::new(),
        tokens_ended_seq: version,
    }
}

fn client(random: &SeededRandom) -> Client {
    Client {
        client_id: ClientId::generate(&*test_clock(), random),
        profile: Profile::default(),
        active: true,
        tenants: Default::default(),
        scopes: Vec::new(),
        redirect_uris: Vec::new(),
        version: 1,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        json_web_key_set: String::new(),
        live_secrets: Vec::new(),
        auth_method: None,
        jwks_uri: String::new(),
        certificate_subject: None,
        dpop_jkts: Vec::new(),
        allowed_networks: Default::default(),
        fapi_from: None,
    }
}
