//! Amendments, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{
    store::audit,
    testing::databases,
    text::{
        id::{ClientId, TenantId},
        page::PageRequest,
    },
};
use tokio::task::JoinSet;

use super::*;
use crate::{
    model::{
        client::{ClientUpdate, State, security::Security},
        delivery::Method,
        integration_request::{
            Amends, Decision, DisplayInfo, IntegrationRequest, NewIntegrationRequest,
            RequestedSecurityProfile, State as RequestState,
        },
    },
    store::{
        client::tests::{registered, requested, seeded},
        testing::{count, creation, origin},
    },
};

/// An amendment of a client that adds nothing.
pub(in crate::store) fn addition(client_id: &ClientId) -> NewIntegrationRequest {
    NewIntegrationRequest {
        presentation: DisplayInfo {
            partner_name: String::new(),
            display_name: String::new(),
            goals: String::new(),
        },
        contact_email: String::new(),
        tenant_ids: Vec::new(),
        scopes: Vec::new(),
        redirect_uris: Vec::new(),
        notes: String::new(),
        json_web_key_set: String::new(),
        security: Security::default(),
        security_profile: RequestedSecurityProfile::Unspecified,
        amends: Some(Amends {
            client_id: client_id.clone(),
            etag: 0,
        }),
    }
}

async fn submit(store: &Store, new: NewIntegrationRequest) -> Result<IntegrationRequest> {
    let call = creation("SubmitIntegrationRequest");
    store.submit_integration_request(&call, new).await
}

async fn approve(store: &Store, id: &IntegrationRequestId) {
    let by = origin();
    let deciding = store.decide_integration_request(&by, id, Decision::Approve);
    deciding.await.unwrap();
}

/// Submits an amendment, approves and applies it.
pub(in crate::store) async fn amend(store: &Store, new: NewIntegrationRequest) -> Result<Client> {
    let id = submit(store, new).await?.integration_request_id;
    approve(store, &id).await;
    store.amend_client(&origin(), &id).await
}

fn fields<T: std::fmt::Debug>(result: Result<T>) -> Vec<String> {
    match result {
        Err(Error::Invalid(violations)) => violations.into_vec().into_iter().map(|v| v.field).collect(),
        other => panic!("{other:?}"),
    }
}

fn renamed(client: &Client) -> NewIntegrationRequest {
    let mut new = addition(&client.client_id);
    new.presentation.display_name = "New name".into();
    new
}

#[tokio::test]
async fn an_approved_amendment_changes_the_client_once() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        // Leaves room for what is added.
        let narrower = ClientUpdate {
            tenant_ids: Some(vec![TenantId::parse("acme").unwrap()]),
            scopes: Some(vec![requested("a.read")]),
            ..ClientUpdate::default()
        };
        let updated = store.update_client(&origin(), &client.client_id, narrower).await;
        let before = updated.unwrap();
        let new = NewIntegrationRequest {
            tenant_ids: vec![TenantId::parse("globex").unwrap()],
            scopes: vec![requested("a.write")],
            redirect_uris: vec!["https://app.example/other".into()],
            ..renamed(&client)
        };
        let submitted = submit(&store, new).await.unwrap();
        assert_eq!(
            submitted.client_id.as_ref(),
            Some(&client.client_id),
            "{database:?}"
        );
        assert_eq!(submitted.content.presentation.partner_name, "Partner");
        assert_eq!(
            submitted.content.amends.as_ref().map(|amends| amends.etag),
            Some(2)
        );
        let id = submitted.integration_request_id;
        let early = store.amend_client(&origin(), &id).await;
        assert!(matches!(&early, Err(Error::WrongState { state, .. }) if state == "SUBMITTED"));
        approve(&store, &id).await;
        let call = creation("RegisterClient");
        let registering = store.register_client(&call, &id, Some(Method::Link));
        assert_eq!(
            fields(registering.await),
            ["integration_request_id"],
            "{database:?}"
        );
        assert_eq!(
            store.find_client(&client.client_id).await.unwrap(),
            Some(before.clone())
        );

        clock.advance(Duration::from_secs(1));
        let amended = store.amend_client(&origin(), &id).await.unwrap();
        let seq = store.position().await.unwrap().seq;
        let expected = Client {
            presentation: DisplayInfo {
                display_name: "New name".into(),
                ..client.presentation.clone()
            },
            tenant_ids: client.tenant_ids.clone(),
            scopes: client.scopes.clone(),
            redirect_uris: vec![
                "https://app.example/cb".into(),
                "https://app.example/other".into(),
            ],
            version: seq,
            updated_at: store.now(),
            etag: 3,
            added: amended.added.clone(),
            ..before.clone()
        };
        assert_eq!(amended, expected, "{database:?}");
        let since = |id: &str| amended.added.tenants[&TenantId::parse(id).unwrap()];
        assert_eq!(
            (since("acme"), since("globex")),
            (client.version, seq),
            "{database:?}"
        );
        let found = store.find_client(&client.client_id).await.unwrap();
        assert_eq!(found, Some(amended), "{database:?}");
        let request = store.find_integration_request(&id).await.unwrap().unwrap();
        assert_eq!(request.state, RequestState::Registered, "{database:?}");
        let again = store.amend_client(&origin(), &id).await;
        assert!(matches!(&again, Err(Error::WrongState { state, .. }) if state == "REGISTERED"));

        let page = PageRequest::first(1);
        let filter = audit::Filter {
            action: Some("client.amend".into()),
            ..audit::Filter::default()
        };
        let events = audit::list(store.db.read(), &filter, &page).await.unwrap();
        let event = events.into_parts().0.remove(0);
        assert_eq!(event.detail["integration_request_id"], id.as_str());
        assert_eq!(
            event.detail["display_name"],
            r#"{"new":"New name","old":"Contact Sync"}"#
        );
        for field in ["tenant_ids", "scopes", "redirect_uris"] {
            assert!(event.detail[field].contains("\"old\""), "{database:?}: {field}");
        }
    }
}

#[tokio::test]
async fn an_amendment_is_about_the_client_as_it_was() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let first = submit(&store, renamed(&client))
            .await
            .unwrap()
            .integration_request_id;
        approve(&store, &first).await;
        let by = origin();
        let suspending = store.set_client_state(&by, &client.client_id, State::Suspended, "a test");
        let suspended = suspending.await.unwrap();
        let stale = store.amend_client(&origin(), &first).await;
        assert!(
            matches!(stale, Err(Error::AmendmentOutdated)),
            "{database:?}: {stale:?}"
        );
        let request = store.find_integration_request(&first).await.unwrap().unwrap();
        assert_eq!(request.state, RequestState::Approved, "{database:?}");
        assert_eq!(
            store.find_client(&client.client_id).await.unwrap(),
            Some(suspended)
        );
        assert_eq!(
            amend(&store, renamed(&client)).await.unwrap().etag,
            3,
            "{database:?}"
        );
        assert_eq!(count(&store, "client.amend").await, 1, "{database:?}");
    }
}

#[tokio::test]
async fn an_impossible_amendment_is_not_recorded() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let nothing = submit(&store, addition(&client.client_id)).await;
        assert_eq!(fields(nothing), ["client_id"], "{database:?}");
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let unknown = NewIntegrationRequest {
            tenant_ids: vec![TenantId::parse("nowhere").unwrap()],
            ..addition(&nobody)
        };
        let unknown = submit(&store, unknown).await;
        assert_eq!(fields(unknown), ["tenant_ids[0]", "client_id"], "{database:?}");
        assert_eq!(
            count(&store, "integration_request.submit").await,
            1,
            "{database:?}"
        );
        // A request for a new client is no amendment.
        let of_client = &client.integration_request_id;
        let refused = store.amend_client(&origin(), of_client).await;
        assert_eq!(fields(refused), ["integration_request_id"], "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_calls_one_applies_an_amendment() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let id = submit(&store, renamed(&client))
            .await
            .unwrap()
            .integration_request_id;
        approve(&store, &id).await;
        let mut calls = JoinSet::new();
        for _ in 0..6 {
            let (store, id) = (store.clone(), id.clone());
            calls.spawn(async move { store.amend_client(&origin(), &id).await });
        }
        let mut applied = 0;
        for result in calls.join_all().await {
            match result {
                Ok(_) => applied += 1,
                Err(error) => assert!(
                    matches!(error, Error::WrongState { .. }),
                    "{database:?}: {error:?}"
                ),
            }
        }
        assert_eq!(applied, 1, "{database:?}");
    }
}
