//! Who may call which method of token-service: every method, by every kind of caller, and without a caller.
//!
//! The expectations follow from the design. They are not read from the table under test.

use std::collections::BTreeSet;

use accord::{
    random::SystemRandom,
    registry::v1::{self as reg, operator_service_client::OperatorServiceClient},
    rpc::auth::{Role, WorkloadKind},
    testing::calls::{Admission, CallerChannel, admission, authorized, methods, ok},
    text::opaque::{OpaqueToken, TokenKind},
};
use accord_cli::call;
use token_service::permissions::{SERVICES, TABLE};

use crate::harness::{dev, partner::World, refusal::soon};

tests!(
    each_caller_may_call_exactly_the_methods_of_the_design,
    the_table_has_exactly_the_methods_of_the_contract,
);

/// Full service name and method name of every method that token-service serves.
fn served() -> Vec<(String, String)> {
    methods(|service| SERVICES.contains(&service))
}

/// Who may call a method, and whether a call without credentials may.
struct Expected {
    roles: BTreeSet<Role>,
    kinds: BTreeSet<WorkloadKind>,
    nobody: bool,
    anyone: bool,
}

fn expected(service: &str, method: &str) -> Expected {
    let internal = BTreeSet::from([WorkloadKind::InternalService]);
    let only = |roles: &[Role], kinds| Expected {
        roles: roles.iter().copied().collect(),
        kinds,
        nobody: false,
        anyone: false,
    };
    match (service.rsplit('.').next().unwrap(), method) {
        ("SetupService", _) => only(&[], internal),
        // Operators read (auditor, security) and revoke (security); they never change the user.
        (
            "ConsentService",
            "GetConsent" | "ListConsents" | "GetGrantUsage" | "GetConsentReceipt" | "ListOperatorActions",
        ) => only(&[Role::Auditor, Role::Security, Role::Admin], internal),
        ("ConsentService", "RevokeConsent") => only(&[Role::Security, Role::Admin], internal),
        ("ConsentService", _) => only(&[], internal),
        // A client proves itself in the message.
        ("TokenService", "IntrospectToken") => Expected {
            nobody: true,
            ..only(&[], internal)
        },
        ("TokenService", "ListRevocations") => only(&[], internal),
        ("TokenService", _) => Expected {
            nobody: true,
            anyone: true,
            ..only(&Role::ALL, WorkloadKind::ALL.into())
        },
        ("SigningKeyService", "ListSigningKeys") => only(&Role::ALL, BTreeSet::new()),
        ("SigningKeyService", _) => only(&[Role::Security, Role::Admin], BTreeSet::new()),
        ("AuditService", _) => only(&[Role::Auditor, Role::Admin], BTreeSet::new()),
        other => panic!("the design says nothing of {other:?}"),
    }
}

async fn each_caller_may_call_exactly_the_methods_of_the_design() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let channel = call::open(&dev.file.token_grpc).unwrap();
    let with = |authorization: &str| authorized(&channel, authorization);
    let mut callers = OperatorServiceClient::new(world.operator.clone());
    let (mut operators, mut workloads) = (Vec::new(), Vec::new());
    for (role, number) in Role::ALL.into_iter().zip(1..) {
        let request = reg::CreateOperatorRequest {
            name: format!("only {}", role.as_ref()),
            roles: vec![number],
            ..Default::default()
        };
        let created = ok(callers.create_operator(request).await);
        let operator = created.operator.unwrap();
        let named = operator.roles().next().unwrap().as_str_name().to_lowercase();
        assert_eq!(named, format!("operator_role_{}", role.as_ref()));
        operators.push((
            role,
            operator.operator_id,
            with(&format!("Bearer {}", created.operator_token)),
        ));
    }
    for (kind, number) in WorkloadKind::ALL.into_iter().zip(1..) {
        let request = reg::CreateWorkloadRequest {
            name: format!("only {}", kind.as_ref()),
            kind: number,
            ..Default::default()
        };
        let created = ok(callers.create_workload(request).await);
        workloads.push((kind, with(&format!("Bearer {}", created.workload_token))));
    }
    let stranger = OpaqueToken::generate(TokenKind::Operator, &SystemRandom);
    let strangers = [
        format!("Bearer {}", stranger.expose()),
        "Bearer x".into(),
        "Basic eDp4".into(),
    ];

    for method in served() {
        let expected = expected(&method.0, &method.1);
        let is = async |caller: &CallerChannel, admitted: bool, otherwise: Admission, who: &str| {
            let due = if admitted { Admission::Admitted } else { otherwise };
            assert_eq!(
                admission(caller.clone(), &method).await,
                due,
                "{method:?} by {who}"
            );
        };
        for (role, _, caller) in &operators {
            is(
                caller,
                expected.roles.contains(role),
                Admission::Denied,
                role.as_ref(),
            )
            .await;
        }
        for (kind, caller) in &workloads {
            is(
                caller,
                expected.kinds.contains(kind),
                Admission::Denied,
                kind.as_ref(),
            )
            .await;
        }
        is(&with(""), expected.nobody, Admission::Unknown, "nobody").await;
        for stranger in &strangers {
            is(&with(stranger), expected.anyone, Admission::Unknown, "a stranger").await;
        }
    }

    // A revoked caller is unknown.
    let (_, operator_id, caller) = operators.remove(0);
    let request = reg::RevokeOperatorRequest {
        operator_id,
        reason: "a test".into(),
    };
    ok(callers.revoke_operator(request).await);
    let method = (
        "accord.token.v1.SigningKeyService".to_owned(),
        "ListSigningKeys".to_owned(),
    );
    soon("a revoked operator is unknown", async || {
        admission(caller.clone(), &method).await == Admission::Unknown
    })
    .await;
    dev.stop().await.unwrap();
}

async fn the_table_has_exactly_the_methods_of_the_contract() {
    let table: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    let contract: BTreeSet<String> = served()
        .into_iter()
        .map(|(service, method)| format!("/{service}/{method}"))
        .collect();
    assert_eq!(table, contract);
    assert_eq!(table.len(), TABLE.len(), "a method is in the table twice");
}
