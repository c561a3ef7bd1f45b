//! Shared by the store's tests: a store on a throw-away database, and callers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use accord::{
    clock::ManualClock,
    random::SystemRandom,
    store::{
        Creation,
        audit::{self, Actor, ActorKind, Origin},
    },
    testing::{migrated, test_clock},
    text::{
        caller::Role,
        id::{OperatorId, TenantId},
    },
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{PURPOSES, Store, migration::Migrator};
use crate::model::{
    caller::{Authority, NewCaller},
    tenant::NewTenant,
};

/// Opens a store on the empty database at `url`. Its master key is not kept on disk.
pub async fn store(url: &str) -> (Store, Arc<ManualClock>) {
    let (db, keyring, clock) = migrated::<Migrator>(url, PURPOSES).await;
    (
        Store::new(db, keyring, clock.clone(), Arc::new(SystemRandom), false),
        clock,
    )
}

/// Returns the origin of a call by a new operator.
pub fn origin() -> Origin {
    Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor {
            kind: ActorKind::Operator,
            id: OperatorId::generate(&*test_clock(), &SystemRandom).into(),
        },
        request_id: "test-request".to_owned(),
    }
}

/// Adds an operator with these roles. Returns the origin of its calls. Operators without a person are persons of their own.
pub async fn operator(store: &Store, name: &str, roles: &[Role], person: Option<&str>) -> Origin {
    let new = NewCaller {
        name: name.into(),
        authority: Authority::Roles(roles.to_vec()),
        certificate_name: None,
        person: person.map(str::to_owned),
    };
    let (record, _) = store
        .create_caller(&creation("CreateOperator"), new)
        .await
        .unwrap();
    let mut origin = origin();
    origin.actor.id = record.caller.id().to_owned();
    origin
}

/// A creating call of [`origin`] without a request id.
pub fn creation(method: &'static str) -> Creation {
    Creation {
        origin: origin(),
        method,
        request_id: None,
        content: Zeroizing::new(Vec::new()),
    }
}

/// A creating call with a new request id: clone it to repeat the call.
pub fn repeatable(method: &'static str, content: &[u8]) -> Creation {
    Creation {
        request_id: Some(Uuid::new_v4()),
        content: Zeroizing::new(content.to_vec()),
        ..creation(method)
    }
}

/// Adds the tenants `acme` and `globex`.
pub async fn add_tenants(store: &Store) {
    for id in ["acme", "globex"] {
        let new = NewTenant {
            tenant_id: TenantId::parse(id).unwrap(),
            display_name: id.into(),
            cloud_api_url: format!("https://api.example/{id}"),
        };
        store.create_tenant(&creation("CreateTenant"), new).await.unwrap();
    }
}

/// Counts the audit events with this action.
pub async fn count(store: &Store, action: &str) -> usize {
    let actions = audited(store).await;
    actions.iter().filter(|found| *found == action).count()
}

/// The actions of all audit events, oldest first.
pub async fn audited(store: &Store) -> Vec<String> {
    let page = accord::text::page::PageRequest::first(500);
    let events = audit::list(store.db.read(), &audit::Filter::default(), &page)
        .await
        .unwrap();
    let mut actions: Vec<_> = events
        .into_parts()
        .0
        .into_iter()
        .map(|event| event.action)
        .collect();
    actions.reverse();
    actions
}
