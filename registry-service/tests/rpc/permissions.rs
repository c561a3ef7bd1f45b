//! Calls every method of the contract as every kind of caller.
//!
//! Derives the expected result from the descriptions of the roles and the names of the methods, not from the table
//! that is tested.

use std::collections::BTreeSet;

use accord::{
    rpc::auth::{Role, WorkloadKind, unauthenticated},
    testing::calls::methods,
    text::opaque::TokenKind,
};
use registry_service::permissions::{SERVICES, TABLE};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::harness::{CallerChannel, Harness, strangers_token};

fn served() -> Vec<(String, String)> {
    methods(|service| SERVICES.contains(&service))
}

/// Returns who may call a method. `None` means anyone.
type Expected = Option<(BTreeSet<Role>, BTreeSet<WorkloadKind>)>;

fn expected(service: &str, method: &str) -> Expected {
    if ["ClaimDelivery", "CompleteEnrolment"].contains(&method) {
        return None;
    }
    if service.ends_with(".DirectoryService") {
        return Some((BTreeSet::new(), BTreeSet::from([WorkloadKind::TokenService])));
    }
    let is = |verbs: &[&str]| verbs.iter().any(|verb| method.starts_with(verb));
    let mut roles = if service.ends_with(".AuditService") {
        BTreeSet::from([Role::Auditor])
    } else if is(&["Get", "List", "Find"]) {
        BTreeSet::from(Role::ALL)
    } else if is(&["Suspend", "Reinstate", "Deactivate", "Reactivate", "Revoke"]) {
        BTreeSet::from([Role::Security])
    } else if is(&["Approve", "Reject", "Release"]) {
        BTreeSet::from([Role::Approver])
    } else if service.ends_with(".OperatorService") || method == "UpdateScope" {
        BTreeSet::new()
    } else {
        BTreeSet::from([Role::Registrar])
    };
    roles.insert(Role::Admin);
    Some((roles, BTreeSet::new()))
}

/// Calls a method with an empty message.
async fn call(channel: CallerChannel, service: &str, method: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/{service}/{method}").parse().unwrap();
    grpc.unary(Request::new(()), path, ProstCodec::<(), ()>::default())
        .await
        .map(drop)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The method was called, whatever it returned.
    Admitted,
    /// The caller is known but has no permission.
    Denied,
    /// The caller is not known.
    Unknown,
}

fn answer(result: &Result<(), Status>) -> Answer {
    let Err(status) = result else {
        return Answer::Admitted;
    };
    let reason = status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default();
    match (status.code(), reason.as_str()) {
        (Code::PermissionDenied, "PERMISSION_DENIED") => Answer::Denied,
        // A method itself may reject a credential in the message.
        (Code::Unauthenticated, "UNAUTHENTICATED") if status.message() == unauthenticated().message() => {
            Answer::Unknown
        }
        (Code::Unimplemented, "") => panic!("not served: {status:?}"),
        _ => Answer::Admitted,
    }
}

#[tokio::test]
async fn callers_may_call_exactly_the_methods_of_their_role() {
    let harness = Harness::start().await;
    let strangers = [
        "Bearer x".to_owned(),
        "Bearer ".to_owned(),
        "Basic b3BlcmF0b3I6b3BlcmF0b3I=".to_owned(),
        format!("Bearer {}", strangers_token(TokenKind::Operator)),
        format!("Bearer {}", strangers_token(TokenKind::Workload)),
        format!("Bearer {}", strangers_token(TokenKind::Claim)),
        harness.operator_token(Role::Admin).expose().to_owned(),
    ];
    for (service, method) in served() {
        let expected = expected(&service, &method);
        let due = |admitted: Option<bool>| match admitted {
            None | Some(true) => Answer::Admitted,
            Some(false) => Answer::Denied,
        };
        for role in Role::ALL {
            let result = call(harness.operator(role), &service, &method).await;
            let due = due(expected.as_ref().map(|(roles, _)| roles.contains(&role)));
            assert_eq!(answer(&result), due, "{service}/{method} by {role:?}: {result:?}");
        }
        for kind in WorkloadKind::ALL {
            let result = call(harness.workload(kind), &service, &method).await;
            let due = due(expected.as_ref().map(|(_, kinds)| kinds.contains(&kind)));
            assert_eq!(answer(&result), due, "{service}/{method} by {kind:?}: {result:?}");
        }
        let due = if expected.is_none() {
            Answer::Admitted
        } else {
            Answer::Unknown
        };
        let result = call(harness.anonymous(), &service, &method).await;
        assert_eq!(answer(&result), due, "{service}/{method} by nobody: {result:?}");
        for (index, stranger) in strangers.iter().enumerate() {
            let result = call(harness.authorization(stranger), &service, &method).await;
            assert_eq!(
                answer(&result),
                due,
                "{service}/{method} by stranger {index}: {result:?}"
            );
        }
    }
}

#[test]
fn the_table_has_exactly_the_methods_of_the_contract() {
    let table: BTreeSet<_> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    let contract: BTreeSet<_> = served()
        .into_iter()
        .map(|(service, method)| format!("/{service}/{method}"))
        .collect();
    assert_eq!(table, contract);
    assert_eq!(table.len(), TABLE.len(), "a method stands in the table twice");
    // All other services of the contract belong to token-service.
    for (service, _) in contract_of_others() {
        assert!(service.starts_with("accord.token."), "{service} is not served");
    }
}

fn contract_of_others() -> Vec<(String, String)> {
    methods(|service| service.starts_with("accord.") && !SERVICES.contains(&service))
}

#[tokio::test]
async fn another_services_methods_can_not_be_reached() {
    let harness = Harness::start().await;
    for (service, method) in contract_of_others() {
        let status = call(harness.operator(Role::Admin), &service, &method)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{service}/{method}");
    }
}
