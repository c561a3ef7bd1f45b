//! `OperatorService`.

use accord::{
    registry::v1::{
        self as pb, operator_service_client::OperatorServiceClient, scope_service_client::ScopeServiceClient,
    },
    rpc::auth::Role,
};
use tonic::Code;

use crate::harness::{CallerChannel, Harness, assert_rejected, assert_violations, ok, request_id};

fn client(harness: &Harness) -> OperatorServiceClient<CallerChannel> {
    OperatorServiceClient::new(harness.operator(Role::Admin))
}

fn ada() -> pb::CreateOperatorRequest {
    pb::CreateOperatorRequest {
        request_id: String::new(),
        name: "Ada".into(),
        roles: vec![
            pb::OperatorRole::Auditor.into(),
            pb::OperatorRole::Approver.into(),
        ],
        ..Default::default()
    }
}

fn pages() -> pb::CreateWorkloadRequest {
    pb::CreateWorkloadRequest {
        request_id: String::new(),
        name: "pages".into(),
        kind: pb::WorkloadKind::InternalService.into(),
        ..Default::default()
    }
}

async fn list_scopes(harness: &Harness, token: &str) -> Result<(), tonic::Status> {
    let mut scopes = ScopeServiceClient::new(harness.token(token));
    scopes
        .list_scopes(pb::ListScopesRequest::default())
        .await
        .map(drop)
}

#[tokio::test]
async fn an_operators_token_works_until_it_is_revoked() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_operator(ada()).await);
    let operator = created.operator.unwrap();
    assert!(operator.operator_id.starts_with("opr_") && created.operator_token.starts_with("aco_"));
    assert_eq!((operator.name.as_str(), &operator.roles), ("Ada", &ada().roles));
    assert!(operator.create_time.is_some() && operator.revoke_time.is_none());
    list_scopes(&harness, &created.operator_token).await.unwrap();

    let request = pb::RevokeOperatorRequest {
        operator_id: operator.operator_id.clone(),
        reason: "a test".into(),
    };
    let mut security = OperatorServiceClient::new(harness.operator(Role::Security));
    let revoked = ok(security.revoke_operator(request.clone()).await);
    assert!(revoked.operator.as_ref().unwrap().revoke_time.is_some());
    harness.clock.advance(std::time::Duration::from_secs(9));
    assert_eq!(ok(security.revoke_operator(request).await), revoked);
    let refused = list_scopes(&harness, &created.operator_token).await;
    assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    let events = harness.audit_events("operator.revoke").await;
    assert_eq!((events.len(), &events[0].subject), (1, &operator.operator_id));
    assert!(!format!("{events:?}").contains("Ada"));
}

#[tokio::test]
async fn an_operator_may_revoke_itself() {
    let harness = Harness::start().await;
    let admin = pb::CreateOperatorRequest {
        roles: vec![pb::OperatorRole::Admin.into()],
        ..ada()
    };
    let created = ok(client(&harness).create_operator(admin).await);
    let request = pb::RevokeOperatorRequest {
        operator_id: created.operator.unwrap().operator_id,
        reason: "a test".into(),
    };
    let mut itself = OperatorServiceClient::new(harness.token(&created.operator_token));
    itself.revoke_operator(request.clone()).await.unwrap();
    let refused = itself.revoke_operator(request).await;
    assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_workload_is_created_and_revoked() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_workload(pages()).await);
    let workload = created.workload.unwrap();
    assert!(workload.workload_id.starts_with("wkl_") && created.workload_token.starts_with("acw_"));
    assert_eq!(
        (workload.name.as_str(), workload.kind()),
        ("pages", pb::WorkloadKind::InternalService)
    );
    // The caller is known but has no permission.
    let refused = list_scopes(&harness, &created.workload_token).await;
    assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");

    let request = pb::RevokeWorkloadRequest {
        workload_id: workload.workload_id,
        reason: "a test".into(),
    };
    let revoked = ok(client(&harness).revoke_workload(request.clone()).await);
    assert!(revoked.workload.as_ref().unwrap().revoke_time.is_some());
    assert_eq!(ok(client(&harness).revoke_workload(request).await), revoked);
    let refused = list_scopes(&harness, &created.workload_token).await;
    assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    assert_eq!(harness.audit_events("workload.revoke").await.len(), 1);
}

#[tokio::test]
async fn a_certificate_name_takes_the_place_of_a_token() {
    let harness = Harness::start_with_client_ca().await;
    let named = pb::CreateWorkloadRequest {
        certificate_name: "spiffe://example.org/pages".into(),
        ..pages()
    };
    let created = ok(client(&harness).create_workload(named.clone()).await);
    assert_eq!(created.workload_token, "");
    let workload = created.workload.unwrap();
    assert_eq!(workload.certificate_name, named.certificate_name);
    let mut operators = client(&harness);
    let listed = operators.list_workloads(pb::ListWorkloadsRequest::default());
    assert!(ok(listed.await).workloads.contains(&workload));
    let events = harness.audit_events("workload.create").await;
    assert_eq!(events[0].detail["certificate_name"], named.certificate_name);

    let taken = pb::CreateOperatorRequest {
        certificate_name: named.certificate_name,
        ..ada()
    };
    let refused = client(&harness).create_operator(taken).await;
    assert_rejected(refused, Code::AlreadyExists, "ALREADY_EXISTS");
    for bad in [
        "*.example",
        "Pages.example",
        "https://example.org/pages",
        "10.0.0.1",
    ] {
        let workload = pb::CreateWorkloadRequest {
            certificate_name: bad.into(),
            ..pages()
        };
        assert_violations(
            client(&harness).create_workload(workload).await,
            &["certificate_name"],
        );
        let operator = pb::CreateOperatorRequest {
            certificate_name: bad.into(),
            ..ada()
        };
        assert_violations(
            client(&harness).create_operator(operator).await,
            &["certificate_name"],
        );
    }
}

#[tokio::test]
async fn a_certificate_name_needs_a_client_ca() {
    let harness = Harness::start().await;
    let certificate_name = "pages.example".to_owned();
    let workload = pb::CreateWorkloadRequest {
        certificate_name: certificate_name.clone(),
        ..pages()
    };
    let operator = pb::CreateOperatorRequest {
        certificate_name,
        ..ada()
    };
    let refused = client(&harness).create_workload(workload).await.unwrap_err();
    assert!(refused.message().contains("--client-ca"), "{refused}");
    assert_rejected::<()>(Err(refused), Code::FailedPrecondition, "WRONG_STATE");
    let refused = client(&harness).create_operator(operator).await;
    assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_token() {
    let harness = Harness::start().await;
    let call = pb::CreateOperatorRequest {
        request_id: request_id(),
        ..ada()
    };
    let first = ok(client(&harness).create_operator(call.clone()).await);
    let second = ok(client(&harness).create_operator(call.clone()).await);
    assert!(first == second && !first.operator_token.is_empty());
    let other = pb::CreateOperatorRequest {
        name: "Eve".into(),
        ..call.clone()
    };
    assert_rejected(
        client(&harness).create_operator(other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    // For another method, the same request id counts as other content.
    let other = pb::CreateWorkloadRequest {
        request_id: call.request_id,
        ..pages()
    };
    assert_rejected(
        client(&harness).create_workload(other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );

    let call = pb::CreateWorkloadRequest {
        request_id: request_id(),
        ..pages()
    };
    let first = ok(client(&harness).create_workload(call.clone()).await);
    let second = ok(client(&harness).create_workload(call).await);
    assert!(first == second && !first.workload_token.is_empty());
}

#[tokio::test]
async fn the_name_of_a_live_caller_is_taken() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_operator(ada()).await);
    let taken = client(&harness).create_operator(ada()).await;
    assert_eq!(
        assert_rejected(taken, Code::AlreadyExists, "ALREADY_EXISTS")["resource"],
        "operator"
    );
    let request = pb::RevokeOperatorRequest {
        operator_id: created.operator.unwrap().operator_id,
        reason: "a test".into(),
    };
    client(&harness).revoke_operator(request).await.unwrap();
    client(&harness).create_operator(ada()).await.unwrap();

    client(&harness).create_workload(pages()).await.unwrap();
    let taken = client(&harness).create_workload(pages()).await;
    assert_eq!(
        assert_rejected(taken, Code::AlreadyExists, "ALREADY_EXISTS")["resource"],
        "workload"
    );
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = Harness::start().await;
    let mut client = client(&harness);
    let bad = pb::CreateOperatorRequest {
        request_id: "1".into(),
        name: "a\nb".into(),
        roles: vec![1, 0, 1, 17],
        ..Default::default()
    };
    let fields = ["request_id", "name", "roles[1]", "roles[2]", "roles[3]"];
    assert_violations(client.create_operator(bad).await, &fields);
    let empty = client.create_operator(pb::CreateOperatorRequest::default()).await;
    assert_violations(empty, &["name", "roles"]);
    let bad = pb::CreateWorkloadRequest {
        request_id: "1".into(),
        name: "n".repeat(101),
        kind: 0,
        ..Default::default()
    };
    assert_violations(client.create_workload(bad).await, &["request_id", "name", "kind"]);
    let bad = pb::RevokeOperatorRequest {
        operator_id: "wkl_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
        reason: "a test".into(),
    };
    assert_violations(client.revoke_operator(bad).await, &["operator_id"]);
    let bad = pb::RevokeWorkloadRequest::default();
    assert_violations(client.revoke_workload(bad).await, &["workload_id", "reason"]);
    let bad = pb::ListOperatorsRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_violations(client.list_operators(bad).await, &["page_size"]);
    let bad = pb::ListWorkloadsRequest {
        page_token: "#".into(),
        ..Default::default()
    };
    assert_violations(client.list_workloads(bad).await, &["page_token"]);
}

#[tokio::test]
async fn the_unknown_are_not_found() {
    let harness = Harness::start().await;
    let request = pb::RevokeOperatorRequest {
        operator_id: "opr_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
        reason: "a test".into(),
    };
    let refused = client(&harness).revoke_operator(request).await;
    assert_eq!(
        assert_rejected(refused, Code::NotFound, "NOT_FOUND")["resource"],
        "operator"
    );
    let request = pb::RevokeWorkloadRequest {
        workload_id: "wkl_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
        reason: "a test".into(),
    };
    let refused = client(&harness).revoke_workload(request).await;
    assert_eq!(
        assert_rejected(refused, Code::NotFound, "NOT_FOUND")["resource"],
        "workload"
    );
}

#[tokio::test]
async fn lists_show_all_callers_page_by_page_without_tokens() {
    let harness = Harness::start().await;
    let mut client = client(&harness);
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListOperatorsRequest {
            page_size: 2,
            page_token,
        };
        let page = ok(client.list_operators(request).await);
        ids.extend(page.operators.into_iter().map(|operator| operator.operator_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids.len(), Role::ALL.len());
    assert!(ids.is_sorted());
    let workloads = client
        .list_workloads(pb::ListWorkloadsRequest::default())
        .await
        .unwrap();
    assert_eq!(workloads.into_inner().workloads.len(), 3);
}

#[tokio::test]
async fn an_operator_is_a_person_of_its_own_unless_it_names_one() {
    let harness = Harness::start().await;
    let alone = ok(client(&harness).create_operator(ada()).await)
        .operator
        .unwrap();
    assert_eq!(alone.person, alone.operator_id);
    let named = pb::CreateOperatorRequest {
        name: "Ada's laptop".into(),
        person: " Ada Lovelace ".into(),
        ..ada()
    };
    let named = ok(client(&harness).create_operator(named).await)
        .operator
        .unwrap();
    assert_eq!(named.person, "Ada Lovelace");
    let request = pb::ListOperatorsRequest::default();
    let listed = ok(client(&harness).list_operators(request).await).operators;
    assert!(listed.contains(&alone) && listed.contains(&named));
    let events = harness.audit_events("operator.create").await;
    let persons: Vec<_> = events[..2]
        .iter()
        .map(|event| event.detail["person"].as_str())
        .collect();
    assert_eq!(persons, ["Ada Lovelace", &*alone.operator_id]);
    for bad in ["x".repeat(101), "two\nlines".to_owned()] {
        let bad = pb::CreateOperatorRequest {
            name: "Eve".into(),
            person: bad,
            ..ada()
        };
        assert_violations(client(&harness).create_operator(bad).await, &["person"]);
    }
}

#[tokio::test]
async fn an_operator_has_a_person_where_a_second_one_is_required() {
    let harness = Harness::start_with_second_operator().await;
    assert_violations(client(&harness).create_operator(ada()).await, &["person"]);
    let named = pb::CreateOperatorRequest {
        person: "Ada Lovelace".into(),
        ..ada()
    };
    let created = ok(client(&harness).create_operator(named.clone()).await);
    let operator_id = created.operator.unwrap().operator_id;
    // An operator that is a person of its own is none.
    let other = pb::CreateOperatorRequest {
        name: "Ada's laptop".into(),
        person: operator_id,
        ..named
    };
    assert_violations(client(&harness).create_operator(other).await, &["person"]);
}
