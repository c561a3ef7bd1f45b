//! Tests of the store on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{
    position::Position,
    random::SystemRandom,
    store::{
        Creation,
        audit::{self, Actor, ActorKind},
        rows::ProtectedRows,
    },
    testing::{databases, sqlite, test_clock},
    text::{
        id::{ClientId, GrantId, ScopeName, SetupId, TenantId, UserId, WorkloadId},
        opaque::OpaqueToken,
        page::PageRequest,
    },
};

use futures_util::future::join_all;
use sea_orm::{QueryOrder, entity::prelude::*};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{entity::grant::Entity, *};
use crate::{
    model::{
        admin_session::{AdminSession, EndReason, IDLE, LIFETIME as SESSION_LIFETIME, NewSession},
        client::{ClientScope, DisplayInfo},
        grant::{Grant, GrantChange, GrantFilter, GrantState, StoredState},
        setup::{
            Approval, CODE_LIFETIME, Decision, LIFETIME, NewSetup, Setup, SetupState,
            request::{AuthorizationRequest, Parameters},
        },
    },
    store::fixture::store,
};

fn workload() -> Origin {
    origin(
        ActorKind::Workload,
        WorkloadId::generate(&*test_clock(), &SystemRandom).into(),
    )
}

fn admin(user_id: &UserId) -> Origin {
    origin(ActorKind::TenantAdmin, user_id.to_string())
}

fn origin(kind: ActorKind, id: String) -> Origin {
    Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor { kind, id },
        request_id: "test-request".into(),
    }
}

fn creation(request_id: Option<Uuid>, content: &[u8]) -> Creation {
    Creation {
        origin: origin(ActorKind::Workload, "pages".into()),
        method: "StartSetup",
        request_id,
        content: Zeroizing::new(content.to_vec()),
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn user() -> UserId {
    UserId::generate(&*test_clock(), &SystemRandom)
}

fn client() -> ClientId {
    ClientId::generate(&*test_clock(), &SystemRandom)
}

/// Starts a setup of a client.
async fn started(store: &Store, client_id: &ClientId) -> Setup {
    let call = creation(None, b"");
    let setup = store.create_setup(&call, new_setup("acme", client_id)).await;
    setup.unwrap()
}

fn new_setup(tenant_id: &str, client_id: &ClientId) -> NewSetup {
    let scopes: Vec<_> = ["contacts.read", "contacts.write"]
        .into_iter()
        .map(|name| ClientScope {
            name: ScopeName::parse(name).unwrap(),
            description: format!("Allows {name}"),
            reason: format!("Needs {name}"),
            added_seq: 0,
        })
        .collect();
    NewSetup {
        setup_id: SetupId::generate(&*test_clock(), &SystemRandom),
        request: AuthorizationRequest {
            tenant_id: tenant(tenant_id),
            client_id: client_id.clone(),
            parameters: parameters(),
            pushed: true,
        },
        tenant_display_name: "Acme".into(),
        display: DisplayInfo {
            display_name: "Contact Sync".into(),
            ..DisplayInfo::default()
        },
        client_version: 7,
        scopes,
    }
}

fn parameters() -> Parameters {
    Parameters {
        redirect_uri: "https://partner.example/cb?x=1".into(),
        scopes: Vec::new(),
        state_parameter: "opaque \"state\"".into(),
        code_challenge: "c".repeat(43),
        resource: "https://api.example/acme".into(),
        dpop_jkt: Some("k".repeat(43)),
    }
}

fn approval<'a>(setup: &'a Setup, by: &AdminSession, expires_at: Option<UnixMillis>) -> Approval<'a> {
    Approval {
        setup,
        scopes: vec![setup.scopes[0].name.clone()],
        designated_user_id: by.user_id.clone(),
        allowed_networks: Default::default(),
        expires_at,
    }
}

fn workload_named(name: &str) -> Origin {
    origin(ActorKind::Workload, name.into())
}

/// Opens a session of a new Tenant Admin, for the workload `pages`.
async fn session(store: &Store) -> AdminSession {
    let new = NewSession {
        tenant_id: tenant("acme"),
        user_id: user(),
        setup_id: None,
        position: Position {
            epoch: accord::testing::epoch("abc"),
            seq: 4,
        },
    };
    let opened = store.open_admin_session(&workload_named("pages"), new).await;
    let digest = opened.unwrap().0.digest();
    store.find_admin_session(&digest).await.unwrap().unwrap()
}

/// Approves a setup as the admin of this session.
async fn approve(
    store: &Store,
    setup: &Setup,
    by: &AdminSession,
    expires_at: Option<UnixMillis>,
) -> Result<(Grant, OpaqueToken), Error> {
    let approval = approval(setup, by, expires_at);
    store
        .approve_setup(&decision(by, setup, b"approve"), by, approval)
        .await
}

/// A session's decision about a setup, whose request id belongs to both.
fn decision(by: &AdminSession, setup: &Setup, content: &[u8]) -> Creation {
    let both = [&by.digest[..], setup.setup_id.as_str().as_bytes()].concat();
    let half = accord::text::opaque::sha256(&both).first_chunk().copied();
    Creation {
        origin: admin(&by.user_id),
        ..creation(
            half.map(|half| uuid::Builder::from_random_bytes(half).into_uuid()),
            content,
        )
    }
}

/// Stores a pending grant at `tenant_id` to `client_id`.
async fn pending(
    store: &Store,
    tenant_id: &str,
    client_id: &ClientId,
    expires_at: Option<UnixMillis>,
) -> Grant {
    let setup = store
        .create_setup(&creation(None, b""), new_setup(tenant_id, client_id))
        .await
        .unwrap();
    let by = session(store).await;
    let approved = approve(store, &setup, &by, expires_at).await;
    approved.unwrap().0
}

/// Gives a grant another stored state.
async fn put(store: &Store, grant: &Grant, state: StoredState) {
    let tx = store.db.write().await.unwrap();
    let id = (grant.tenant_id.to_string(), grant.grant_id.to_string());
    let mut row = Entity::look_up_by_id(id).lock_one(&tx).await.unwrap().unwrap();
    row.state = state.as_ref().to_owned();
    row.save(&tx).await.unwrap();
    store.audit(&tx, &workload(), Event::test("test.event")).await;
    tx.commit().await.unwrap();
}

async fn active(
    store: &Store,
    tenant_id: &str,
    client_id: &ClientId,
    expires_at: Option<UnixMillis>,
) -> Grant {
    let grant = pending(store, tenant_id, client_id, expires_at).await;
    put(store, &grant, StoredState::Active).await;
    find(store, &grant).await
}

/// Reads a grant again.
async fn find(store: &Store, grant: &Grant) -> Grant {
    let found = store.find_grant(&grant.tenant_id, &grant.grant_id).await;
    found.unwrap().unwrap()
}

/// Revokes a grant as the admin of this session, or as an operator.
async fn revoke(store: &Store, grant: &Grant, by: Option<&AdminSession>) -> Result<Grant, Error> {
    let origin = match by {
        Some(by) => admin(&by.user_id),
        None => origin(ActorKind::Operator, "opr_test".into()),
    };
    let (tenant_id, grant_id) = (&grant.tenant_id, &grant.grant_id);
    store.revoke_grant(&origin, tenant_id, grant_id, REASON, by).await
}

/// Changes the designated user as the admin of this session.
async fn designate(
    store: &Store,
    grant: &Grant,
    by: &AdminSession,
    user_id: &UserId,
) -> Result<Grant, Error> {
    let origin = admin(&by.user_id);
    let change = GrantChange::DesignatedUser(user_id.clone());
    store.change_grant(&origin, by, grant, &change).await
}

async fn events(store: &Store, action: &str) -> Vec<audit::EventRow> {
    let filter = audit::Filter {
        action: Some(action.into()),
        ..Default::default()
    };
    let events = audit::list(store.db.read(), &filter, &PageRequest::first(500)).await;
    events.unwrap().into_parts().0
}

async fn revocations(store: &Store) -> Vec<entity::revocation::Model> {
    entity::revocation::Entity::find()
        .order_by_asc(entity::revocation::Column::Seq)
        .all(store.db.read())
        .await
        .unwrap()
}

const REASON: &str = "no longer needed";

mod edited;
mod grant;
mod pushed_request;
mod reopening;
mod setup;
mod together;

#[tokio::test]
async fn events_and_assertions_without_a_change_are_written_by_the_one_writer_too() {
    let database = sqlite();
    let (store, _) = store(&database.url).await;
    // All eight readers at the same time, so that each gets a connection of its own.
    let reader = store.db.read();
    let refuse = (0..8).map(|_| reader.execute_unprepared("PRAGMA query_only = ON"));
    for refused in join_all(refuse).await {
        refused.unwrap();
    }
    let origin = workload_named("test");
    store.record(origin, Event::test("test.event")).await.unwrap();
    let client_id = client();
    let spent = store
        .spend_assertion(Assertion::new(&client_id, &[7; 32], store.now()))
        .await;
    assert!(spent.unwrap());
    let again = store
        .spend_assertion(Assertion::new(&client_id, &[7; 32], store.now()))
        .await;
    assert!(!again.unwrap());
}
