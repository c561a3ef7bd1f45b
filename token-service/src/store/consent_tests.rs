//! Setups, decisions, sessions and grants, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{
    id::{SetupId, WorkloadId},
    random::SystemRandom,
    store::{
        Creation,
        audit::{self, Actor, ActorKind},
        change::{self, Position},
    },
    testing::{databases, test_clock},
};
use sea_orm::PaginatorTrait;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::{
    admin_session::{EndReason, IDLE, LIFE as SESSION_LIFE, NewSession},
    lease::Lease,
    registry::{Client, ClientScope, Tenant},
    setup::{
        Approval, AuthorizationRequest, CODE_LIFE, Decision, LIFE, NewSetup, Setup, State as SetupState,
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
        client: Client {
            client_id: client_id.clone(),
            display_name: "Contact Sync".into(),
            partner_name: "Partner Ltd".into(),
            purpose: "Keep contacts in step".into(),
            active: true,
            tenant_ids: vec![tenant(tenant_id)],
            scopes: scopes.clone(),
            redirect_uris: Vec::new(),
            version: 7,
            tokens_ended_seq: 0,
            families_ended_seq: 0,
            json_web_key_set: String::new(),
        },
        scopes,
    }
}

fn approval<'a>(setup: &'a Setup, by: &'a AdminSession, expires_at: Option<UnixMillis>) -> Approval<'a> {
    Approval {
        setup,
        scopes: vec![setup.scopes[0].name.clone()],
        designated_user_id: by.user_id.clone(),
        expires_at,
        by,
    }
}

fn workload_named(name: &str) -> Origin {
    origin(ActorKind::Workload, name.into())
}

/// A session of a new Tenant Admin's, brought by the workload `pages`.
async fn session(store: &Store) -> AdminSession {
    let (tenant_id, user_id) = (tenant("acme"), user());
    let new = NewSession {
        tenant_id: tenant_id.clone(),
        user_id: user_id.clone(),
        setup_id: None,
        position: Position {
            epoch: "abc".into(),
            seq: 4,
        },
    };
    let opened = store.open_admin_session(&workload_named("pages"), new).await;
    let (token, signed_in_at) = opened.unwrap();
    AdminSession {
        digest: token.digest(),
        tenant: Tenant {
            tenant_id: tenant_id.clone(),
            display_name: "Acme".into(),
            active: true,
            issuer: "https://accord.example/acme".into(),
            cloud_api_url: "https://api.example/acme".into(),
            tokens_ended_seq: 0,
        },
        tenant_id,
        origin: admin(&user_id),
        user_id,
        setup_id: None,
        signed_in_at,
        workload: "pages".into(),
        lease: Lease::begin(crate::lease::LIFE),
    }
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
    let approved = store.approve_setup(approval(&setup, &by, expires_at)).await;
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
    PageRequest::parse("consents", &[], size, token).unwrap()
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

fn revoke(grant: &Grant) -> Revoke {
    Revoke {
        grant_id: grant.grant_id.clone(),
        reason: "no longer needed".into(),
    }
}

#[tokio::test]
async fn a_setup_is_kept_as_it_was_shown_and_a_repeated_start_gives_the_same() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let call = creation(Some(Uuid::new_v4()), b"content");
        assert_eq!(store.replay_setup(&call).await.unwrap(), None);
        let started = store
            .create_setup(&call, new_setup("acme", &client()))
            .await
            .unwrap();
        assert_eq!(
            store.find_setup(&started.setup_id).await.unwrap().as_ref(),
            Some(&started)
        );
        assert_eq!(started.expires_at, store.now().plus(LIFE));
        assert_eq!((started.client_version, started.scopes.len()), (7, 2));

        assert_eq!(
            store.replay_setup(&call).await.unwrap().as_ref(),
            Some(&started),
            "{database:?}"
        );
        let again = store
            .create_setup(&call, new_setup("other", &client()))
            .await
            .unwrap();
        assert_eq!(again, started);
        let other = Creation {
            content: Zeroizing::new(b"other".to_vec()),
            ..call.clone()
        };
        assert!(matches!(
            store.replay_setup(&other).await,
            Err(Error::RequestIdReused)
        ));
        clock.advance(Duration::from_secs(601));
        assert!(matches!(
            store.replay_setup(&call).await,
            Err(Error::RequestIdReused)
        ));
        assert_eq!(events(&store, "setup.start").await.len(), 1, "{database:?}");
        let unknown = SetupId::generate(&*store.clock, &SystemRandom);
        assert_eq!(store.find_setup(&unknown).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_approval_makes_a_pending_grant_and_a_code_for_a_minute() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let setup = store
            .create_setup(&creation(None, b""), new_setup("acme", &client()))
            .await
            .unwrap();
        let by = session(&store).await;
        let end = store.now().plus(Duration::from_secs(1_000_000));
        let (grant, code) = store
            .approve_setup(approval(&setup, &by, Some(end)))
            .await
            .unwrap();
        let found = store.find_grant(&setup.tenant_id, &grant.grant_id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&grant), "{database:?}");
        assert_eq!(grant.state, StoredState::Pending);
        assert_eq!(grant.redeem_until, store.now().plus(CODE_LIFE));
        assert_eq!(
            (grant.expires_at, grant.activated_at, grant.ended_at),
            (Some(end), None, None)
        );
        assert_eq!(grant.scopes, [setup.scopes[0].name.clone()]);
        assert_eq!((&grant.granted_by, &grant.purpose), (&by.user_id, &setup.purpose));
        assert_eq!(
            store.find_grant(&tenant("other"), &grant.grant_id).await.unwrap(),
            None
        );
        assert_eq!(
            store
                .find_current_grant(&setup.tenant_id, &setup.client_id)
                .await
                .unwrap(),
            None
        );

        let row = entity::code::Entity::find_by_id(code.digest().to_vec())
            .one(store.db.read())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.grant_id, grant.grant_id.as_str());
        assert_eq!(row.expires_at, grant.redeem_until.as_millis());
        assert_eq!(
            (row.redirect_uri, row.code_challenge),
            (setup.redirect_uri.clone(), setup.code_challenge.clone())
        );
        assert_eq!((row.resource, row.used_at), (setup.resource.clone(), None));

        let event = events(&store, "consent.approve").await.remove(0);
        assert_eq!(
            (event.actor.kind, event.actor.id.as_str()),
            (ActorKind::TenantAdmin, by.user_id.as_str())
        );
        assert_eq!(event.subject.as_deref(), Some(grant.grant_id.as_str()));
        assert_eq!(
            (event.detail["scopes"].as_str(), event.detail["workload"].as_str()),
            ("contacts.read", "pages")
        );
        let decided = store.find_setup(&setup.setup_id).await.unwrap().unwrap();
        assert_eq!(decided.state_at(store.now()), SetupState::Approved);
        assert_eq!(decided.decided_at, Some(store.now()));
    }
}

#[tokio::test]
async fn of_racing_decisions_one_is_made() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let setup = store
            .create_setup(&creation(None, b""), new_setup("acme", &client()))
            .await
            .unwrap();
        let mut racers = Vec::new();
        for racer in 0..16 {
            let (store, setup) = (store.clone(), setup.clone());
            racers.push(tokio::spawn(async move {
                let by = session(&store).await;
                if racer % 2 == 0 {
                    let approved = store.approve_setup(approval(&setup, &by, None)).await;
                    approved.map(|_| Decision::Approved)
                } else {
                    let denied = store.deny_setup(&by, &setup).await;
                    denied.map(|_| Decision::Denied)
                }
            }));
        }
        let mut made = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(decision) => made.push(decision),
                Err(Error::WrongState { resource, state }) => {
                    assert_eq!(resource, "setup");
                    assert!(["APPROVED", "DENIED"].contains(&state), "{state}");
                }
                Err(other) => panic!("{database:?}: {other:?}"),
            }
        }
        let [decision] = made[..] else {
            panic!("{database:?}: {made:?}");
        };
        assert_eq!(
            store.find_setup(&setup.setup_id).await.unwrap().unwrap().decision,
            Some(decision)
        );
        let grants = Entity::find().count(store.db.read()).await.unwrap();
        assert_eq!(grants, u64::from(decision == Decision::Approved), "{database:?}");
        let decisions =
            events(&store, "consent.approve").await.len() + events(&store, "consent.deny").await.len();
        assert_eq!(decisions, 1, "{database:?}");
    }
}

#[tokio::test]
async fn an_expired_setup_can_not_be_decided() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let setup = store
            .create_setup(&creation(None, b""), new_setup("acme", &client()))
            .await
            .unwrap();
        clock.advance(LIFE);
        let by = session(&store).await;
        let approved = store.approve_setup(approval(&setup, &by, None)).await;
        assert!(
            matches!(approved, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
        let denied = store.deny_setup(&by, &setup).await;
        assert!(
            matches!(denied, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
        assert!(events(&store, "consent.approve").await.is_empty());
    }
}

#[tokio::test]
async fn a_session_is_open_while_it_is_used_until_it_is_ended() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let by = workload();
        let new = NewSession {
            tenant_id: tenant("acme"),
            user_id: user(),
            setup_id: Some(SetupId::generate(&*store.clock, &SystemRandom)),
            position: Position {
                epoch: "abc".into(),
                seq: 4,
            },
        };
        let (token, opened_at) = store.open_admin_session(&by, new.clone()).await.unwrap();
        let digest = token.digest();
        let found = store.find_admin_session(&digest).await.unwrap().unwrap();
        assert_eq!(
            (&found.tenant_id, &found.user_id),
            (&new.tenant_id, &new.user_id),
            "{database:?}"
        );
        assert_eq!((&found.setup_id, &found.position), (&new.setup_id, &new.position));
        assert_eq!(
            (found.workload.as_str(), found.signed_in_at),
            (by.actor.id.as_str(), opened_at)
        );

        for _ in 0..4 {
            clock.advance(IDLE - Duration::from_millis(1));
            assert!(store.touch_admin_session(&digest).await.unwrap(), "{database:?}");
        }
        let used = store.find_admin_session(&digest).await.unwrap().unwrap();
        assert_eq!(used.last_used_at, store.now());
        clock.set(opened_at.plus(SESSION_LIFE));
        assert!(!store.touch_admin_session(&digest).await.unwrap(), "{database:?}");

        let (token, _) = store.open_admin_session(&by, new.clone()).await.unwrap();
        clock.advance(IDLE);
        assert!(
            !store.touch_admin_session(&token.digest()).await.unwrap(),
            "{database:?}"
        );

        let (token, _) = store.open_admin_session(&by, new).await.unwrap();
        let digest = token.digest();
        store
            .end_admin_session(&workload(), &digest, EndReason::SignedOut)
            .await
            .unwrap();
        assert!(
            store.touch_admin_session(&digest).await.unwrap(),
            "another workload's call has no effect"
        );
        store
            .end_admin_session(&by, &digest, EndReason::SignedOut)
            .await
            .unwrap();
        store
            .end_admin_session(&by, &digest, EndReason::SignedOut)
            .await
            .unwrap();
        assert!(!store.touch_admin_session(&digest).await.unwrap(), "{database:?}");
        assert_eq!(events(&store, "admin_session.end").await.len(), 1, "{database:?}");
        assert_eq!(events(&store, "admin_session.open").await.len(), 3);
    }
}

#[tokio::test]
async fn a_session_that_has_ended_decides_nothing_whatever_was_found_before() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let setup = store
            .create_setup(&creation(None, b""), new_setup("acme", &client()))
            .await
            .unwrap();
        for ending in ["sign-out", "idleness", "age"] {
            let by = session(&store).await;
            match ending {
                "sign-out" => store
                    .end_admin_session(&workload_named("pages"), &by.digest, EndReason::SignedOut)
                    .await
                    .unwrap(),
                "idleness" => clock.advance(IDLE),
                _ => {
                    for _ in 0..4 {
                        clock.advance(IDLE - Duration::from_millis(1));
                        store.touch_admin_session(&by.digest).await.unwrap();
                    }
                    clock.advance(Duration::from_millis(4));
                }
            }
            let refused = [
                store.approve_setup(approval(&setup, &by, None)).await.map(drop),
                store.deny_setup(&by, &setup).await.map(drop),
                store
                    .revoke_grant(&by.origin, &grant.tenant_id, &revoke(&grant), Some(&by))
                    .await
                    .map(drop),
                store.change_designated_user(&by, &grant, &user()).await.map(drop),
            ];
            for (index, refused) in refused.into_iter().enumerate() {
                assert!(
                    matches!(refused, Err(Error::AdminSessionInvalid)),
                    "{database:?}: {ending}, {index}: {refused:?}"
                );
            }
        }
        let setup = store.find_setup(&setup.setup_id).await.unwrap().unwrap();
        assert_eq!(setup.decision, None, "{database:?}");
        let found = store.find_grant(&grant.tenant_id, &grant.grant_id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&grant), "{database:?}");
        for action in ["consent.deny", "consent.revoke", "consent.change_designated_user"] {
            assert!(events(&store, action).await.is_empty(), "{database:?}: {action}");
        }
    }
}

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
                generation: 1,
                advanced_at: 0,
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
            .revoke_grant(&by, &tenant("other"), &revoke(&grant), None)
            .await;
        assert!(matches!(missing, Err(Error::NotFound("consent"))), "{database:?}");

        let revoked = store
            .revoke_grant(&by, tenant_id, &revoke(&grant), Some(&session(&store).await))
            .await
            .unwrap();
        assert_eq!(
            (revoked.state, revoked.ended_at),
            (StoredState::Revoked, Some(store.now()))
        );
        let position = store.position().await.unwrap();
        clock.advance(Duration::from_secs(5));
        let again = store
            .revoke_grant(&by, tenant_id, &revoke(&grant), None)
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
                    .revoke_grant(&by, &grant.tenant_id, &revoke(&grant), None)
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
        let changed = store.change_designated_user(&by, &grant, &next).await.unwrap();
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

        let same = store.change_designated_user(&by, &grant, &next).await.unwrap();
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
        let refused = store.change_designated_user(&by, &waiting, &next).await;
        assert!(
            matches!(refused, Err(Error::WrongState { state: "PENDING", .. })),
            "{database:?}"
        );
        clock.set(end);
        let by = session(&store).await;
        let refused = store.change_designated_user(&by, &grant, &user()).await;
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
                        .revoke_grant(&by.origin, &grant.tenant_id, &revoke(&grant), Some(&by))
                        .await
                } else {
                    store.change_designated_user(&by, &grant, &user()).await
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
                .list_grants(&acme, &Filter::default(), &page(2, &token))
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
            (Some(&one), Some(State::Suspended), vec![2]),
            (None, Some(State::Revoked), vec![0]),
            (None, Some(State::Expired), vec![4, 3, 2, 1]),
            (Some(&two), Some(State::Superseded), vec![]),
        ] {
            let filter = Filter {
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

#[path = "together_tests.rs"]
mod together;
