//! The rules of followers and of facts in memory, with sources that fail, lag and change in between.

#![allow(clippy::unwrap_used)]

use accord::{random::SeededRandom, testing::test_clock};

use super::{follower::ChangeSource, *};
use crate::{
    error::Error,
    model::{
        change::{Change, Changes},
        client::{Client, DisplayInfo},
        revocation::{Revocation, RevocationKind},
    },
};

mod affected;
mod age;
mod callers;
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
    Client::without_anything(ClientId::generate(&*test_clock(), random))
}
