//! The surface that other people's scripts call by name, seen through reflection by grpcurl.

use accord::rpc::status::{ErrorReason, reason_of};
use accord_cli::call;
use prost::Message;
use prost_types::{FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::harness::{dev, grpcurl};

const AUDIT: (&str, &str) = (
    "accord.audit.v1.AuditService",
    "ListAuditEvents VerifyAuditLog GetCheckpoint GetInclusionProof GetConsistencyProof TraceToken",
);

const REGISTRY: [(&str, &str); 9] = [
    (
        "accord.registry.v1.IntegrationRequestService",
        "SubmitIntegrationRequest GetIntegrationRequest ListIntegrationRequests ApproveIntegrationRequest \
         RejectIntegrationRequest",
    ),
    (
        "accord.registry.v1.TenantService",
        "CreateTenant GetTenant ListTenants UpdateTenant SuspendTenant ReinstateTenant",
    ),
    (
        "accord.registry.v1.UserService",
        "RegisterUser FindUser ListUsers DeactivateUser ReactivateUser ResetUserPassword CompleteEnrolment \
         ReleaseEnrolment",
    ),
    (
        "accord.registry.v1.ScopeService",
        "CreateScope ListScopes UpdateScope",
    ),
    (
        "accord.registry.v1.ClientService",
        "RegisterClient GetClient ListClients UpdateClient AmendClient SuspendClient ReinstateClient \
         CreateClientSecret ListClientSecrets RevokeClientSecret SetClientKeys",
    ),
    (
        "accord.registry.v1.ProvisioningService",
        "CreateDelivery ReleaseDelivery ClaimDelivery",
    ),
    (
        "accord.registry.v1.OperatorService",
        "CreateOperator ListOperators RevokeOperator CreateWorkload ListWorkloads RevokeWorkload",
    ),
    (
        "accord.registry.v1.DirectoryService",
        "AuthenticateClient AuthenticateTenantAdmin AuthenticateCaller ResolveUser GetClientProfile \
         GetTenantProfile ListChanges ReportSecretUse",
    ),
    AUDIT,
];

const TOKEN: [(&str, &str); 5] = [
    (
        "accord.token.v1.SetupService",
        "StartSetup GetSetup SignInTenantAdmin SignOutTenantAdmin ApproveSetup DenySetup",
    ),
    (
        "accord.token.v1.ConsentService",
        "GetConsent ListConsents RevokeConsent ChangeDesignatedUser ChangeAllowedNetworks GetGrantUsage",
    ),
    (
        "accord.token.v1.TokenService",
        "IssueToken PushAuthorizationRequest IntrospectToken RevokeToken GetJsonWebKeySet GetAuthorityMetadata \
         ListRevocations",
    ),
    (
        "accord.token.v1.SigningKeyService",
        "ListSigningKeys RotateSigningKey RevokeSigningKey",
    ),
    AUDIT,
];

/// Fields by which scripts call, message by message.
const FIELDS: [(&str, &str); 12] = [
    (
        "accord.registry.v1.SubmitIntegrationRequestRequest",
        "request_id partner_name display_name contact_email goals tenant_ids scopes redirect_uris notes client_id",
    ),
    (
        "accord.registry.v1.CreateTenantRequest",
        "tenant_id display_name cloud_api_url",
    ),
    ("accord.registry.v1.CreateScopeRequest", "name description"),
    (
        "accord.registry.v1.RegisterUserRequest",
        "request_id tenant_id account_name label tenant_admin",
    ),
    (
        "accord.registry.v1.RegisterClientRequest",
        "request_id integration_request_id delivery",
    ),
    (
        "accord.registry.v1.CredentialBundle",
        "client_id client_secret endpoints",
    ),
    ("accord.registry.v1.DeliveryLink", "url claim_token expire_time"),
    (
        "accord.registry.v1.RevokeClientSecretRequest",
        "client_id secret_id reason force",
    ),
    (
        "accord.token.v1.StartSetupRequest",
        "request_id tenant_id client_id redirect_uri scopes state code_challenge resource",
    ),
    (
        "accord.token.v1.ApproveSetupRequest",
        "setup_id admin_session scopes designated_account_name expire_time",
    ),
    (
        "accord.token.v1.IssueTokenResponse",
        "access_token token_type expires_in refresh_token scope grant_id",
    ),
    (
        "accord.token.v1.IntrospectTokenResponse",
        "active scope client_id sub aud iss exp iat jti token_type tenant_id grant_id",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn services_methods_and_fields_are_those_of_the_contract() {
    let Some(grpcurl) = grpcurl::find() else { return };
    let (_directory, dev) = dev::start().await;
    let sides = [
        (&dev.file.registry_grpc, &REGISTRY[..]),
        (&dev.file.token_grpc, &TOKEN[..]),
    ];
    for (address, services) in sides {
        let listed = grpcurl::output(&grpcurl, &[address, "list"]);
        let mut expected: Vec<&str> = services.iter().map(|(service, _)| *service).collect();
        expected.extend(["grpc.health.v1.Health"]);
        expected.sort_unstable();
        let mut listed: Vec<&str> = listed
            .lines()
            .filter(|line| !line.starts_with("grpc.reflection."))
            .collect();
        listed.sort_unstable();
        assert_eq!(listed, expected);

        for (service, methods) in services {
            let listed = grpcurl::output(&grpcurl, &[address, "list", service]);
            let mut listed: Vec<&str> = listed
                .lines()
                .map(|line| line.rsplit('.').next().unwrap())
                .collect();
            listed.sort_unstable();
            let mut expected: Vec<&str> = methods.split_whitespace().collect();
            expected.sort_unstable();
            assert_eq!(listed, expected, "{service}");
        }
    }
    for (message, fields) in FIELDS {
        let address = if message.starts_with("accord.registry") {
            &dev.file.registry_grpc
        } else {
            &dev.file.token_grpc
        };
        let described = grpcurl::output(&grpcurl, &[address, "describe", message]);
        for field in fields.split_whitespace() {
            assert!(
                described.contains(&format!(" {field} = ")),
                "{message}.{field}: {described}"
            );
        }
    }
    dev.stop().await.unwrap();
}

/// Methods that answer UNIMPLEMENTED.
const NOT_AVAILABLE: &str = "AmendClient ChangeAllowedNetworks GetCheckpoint GetConsistencyProof GetGrantUsage \
    GetInclusionProof PushAuthorizationRequest ReleaseDelivery ReleaseEnrolment TraceToken VerifyAuditLog";

/// A message in its encoded form.
#[derive(Debug, Default)]
struct Encoded(Vec<u8>);

impl Message for Encoded {
    fn encode_raw(&self, buffer: &mut impl prost::bytes::BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: prost::encoding::WireType,
        buffer: &mut impl prost::bytes::Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {}
}

/// A message that sets this one field.
fn with(field: &FieldDescriptorProto) -> Vec<u8> {
    let (wire_type, value): (u32, &[u8]) = match field.r#type() {
        Type::String | Type::Bytes => (2, b"\x01x"),
        Type::Message => (2, b"\x00"),
        Type::Bool | Type::Enum => (0, b"\x01"),
        other => panic!("{other:?}"),
    };
    let mut message = Vec::new();
    prost::encoding::encode_varint(
        u64::from(field.number() as u32) << 3 | u64::from(wire_type),
        &mut message,
    );
    message.extend(value);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_available_yet_is_rejected() {
    let (_directory, dev) = dev::start().await;
    let call = async |path: &str, message: Vec<u8>| {
        let address = if path.starts_with("/accord.token") {
            &dev.file.token_grpc
        } else {
            &dev.file.registry_grpc
        };
        let mut answer = Err(Status::unknown("nobody called"));
        for token in [&dev.file.operator_token, &dev.file.workload_token] {
            let mut grpc = Grpc::new(call::with_token(address, token).unwrap());
            grpc.ready().await.unwrap();
            let request = Request::new(Encoded(message.clone()));
            let path: PathAndQuery = path.parse().unwrap();
            answer = grpc
                .unary(request, path, ProstCodec::<Encoded, Encoded>::default())
                .await;
            if !matches!(&answer, Err(status) if status.code() == Code::PermissionDenied) {
                break;
            }
        }
        answer.map(drop)
    };
    let (mut methods, mut fields) = (Vec::new(), 0);
    let set = FileDescriptorSet::decode(accord::FILE_DESCRIPTOR_SET).unwrap();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("accord."))
    {
        let comments = &file.source_code_info.as_ref().unwrap().location;
        for (service, method) in file
            .service
            .iter()
            .flat_map(|s| s.method.iter().map(move |m| (s, m)))
        {
            let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
            if let Err(status) = call(&path, Vec::new()).await
                && status.code() == Code::Unimplemented
            {
                assert_eq!(reason_of(&status), Some(ErrorReason::NotAvailable), "{path}");
                methods.push(method.name());
            }
            let named = |message: &prost_types::DescriptorProto| {
                method.input_type().ends_with(&format!(".{}", message.name()))
            };
            let message = file.message_type.iter().position(named).unwrap();
            for (index, field) in file.message_type[message].field.iter().enumerate() {
                let location = [4, message as i32, 2, index as i32];
                let comment = comments.iter().find(|comment| comment.path == location).unwrap();
                if !comment.leading_comments().starts_with(" Not available yet") {
                    continue;
                }
                let status = call(&path, with(field)).await.unwrap_err();
                assert_eq!(
                    reason_of(&status),
                    Some(ErrorReason::InvalidFields),
                    "{path} {status:?}"
                );
                let violations = status.get_details_bad_request().unwrap().field_violations;
                let violations: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
                assert_eq!(
                    (status.code(), &violations[..]),
                    (Code::InvalidArgument, &[field.name()][..])
                );
                fields += 1;
            }
        }
    }
    methods.sort_unstable();
    methods.dedup();
    assert_eq!(methods.join(" "), NOT_AVAILABLE);
    assert_eq!(fields, 30, "as many as build.rs names");
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_reports_its_health() {
    let Some(grpcurl) = grpcurl::find() else { return };
    let (_directory, dev) = dev::start().await;
    let sides = [
        (&dev.file.registry_grpc, &REGISTRY[..]),
        (&dev.file.token_grpc, &TOKEN[..]),
    ];
    for (address, services) in sides {
        for (service, _) in services.iter().chain(&[("", "")]) {
            let request = format!("{{\"service\": \"{service}\"}}");
            let answer = grpcurl::output(
                &grpcurl,
                &["-d", &request, address, "grpc.health.v1.Health/Check"],
            );
            assert!(
                answer.contains("SERVING") && !answer.contains("NOT_SERVING"),
                "{service}: {answer}"
            );
        }
    }
    dev.stop().await.unwrap();
}
