//! Who may call which method of token-service: every method, by every kind of caller, and by nobody.
//!
//! What is expected is worked out here from the design's words, not read from the table under test.

use std::collections::BTreeSet;

use accord::{
    random::SystemRandom,
    registry::v1::{self as reg, operator_service_client::OperatorServiceClient},
    rpc::auth::{Role, WorkloadKind, unauthenticated},
    text::opaque::{OpaqueToken, TokenKind},
};
use accord_cli::call;
use prost::Message;
use token_service::permissions::{SERVICES, TABLE};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::harness::{dev, partner::World};

/// Full service name and method name of everything that token-service serves.
fn served() -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(accord::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if SERVICES.contains(&name.as_str()) {
                methods.extend(
                    service
                        .method
                        .iter()
                        .map(|method| (name.clone(), method.name().to_owned())),
                );
            }
        }
    }
    methods
}

/// Who may call a method, and whether nobody in particular may.
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
        ("ConsentService", "GetConsent" | "ListConsents" | "GetGrantUsage") => {
            only(&[Role::Auditor, Role::Security, Role::Admin], internal)
        }
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

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The method itself answered, whatever it said.
    Admitted,
    /// The caller is known and may not.
    Denied,
    /// The caller is not known.
    Unknown,
}

fn answer(result: Result<(), Status>) -> Answer {
    match result {
        Err(status) if status.code() == Code::PermissionDenied => Answer::Denied,
        Err(status) if status.message() == unauthenticated().message() => Answer::Unknown,
        Err(status) if status.code() == Code::Unknown => panic!("{status:?}"),
        _ => Answer::Admitted,
    }
}

/// Calls a method with an empty message.
async fn call(
    channel: &Channel,
    authorization: Option<&str>,
    (service, method): &(String, String),
) -> Answer {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path: PathAndQuery = format!("/{service}/{method}").parse().unwrap();
    let mut request = Request::new(());
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().unwrap());
    }
    answer(
        grpc.unary(request, path, ProstCodec::<(), ()>::default())
            .await
            .map(drop),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_get_exactly_as_far_as_the_design_says() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let channel = call::open(&dev.file.token_grpc).unwrap();
    let mut callers = OperatorServiceClient::new(world.operator.clone());
    let mut operators = Vec::new();
    for (role, number) in Role::ALL.into_iter().zip(1..) {
        let request = reg::CreateOperatorRequest {
            name: format!("only {}", role.as_ref()),
            roles: vec![number],
            ..Default::default()
        };
        let created = callers.create_operator(request).await.unwrap().into_inner();
        assert_eq!(
            created
                .operator
                .unwrap()
                .roles()
                .next()
                .unwrap()
                .as_str_name()
                .to_lowercase(),
            { format!("operator_role_{}", role.as_ref()) }
        );
        operators.push((role, format!("Bearer {}", created.operator_token)));
    }
    let mut workloads = Vec::new();
    for (kind, number) in WorkloadKind::ALL.into_iter().zip(1..) {
        let request = reg::CreateWorkloadRequest {
            name: format!("only {}", kind.as_ref()),
            kind: number,
            ..Default::default()
        };
        let created = callers.create_workload(request).await.unwrap().into_inner();
        workloads.push((kind, format!("Bearer {}", created.workload_token)));
    }
    let stranger = OpaqueToken::generate(TokenKind::Operator, &SystemRandom);
    let strangers = [
        format!("Bearer {}", stranger.expose()),
        "Bearer x".into(),
        "Basic eDp4".into(),
    ];

    for method in served() {
        let expected = expected(&method.0, &method.1);
        for (role, token) in &operators {
            let due = if expected.roles.contains(role) {
                Answer::Admitted
            } else {
                Answer::Denied
            };
            assert_eq!(
                call(&channel, Some(token), &method).await,
                due,
                "{method:?} by {role:?}"
            );
        }
        for (kind, token) in &workloads {
            let due = if expected.kinds.contains(kind) {
                Answer::Admitted
            } else {
                Answer::Denied
            };
            assert_eq!(
                call(&channel, Some(token), &method).await,
                due,
                "{method:?} by {kind:?}"
            );
        }
        let due = if expected.nobody {
            Answer::Admitted
        } else {
            Answer::Unknown
        };
        assert_eq!(call(&channel, None, &method).await, due, "{method:?} by nobody");
        for stranger in &strangers {
            let due = if expected.anyone {
                Answer::Admitted
            } else {
                Answer::Unknown
            };
            assert_eq!(
                call(&channel, Some(stranger), &method).await,
                due,
                "{method:?} by {stranger:.9}"
            );
        }
    }

    // A revoked caller is a stranger from the next call on.
    let (_, token) = &operators[0];
    let listed = callers
        .list_operators(reg::ListOperatorsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let registrar = listed
        .operators
        .iter()
        .find(|operator| operator.name == "only registrar")
        .unwrap();
    let request = reg::RevokeOperatorRequest {
        operator_id: registrar.operator_id.clone(),
        ..Default::default()
    };
    callers.revoke_operator(request).await.unwrap();
    let method = (
        "accord.token.v1.SigningKeyService".to_owned(),
        "ListSigningKeys".to_owned(),
    );
    assert_eq!(call(&channel, Some(token), &method).await, Answer::Unknown);
    dev.stop().await.unwrap();
}

#[test]
fn the_table_has_exactly_the_methods_of_the_contract() {
    let table: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    let contract: BTreeSet<String> = served()
        .into_iter()
        .map(|(service, method)| format!("/{service}/{method}"))
        .collect();
    assert_eq!(table, contract);
    assert_eq!(table.len(), TABLE.len(), "a method stands in the table twice");
}
