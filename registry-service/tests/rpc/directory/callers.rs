//! Operators and workloads that authenticate, as token-service asks.

use super::*;

#[tokio::test]
async fn callers_authenticate_until_they_are_revoked() {
    let harness = seeded().await;
    let ask = |token: &str| pb::AuthenticateCallerRequest {
        token: token.into(),
        ..Default::default()
    };
    let token = harness.operator_token(Role::Auditor).expose().to_owned();
    let known = ok(directory(&harness).authenticate_caller(ask(&token)).await);
    let Some(Caller::Operator(operator)) = known.caller else {
        panic!("no operator");
    };
    assert_eq!(operator.roles().collect::<Vec<_>>(), [pb::OperatorRole::Auditor]);
    for unknown in ["", "x", &strangers_token(TokenKind::Operator)] {
        let refused = directory(&harness).authenticate_caller(ask(unknown)).await;
        assert_rejected(refused, Code::Unauthenticated, "INVALID_CALLER");
    }
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Security));
    let revoke = pb::RevokeOperatorRequest {
        operator_id: operator.operator_id,
        reason: "a test".into(),
    };
    operators.revoke_operator(revoke).await.unwrap();
    let refused = directory(&harness).authenticate_caller(ask(&token)).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CALLER");
}

#[tokio::test]
async fn a_workload_authenticates_until_it_is_revoked() {
    let harness = Harness::start().await;
    let mut callers = OperatorServiceClient::new(harness.operator(Role::Admin));
    let new = pb::CreateWorkloadRequest {
        request_id: String::new(),
        name: "pages".into(),
        kind: pb::WorkloadKind::InternalService.into(),
        ..Default::default()
    };
    let created = ok(callers.create_workload(new).await);
    let ask = |token: &str| pb::AuthenticateCallerRequest {
        token: token.into(),
        ..Default::default()
    };
    let known = ok(directory(&harness)
        .authenticate_caller(ask(&created.workload_token))
        .await);
    let workload = created.workload.unwrap();
    assert_eq!(known.caller, Some(Caller::Workload(workload.clone())));
    let before = known.position.unwrap();

    let revoke = pb::RevokeWorkloadRequest {
        workload_id: workload.workload_id.clone(),
        reason: "a test".into(),
    };
    callers.revoke_workload(revoke).await.unwrap();
    let mut messages = Vec::new();
    for unknown in [
        created.workload_token.as_str(),
        &strangers_token(TokenKind::Workload),
        &strangers_token(TokenKind::Enrolment),
        "acw_",
    ] {
        let refused = directory(&harness).authenticate_caller(ask(unknown)).await;
        messages.push(refused.as_ref().unwrap_err().message().to_owned());
        assert_rejected(refused, Code::Unauthenticated, "INVALID_CALLER");
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);
    // The change feed has the revocation, for replicas that cache callers.
    let answer = changes(&harness, &before.epoch, before.seq, 0).await;
    assert_eq!(answer.changes.len(), 1);
    assert_eq!(
        (answer.changes[0].kind(), &answer.changes[0].id),
        (pb::ChangeKind::Caller, &workload.workload_id)
    );
}

#[tokio::test]
async fn the_names_of_a_certificate_find_one_live_caller() {
    let harness = Harness::start_with_client_ca().await;
    let mut callers = OperatorServiceClient::new(harness.operator(Role::Admin));
    let mut ids = Vec::new();
    for name in ["pages.example", "spiffe://example.org/api"] {
        let new = pb::CreateWorkloadRequest {
            name: name.into(),
            kind: pb::WorkloadKind::InternalService.into(),
            certificate_name: name.into(),
            ..Default::default()
        };
        ids.push(
            ok(callers.create_workload(new).await)
                .workload
                .unwrap()
                .workload_id,
        );
    }
    let ask = async |names: &[&str]| {
        let request = pb::AuthenticateCallerRequest {
            certificate_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        directory(&harness).authenticate_caller(request).await
    };
    let known = ok(ask(&["other.example", "pages.example"]).await);
    let Some(Caller::Workload(workload)) = known.caller else {
        panic!("no workload");
    };
    assert_eq!(workload.workload_id, ids[0]);
    assert_eq!(workload.certificate_name, "pages.example");

    let both = ask(&["pages.example", "spiffe://example.org/api"]).await;
    assert_rejected(both, Code::Unauthenticated, "AMBIGUOUS_CERTIFICATE");
    for unknown in [
        &["*.example"][..],
        &["Pages.example", ""],
        &["pages.example"; 65],
        &[],
    ] {
        assert_rejected(ask(unknown).await, Code::Unauthenticated, "INVALID_CALLER");
    }
    let two = pb::AuthenticateCallerRequest {
        token: harness.operator_token(Role::Auditor).expose().to_owned(),
        certificate_names: vec!["pages.example".into()],
    };
    let refused = directory(&harness).authenticate_caller(two).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CALLER");

    let revoke = pb::RevokeWorkloadRequest {
        workload_id: ids[0].clone(),
        reason: "a test".into(),
    };
    callers.revoke_workload(revoke).await.unwrap();
    let refused = ask(&["pages.example"]).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CALLER");
    let left = ok(ask(&["pages.example", "spiffe://example.org/api"]).await);
    assert!(matches!(left.caller, Some(Caller::Workload(workload)) if workload.workload_id == ids[1]));
}
