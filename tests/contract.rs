//! The names that scripts call, read by grpcurl through reflection.

pub mod not_available;

use std::process::Command;

use crate::harness::dev;

tests!(
    services_methods_and_fields_are_those_of_the_contract,
    every_service_reports_its_health,
);

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
         GetTenantProfile GetProfiles ListChanges ReportSecretUse ReportSigningAlgorithms \
         ListOperatorActions",
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
        "GetConsent ListConsents RevokeConsent ChangeDesignatedUser ChangeAllowedNetworks GetGrantUsage \
         GetConsentReceipt ListOperatorActions",
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

/// Runs a grpcurl command, which must succeed. Returns its output.
fn grpcurl(arguments: &[&str]) -> String {
    let output = Command::new("grpcurl")
        .arg("-plaintext")
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

async fn services_methods_and_fields_are_those_of_the_contract() {
    let (_directory, dev) = dev::start().await;
    let sides = [
        (&dev.file.registry_grpc, &REGISTRY[..]),
        (&dev.file.token_grpc, &TOKEN[..]),
    ];
    for (address, services) in sides {
        let listed = grpcurl(&[address, "list"]);
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
            let listed = grpcurl(&[address, "list", service]);
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
        let described = grpcurl(&[address, "describe", message]);
        for field in fields.split_whitespace() {
            assert!(
                described.contains(&format!(" {field} = ")),
                "{message}.{field}: {described}"
            );
        }
    }
    dev.stop().await.unwrap();
}

async fn every_service_reports_its_health() {
    let (_directory, dev) = dev::start().await;
    let sides = [
        (&dev.file.registry_grpc, &REGISTRY[..]),
        (&dev.file.token_grpc, &TOKEN[..]),
    ];
    for (address, services) in sides {
        for (service, _) in services.iter().chain(&[("", "")]) {
            let request = format!("{{\"service\": \"{service}\"}}");
            let answer = grpcurl(&["-d", &request, address, "grpc.health.v1.Health/Check"]);
            assert!(
                answer.contains("SERVING") && !answer.contains("NOT_SERVING"),
                "{service}: {answer}"
            );
        }
    }
    dev.stop().await.unwrap();
}
