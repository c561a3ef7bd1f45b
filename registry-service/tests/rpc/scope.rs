//! `ScopeService`.

use accord::{
    registry::v1::{self as pb, scope_service_client::ScopeServiceClient},
    rpc::auth::Role,
};
use prost_types::FieldMask;
use tonic::Code;

use crate::harness::{CallerChannel, Harness, assert_rejected, assert_violations, ok, request_id};

fn client(harness: &Harness) -> ScopeServiceClient<CallerChannel> {
    ScopeServiceClient::new(harness.operator(Role::Registrar))
}

fn admin(harness: &Harness) -> ScopeServiceClient<CallerChannel> {
    ScopeServiceClient::new(harness.operator(Role::Admin))
}

fn create(name: &str) -> pb::CreateScopeRequest {
    pb::CreateScopeRequest {
        name: name.into(),
        description: "Reads contacts".into(),
        request_id: String::new(),
    }
}

fn update(name: &str, paths: &[&str]) -> pb::UpdateScopeRequest {
    pb::UpdateScopeRequest {
        scope: Some(pb::Scope {
            name: name.into(),
            description: "Reads all contacts".into(),
            enabled: false,
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    }
}

async fn list(harness: &Harness) -> Vec<pb::Scope> {
    let request = pb::ListScopesRequest::default();
    ok(client(harness).list_scopes(request).await).scopes
}

#[tokio::test]
async fn a_new_scope_is_enabled_and_listed() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_scope(create("contacts.read")).await)
        .scope
        .unwrap();
    assert!(created.enabled && created.create_time.is_some() && created.create_time == created.update_time);
    assert_eq!(
        (created.name.as_str(), created.description.as_str()),
        ("contacts.read", "Reads contacts")
    );
    assert_eq!(list(&harness).await, [created]);
    let events = harness.audit_events("scope.create").await;
    assert_eq!((events.len(), events[0].subject.as_str()), (1, "contacts.read"));
    assert!(events[0].actor_id.starts_with("opr_") && !events[0].request_id.is_empty());
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let harness = Harness::start().await;
    harness.scope("contacts.read").await;
    let again = client(&harness).create_scope(create("contacts.read")).await;
    let metadata = assert_rejected(again, Code::AlreadyExists, "ALREADY_EXISTS");
    assert_eq!(metadata["resource"], "scope");
    assert_eq!(list(&harness).await.len(), 1);
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_and_other_content_is_rejected() {
    let harness = Harness::start().await;
    let call = pb::CreateScopeRequest {
        request_id: request_id(),
        ..create("contacts.read")
    };
    let first = ok(client(&harness).create_scope(call.clone()).await);
    let second = ok(client(&harness).create_scope(call.clone()).await);
    assert_eq!(first, second);
    let other = pb::CreateScopeRequest {
        name: "contacts.write".into(),
        ..call
    };
    assert_rejected(
        client(&harness).create_scope(other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(list(&harness).await.len(), 1);
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = Harness::start().await;
    let bad = pb::CreateScopeRequest {
        name: "contacts read".into(),
        description: " ".into(),
        request_id: "1".into(),
    };
    let refused = client(&harness).create_scope(bad).await;
    assert_violations(refused, &["name", "description", "request_id"]);
    let nothing = admin(&harness)
        .update_scope(pb::UpdateScopeRequest::default())
        .await;
    assert_violations(nothing, &["scope.name", "update_mask"]);
    let unknown = admin(&harness)
        .update_scope(update("contacts.read", &["name", "enabled"]))
        .await;
    assert_violations(unknown, &["update_mask"]);
    let mut empty = update("contacts.read", &["description"]);
    empty.scope.as_mut().unwrap().description = String::new();
    assert_violations(admin(&harness).update_scope(empty).await, &["scope.description"]);
    let page = pb::ListScopesRequest {
        page_size: -1,
        page_token: String::new(),
    };
    assert_violations(client(&harness).list_scopes(page).await, &["page_size"]);
    let page = pb::ListScopesRequest {
        page_size: 1,
        page_token: "x".into(),
    };
    assert_violations(client(&harness).list_scopes(page).await, &["page_token"]);
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask() {
    let harness = Harness::start().await;
    harness.scope("contacts.read").await;
    let disabled = ok(admin(&harness)
        .update_scope(update("contacts.read", &["enabled"]))
        .await)
    .scope
    .unwrap();
    assert!(!disabled.enabled && disabled.description == "Allows contacts.read");
    let both = ["description", "enabled"];
    let described = ok(admin(&harness).update_scope(update("contacts.read", &both)).await)
        .scope
        .unwrap();
    assert_eq!(described.description, "Reads all contacts");
    let again = admin(&harness).update_scope(update("contacts.read", &both)).await;
    assert_eq!(ok(again).scope.unwrap(), described, "nothing changed");
    assert_eq!(list(&harness).await, [described]);
    assert_eq!(harness.audit_events("scope.update").await.len(), 2);
    let unknown = admin(&harness)
        .update_scope(update("contacts.write", &both))
        .await;
    let metadata = assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "scope");
}

#[tokio::test]
async fn the_catalogue_is_paged_by_name() {
    let harness = Harness::start().await;
    for name in ["c", "a", "b"] {
        harness.scope(name).await;
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListScopesRequest {
            page_size: 2,
            page_token,
        };
        let page = ok(client(&harness).list_scopes(request).await);
        names.extend(page.scopes.into_iter().map(|scope| scope.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
}
