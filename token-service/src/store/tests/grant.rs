//! Grants, on both databases; below them setups, and what is done together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{
    position::Position,
    random::SystemRandom,
    store::{
        Creation,
        audit::{self, Actor, ActorKind},
        change,
    },
    testing::{databases, test_clock},
    text::{
        id::{SetupId, WorkloadId},
        opaque::OpaqueToken,
    },
};
use sea_orm::PaginatorTrait;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::{
    model::{
        admin_session::{EndReason, IDLE, LIFE as SESSION_LIFE, NewSession},
        client::{ClientScope, Profile},
        setup::{Approval, AuthorizationRequest, CODE_LIFE, Decision, LIFE, NewSetup, Setup, SetupState},
    },
    store::{entity, fixture::store},
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

/// A setup of a client that nobody has decided yet.
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
        })
        .collect();
    NewSetup {
        request: AuthorizationRequest {
            tenant_id: tenant(tenant_id),
            client_id: client_id.clone(),
            redirect_uri: "https://partner.example/cb?x=1".into(),
            scopes: Vec::new(),
            state_parameter: "opaque \"state\"".into(),
            code_challenge: "c".repeat(43),
            resource: "https://api.example/acme".into(),
        },
        tenant_display_name: "Acme".into(),
        profile: Profile {
            display_name: "Contact Sync".into(),
            ..Profile::default()
        },
        client_version: 7,
        scopes,
    }
}

fn approval<'a>(setup: &'a Setup, by: &AdminSession, expires_at: Option<UnixMillis>) -> Approval<'a> {
    Approval {
        setup,
        scopes: vec![setup.scopes[0].name.clone()],
        designated_user_id: by.user_id.clone(),
        expires_at,
    }
}

fn workload_named(name: &str) -> Origin {
    origin(ActorKind::Workload, name.into())
}

/// A session of a new Tenant Admin's, brought by the workload `pages`.
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
    store.approve_setup(&admin(&by.user_id), by, approval).await
}

/// A pending grant at `tenant_id` to `client_id`.
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

/// The same in another stored state, as redemption makes it.
async fn put(store: &Store, grant: &Grant, state: StoredState) {
    Entity::update_many()
        .filter(Column::GrantId.eq(grant.grant_id.as_str()))
        .col_expr(Column::State, Expr::value(state.name()))
        .exec(store.db.read())
        .await
        .unwrap();
}

async fn active(
    store: &Store,
    tenant_id: &str,
    client_id: &ClientId,
    expires_at: Option<UnixMillis>,
) -> Grant {
    let grant = pending(store, tenant_id, client_id, expires_at).await;
    put(store, &grant, StoredState::Active).await;
    store
        .find_grant(&grant.tenant_id, &grant.grant_id)
        .await
        .unwrap()
        .unwrap()
}

fn page(size: i32, token: &str) -> PageRequest {
    PageRequest::parse(&mut Default::default(), "consents", &[], size, token).unwrap()
}

async fn events(store: &Store, action: &str) -> Vec<audit::EventRow> {
    let filter = audit::Filter {
        action: Some(action.into()),
        ..Default::default()
    };
    audit::list(store.db.read(), &filter, &page(500, ""))
        .await
        .unwrap()
        .items
}

async fn revocations(store: &Store) -> Vec<entity::revocation::Model> {
    entity::revocation::Entity::find()
        .order_by_asc(entity::revocation::Column::Seq)
        .all(store.db.read())
        .await
        .unwrap()
}

const REASON: &str = "no longer needed";

#[tokio::test]
async fn a_revocation_ends_the_grant_its_families_and_its_access_tokens() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let other = active(&store, "acme", &client(), None).await;
        for (family_id, grant) in [("01family", &grant), ("02family", &other)] {
            let family = entity::family::Model {
                tenant_id: "acme".into(),
                family_id: family_id.into(),
                grant_id: grant.grant_id.to_string(),
                client_id: grant.client_id.to_string(),
                used_generation: 0,
                current_generation: 1,
                handed_out_at: 0,
                key_version: 1,
                registry_epoch: "abc".into(),
                registry_seq: 0,
                created_at: 0,
                expires_at: i64::MAX,
                ended_at: None,
                end_reason: None,
            };
            entity::family::Entity::insert(entity::family::ActiveModel::from(family))
                .exec_without_returning(store.db.read())
                .await
                .unwrap();
        }
        let by = admin(&user());
        let tenant_id = &grant.tenant_id;
        let missing = store
            .revoke_grant(&by, &tenant("other"), &grant.grant_id, REASON, None)
            .await;
        assert!(matches!(missing, Err(Error::NotFound("consent"))), "{database:?}");

        let revoked = store
            .revoke_grant(
                &by,
                tenant_id,
                &grant.grant_id,
                REASON,
                Some(&session(&store).await),
            )
            .await
            .unwrap();
        assert_eq!(
            (revoked.state, revoked.ended_at),
            (StoredState::Revoked, Some(store.now()))
        );
        let position = store.position().await.unwrap();
        clock.advance(Duration::from_secs(5));
        let again = store
            .revoke_grant(&by, tenant_id, &grant.grant_id, REASON, None)
            .await
            .unwrap();
        assert_eq!(again, revoked, "{database:?}");
        assert_eq!(store.position().await.unwrap(), position);

        let families = entity::family::Entity::find()
            .order_by_asc(entity::family::Column::FamilyId)
            .all(store.db.read())
            .await
            .unwrap();
        assert_eq!(
            families[0].end_reason.as_deref(),
            Some("grant_ended"),
            "{database:?}"
        );
        assert_eq!(families[1].ended_at, None, "{database:?}");
        let rows = revocations(&store).await;
        assert_eq!(rows.len(), 1, "{database:?}");
        assert_eq!((rows[0].seq, rows[0].kind.as_str()), (position.seq, "grant"));
        assert_eq!(rows[0].id, grant.grant_id.as_str());
        let changes = change::list_after(store.db.read(), 0, 10).await.unwrap();
        let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
        assert_eq!(
            kinds,
            [change_kind::GRANT, change_kind::REVOCATION],
            "{database:?}"
        );
        let event = events(&store, "consent.revoke").await;
        assert_eq!(
            (event.len(), event[0].detail["reason"].as_str()),
            (1, "no longer needed")
        );
    }
}

#[tokio::test]
async fn only_a_grant_that_has_not_ended_can_be_revoked() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let by = admin(&user());
        let end = store.now().plus(Duration::from_secs(3600));
        let superseded = pending(&store, "acme", &client(), None).await;
        put(&store, &superseded, StoredState::Superseded).await;
        let lapsed = pending(&store, "acme", &client(), None).await;
        let ended = active(&store, "acme", &client(), Some(end)).await;
        let endless = active(&store, "acme", &client(), None).await;
        clock.set(end);
        let fresh = pending(&store, "acme", &client(), None).await;
        for (grant, refused) in [
            (superseded, Some("SUPERSEDED")),
            (lapsed, Some("EXPIRED")),
            (ended, Some("EXPIRED")),
            (endless, None),
            (fresh, None),
        ] {
            match (
                store
                    .revoke_grant(&by, &grant.tenant_id, &grant.grant_id, REASON, None)
                    .await,
                refused,
            ) {
                (Ok(revoked), None) => assert_eq!(revoked.state, StoredState::Revoked),
                (Err(Error::WrongState { state, .. }), Some(refused)) => assert_eq!(state, refused),
                (other, refused) => panic!("{database:?}: {other:?} instead of {refused:?}"),
            }
        }
    }
}

#[tokio::test]
async fn another_designated_user_ends_access_tokens_alone() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let end = store.now().plus(Duration::from_secs(3600));
        let grant = active(&store, "acme", &client(), Some(end)).await;
        let (by, next) = (session(&store).await, user());
        let changed = store
            .change_designated_user(&admin(&by.user_id), &by, &grant, &next)
            .await
            .unwrap();
        assert_eq!(changed.designated_user_id, next, "{database:?}");
        let found = store
            .find_grant(&grant.tenant_id, &grant.grant_id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found, changed);
        let rows = revocations(&store).await;
        let position = store.position().await.unwrap();
        assert_eq!(
            (rows.len(), rows[0].seq, rows[0].kind.as_str()),
            (1, position.seq, "grant")
        );

        let same = store
            .change_designated_user(&admin(&by.user_id), &by, &grant, &next)
            .await
            .unwrap();
        assert_eq!(
            (same, store.position().await.unwrap()),
            (changed, position),
            "{database:?}"
        );
        let event = events(&store, "consent.change_designated_user").await;
        assert_eq!(event.len(), 1, "{database:?}");
        assert_eq!(event[0].detail["old_user_id"], grant.designated_user_id.as_str());
        assert_eq!(event[0].detail["new_user_id"], next.as_str());

        let waiting = pending(&store, "acme", &client(), None).await;
        let refused = store
            .change_designated_user(&admin(&by.user_id), &by, &waiting, &next)
            .await;
        assert!(
            matches!(refused, Err(Error::WrongState { state: "PENDING", .. })),
            "{database:?}"
        );
        clock.set(end);
        let by = session(&store).await;
        let refused = store
            .change_designated_user(&admin(&by.user_id), &by, &grant, &user())
            .await;
        assert!(
            matches!(refused, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn racing_revocation_and_change_leave_the_grant_revoked() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let mut racers = Vec::new();
        for racer in 0..8 {
            let (store, grant) = (store.clone(), grant.clone());
            racers.push(tokio::spawn(async move {
                let by = session(&store).await;
                if racer % 2 == 0 {
                    store
                        .revoke_grant(
                            &admin(&by.user_id),
                            &grant.tenant_id,
                            &grant.grant_id,
                            REASON,
                            Some(&by),
                        )
                        .await
                } else {
                    store
                        .change_designated_user(&admin(&by.user_id), &by, &grant, &user())
                        .await
                }
            }));
        }
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) | Err(Error::WrongState { state: "REVOKED", .. }) => {}
                Err(other) => panic!("{database:?}: {other:?}"),
            }
        }
        let found = store
            .find_grant(&grant.tenant_id, &grant.grant_id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.state, StoredState::Revoked, "{database:?}");
        assert_eq!(events(&store, "consent.revoke").await.len(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn a_tenants_grants_are_listed_newest_first() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let (one, two) = (client(), client());
        let mut all = Vec::new();
        for client_id in [&one, &two, &one, &two, &one] {
            all.push(pending(&store, "acme", client_id, None).await);
            clock.advance(Duration::from_millis(2));
        }
        pending(&store, "other", &one, None).await;
        put(&store, &all[2], StoredState::Active).await;
        put(&store, &all[0], StoredState::Revoked).await;
        let ids = |grants: &[Grant]| {
            grants
                .iter()
                .map(|grant| grant.grant_id.clone())
                .collect::<Vec<_>>()
        };
        let newest_first: Vec<_> = ids(&all).into_iter().rev().collect();

        let acme = tenant("acme");
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let grants = store
                .list_grants(&acme, &GrantFilter::default(), &page(2, &token))
                .await
                .unwrap();
            seen.extend(ids(&grants.items));
            token = grants.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, newest_first, "{database:?}");

        for (client_id, state, expected) in [
            (Some(&one), None, vec![4, 2, 0]),
            (Some(&one), Some(GrantState::Suspended), vec![2]),
            (None, Some(GrantState::Revoked), vec![0]),
            (None, Some(GrantState::Expired), vec![4, 3, 2, 1]),
            (Some(&two), Some(GrantState::Superseded), vec![]),
        ] {
            let filter = GrantFilter {
                client_id: client_id.cloned(),
                state,
            };
            let grants = store.list_grants(&acme, &filter, &page(0, "")).await.unwrap();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|index: usize| all[index].grant_id.clone())
                .collect();
            assert_eq!(ids(&grants.items), expected, "{database:?} {filter:?}");
        }
        let current = store.find_current_grant(&acme, &one).await.unwrap().unwrap();
        assert_eq!(current.grant_id, all[2].grant_id, "{database:?}");
        assert_eq!(
            store.find_current_grant(&tenant("other"), &one).await.unwrap(),
            None
        );
    }
}

#[path = "setup.rs"]
mod setup;
#[path = "together.rs"]
mod together;
