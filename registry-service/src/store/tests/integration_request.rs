//! Integration requests, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use accord::{
    random::SystemRandom,
    store::audit::{self, EventRow, Outcome},
    testing::databases,
    text::{
        caller::Role,
        id::{ScopeName, TenantId},
    },
};

use super::*;
use crate::{
    model::{
        caller::{Authority, NewCaller},
        client::security::Security,
        integration_request::{DisplayInfo, RequestedScope, RequestedSecurityProfile},
        scope::{NewScope, ScopeUpdate},
        tenant,
    },
    store::testing::{add_tenants, audited, creation, operator, origin, repeatable, store},
};

#[path = "integration_request/two_people.rs"]
mod two_people;

/// A store with the tenants `acme` and `globex` (suspended), and the scopes `a.read` and `a.old`
/// (disabled).
async fn seeded(url: &str) -> (Store, std::sync::Arc<accord::clock::ManualClock>) {
    let (store, clock) = store(url).await;
    add_tenants(&store).await;
    let globex = TenantId::parse("globex").unwrap();
    store
        .set_tenant_state(&origin(), &globex, tenant::State::Suspended, "a test")
        .await
        .unwrap();
    for name in ["a.read", "a.old"] {
        let new = NewScope {
            name: ScopeName::parse(name).unwrap(),
            description: "what it allows".into(),
        };
        store.create_scope(&creation("CreateScope"), new).await.unwrap();
    }
    let disable = ScopeUpdate {
        enabled: Some(false),
        ..ScopeUpdate::default()
    };
    let old = ScopeName::parse("a.old").unwrap();
    store.update_scope(&origin(), &old, disable).await.unwrap();
    (store, clock)
}

fn new_request(tenants: &[&str], scopes: &[&str]) -> NewIntegrationRequest {
    NewIntegrationRequest {
        presentation: DisplayInfo {
            partner_name: "Partner".into(),
            display_name: "Contact Sync".into(),
            goals: "Keep contacts in step".into(),
        },
        contact_email: "dev@partner.example".into(),
        tenant_ids: tenants.iter().map(|id| TenantId::parse(id).unwrap()).collect(),
        scopes: scopes
            .iter()
            .map(|name| RequestedScope {
                name: ScopeName::parse(name).unwrap(),
                reason: "to read".into(),
            })
            .collect(),
        redirect_uris: vec!["https://app.example/cb".into()],
        notes: String::new(),
        json_web_key_set: String::new(),
        security: Security::default(),
        security_profile: RequestedSecurityProfile::Unspecified,
        amends: None,
    }
}

async fn submitted(store: &Store) -> IntegrationRequest {
    let new = new_request(&["acme", "globex"], &["a.read"]);
    store
        .submit_integration_request(&creation("SubmitIntegrationRequest"), new)
        .await
        .unwrap()
}

fn state_of(result: Result<IntegrationRequest>) -> String {
    match result {
        Err(Error::WrongState { resource, state }) => {
            assert_eq!(resource, "integration_request");
            state
        }
        other => panic!("{other:?}"),
    }
}

async fn newest_event(store: &Store) -> EventRow {
    let page = PageRequest::first(1);
    let events = audit::list(store.db.read(), &audit::Filter::default(), &page).await;
    events.unwrap().into_parts().0.remove(0)
}

#[tokio::test]
async fn a_submission_is_stored_and_a_repeated_call_returns_the_same() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let call = repeatable("SubmitIntegrationRequest", b"1");
        let new = new_request(&["globex", "acme"], &["a.read"]);
        let first = store
            .submit_integration_request(&call, new.clone())
            .await
            .unwrap();
        assert_eq!(
            (first.state, &first.content),
            (State::Submitted, &new),
            "{database:?}"
        );
        let found = store
            .find_integration_request(&first.integration_request_id)
            .await;
        assert_eq!(found.unwrap(), Some(first.clone()), "{database:?}");

        // So it does after a scope of the request was disabled.
        let disable = ScopeUpdate {
            enabled: Some(false),
            ..ScopeUpdate::default()
        };
        store
            .update_scope(&origin(), &new.scopes[0].name, disable)
            .await
            .unwrap();
        let again = store.submit_integration_request(&call, new).await.unwrap();
        assert_eq!(again, first, "{database:?}");
        let submissions = audited(&store).await;
        let submissions = submissions
            .iter()
            .filter(|action| *action == "integration_request.submit");
        assert_eq!(submissions.count(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn unknown_references_are_all_reported_and_nothing_is_stored() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let new = new_request(&["acme", "nowhere", "nobody"], &["a.old", "a.read", "a.write"]);
        let fields = |error: Error| match error {
            Error::Invalid(violations) => violations
                .into_vec()
                .into_iter()
                .map(|v| v.field)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let references = References {
            prefix: "client.",
            ..new.references()
        };
        let refused = store
            .submit_integration_request(&creation("SubmitIntegrationRequest"), new)
            .await;
        let expected = [
            "tenant_ids[1]",
            "tenant_ids[2]",
            "scopes[0].name",
            "scopes[2].name",
        ];
        assert_eq!(fields(refused.unwrap_err()), expected, "{database:?}");
        let page = PageRequest::first(50);
        assert!(
            store
                .list_integration_requests(None, &page)
                .await
                .unwrap()
                .into_parts()
                .0
                .is_empty()
        );

        let mut violations = Violations::default();
        violations.add("notes", "must not hold control characters");
        let refused = fields(store.reject((violations, references)).await);
        assert_eq!(refused[..2], ["notes", "client.tenant_ids[1]"], "{database:?}");
        assert_eq!(refused.len(), 5);
    }
}

#[tokio::test]
async fn a_request_is_decided_once() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let approved = submitted(&store).await;
        clock.advance(std::time::Duration::from_secs(1));
        let rejected = submitted(&store).await;
        let by = origin();
        let id = &approved.integration_request_id;
        let decided = store
            .decide_integration_request(&by, id, Decision::Approve)
            .await
            .unwrap();
        assert_eq!(
            (decided.state, decided.updated_at),
            (State::Approved, store.now())
        );
        for decision in [Decision::Approve, Decision::Reject("no".into())] {
            let refused = store.decide_integration_request(&by, id, decision).await;
            assert_eq!(state_of(refused), "APPROVED", "{database:?}");
        }
        let id = &rejected.integration_request_id;
        let reject = Decision::Reject("no need".into());
        let decided = store.decide_integration_request(&by, id, reject).await.unwrap();
        assert_eq!(
            (decided.state, decided.rejection_reason.as_str()),
            (State::Rejected, "no need")
        );
        let refused = store.decide_integration_request(&by, id, Decision::Approve).await;
        assert_eq!(state_of(refused), "REJECTED", "{database:?}");
        let unknown = IntegrationRequestId::generate(&*store.clock, &SystemRandom);
        let refused = store
            .decide_integration_request(&by, &unknown, Decision::Approve)
            .await;
        assert!(
            matches!(refused, Err(Error::NotFound("integration_request"))),
            "{database:?}"
        );
        let decisions = audited(&store).await;
        assert_eq!(
            decisions[decisions.len() - 2..],
            ["integration_request.approve", "integration_request.reject"],
            "{database:?}"
        );

        let page = PageRequest::first(1);
        let newest = store.list_integration_requests(None, &page).await.unwrap();
        let (newest, token) = newest.into_parts();
        assert_eq!(newest[0].integration_request_id, rejected.integration_request_id);
        let page = PageRequest::test(1, &token);
        let older = store.list_integration_requests(None, &page).await.unwrap();
        let (older, token) = older.into_parts();
        assert_eq!(older[0].integration_request_id, approved.integration_request_id);
        assert!(token.is_empty());
        let page = PageRequest::first(50);
        let filtered = store
            .list_integration_requests(Some(State::Approved), &page)
            .await
            .unwrap();
        assert_eq!(filtered.into_parts().0.len(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn an_approved_request_becomes_one_client() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let id = submitted(&store).await.integration_request_id;
        let client = ClientId::generate(&*store.clock, &SystemRandom);
        let register = async || {
            let tx = store.db.write().await.unwrap();
            let marked = store
                .mark_registered(&tx, &id, &client, action::CLIENT_REGISTER)
                .await;
            if marked.is_ok() {
                let event = Event::test("client.register").client(&client);
                store.audit(&tx, &origin(), event).await.unwrap();
                commit(tx, ()).await.unwrap();
            }
            marked
        };
        assert_eq!(state_of(register().await), "SUBMITTED", "{database:?}");
        store
            .decide_integration_request(&origin(), &id, Decision::Approve)
            .await
            .unwrap();
        let registered = register().await.unwrap();
        assert_eq!(
            (registered.state, registered.client_id),
            (State::Registered, Some(client.clone()))
        );
        assert_eq!(state_of(register().await), "REGISTERED", "{database:?}");
    }
}

#[tokio::test]
async fn of_racing_operators_one_decides() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let id = submitted(&store).await.integration_request_id;
        let racers = (0..8).map(|n| {
            let (store, id) = (store.clone(), id.clone());
            let decision = if n % 2 == 0 {
                Decision::Approve
            } else {
                Decision::Reject("no".into())
            };
            tokio::spawn(async move { store.decide_integration_request(&origin(), &id, decision).await })
        });
        let mut winners = 0;
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(_) => winners += 1,
                Err(error) => assert!(
                    matches!(error, Error::WrongState { .. }),
                    "{database:?}: {error:?}"
                ),
            }
        }
        assert_eq!(winners, 1, "{database:?}");
    }
}
