//! Who may call which method of token-service, in one table.
//!
//! Where a method also needs a Tenant Admin's session, the method itself checks that.

use accord::rpc::auth::{
    Access,
    Role::{self, *},
    WorkloadKind::InternalService,
};

const READ: Access = Access::Callers(&Role::ALL, &[]);
const SECURE: Access = Access::Callers(&[Security, Admin], &[]);
const AUDIT: Access = Access::Callers(&[Auditor, Admin], &[]);
const INTERNAL: Access = Access::Callers(&[], &[InternalService]);
const READ_CONSENT: Access = Access::Callers(&[Auditor, Security, Admin], &[InternalService]);
const REVOKE_CONSENT: Access = Access::Callers(&[Security, Admin], &[InternalService]);

/// Services, named in full, that this server serves beside health and reflection.
pub const SERVICES: &[&str] = &[
    "accord.token.v1.SetupService",
    "accord.token.v1.ConsentService",
    "accord.token.v1.TokenService",
    "accord.token.v1.SigningKeyService",
    "accord.audit.v1.AuditService",
];

/// Methods that end with their caller, as [`Permissions::ending_with_caller`] says. Token issuance may be dropped. Its group commits,
/// and the end of a family or a code, run in tasks of their own, and a code that is redeemed again becomes usable once more. A
/// sign-in runs in such a task, too; it forgets earlier failures only once its answer is sent.
///
/// [`Permissions::ending_with_caller`]: accord::rpc::auth::Permissions::ending_with_caller
pub const END_WITH_CALLER: &[&str] = &[
    "/accord.token.v1.TokenService/IssueToken",
    "/accord.token.v1.SetupService/SignInTenantAdmin",
];

/// Every method and who may call it. A method that is missing here can't be reached.
#[rustfmt::skip]
pub const TABLE: &[(&str, Access)] = &[
    ("/accord.token.v1.SetupService/StartSetup", INTERNAL),
    ("/accord.token.v1.SetupService/GetSetup", INTERNAL),
    ("/accord.token.v1.SetupService/SignInTenantAdmin", INTERNAL),
    ("/accord.token.v1.SetupService/SignOutTenantAdmin", INTERNAL),
    ("/accord.token.v1.SetupService/ApproveSetup", INTERNAL),
    ("/accord.token.v1.SetupService/DenySetup", INTERNAL),

    ("/accord.token.v1.ConsentService/GetConsent", READ_CONSENT),
    ("/accord.token.v1.ConsentService/ListConsents", READ_CONSENT),
    ("/accord.token.v1.ConsentService/RevokeConsent", REVOKE_CONSENT),
    ("/accord.token.v1.ConsentService/ChangeDesignatedUser", INTERNAL),
    ("/accord.token.v1.ConsentService/ChangeAllowedNetworks", INTERNAL),
    ("/accord.token.v1.ConsentService/GetGrantUsage", READ_CONSENT),
    ("/accord.token.v1.ConsentService/GetConsentReceipt", READ_CONSENT),
    ("/accord.token.v1.ConsentService/ListOperatorActions", READ_CONSENT),

    ("/accord.token.v1.TokenService/IssueToken", Access::Anyone),
    ("/accord.token.v1.TokenService/PushAuthorizationRequest", Access::Anyone),
    ("/accord.token.v1.TokenService/IntrospectToken", Access::CallersOrClients(&[], &[InternalService])),
    ("/accord.token.v1.TokenService/RevokeToken", Access::Anyone),
    ("/accord.token.v1.TokenService/GetJsonWebKeySet", Access::Anyone),
    ("/accord.token.v1.TokenService/GetAuthorityMetadata", Access::Anyone),
    ("/accord.token.v1.TokenService/ListRevocations", INTERNAL),

    ("/accord.token.v1.SigningKeyService/ListSigningKeys", READ),
    ("/accord.token.v1.SigningKeyService/RotateSigningKey", SECURE),
    ("/accord.token.v1.SigningKeyService/RevokeSigningKey", SECURE),

    ("/accord.audit.v1.AuditService/ListAuditEvents", AUDIT),
    ("/accord.audit.v1.AuditService/VerifyAuditLog", AUDIT),
    ("/accord.audit.v1.AuditService/GetCheckpoint", AUDIT),
    ("/accord.audit.v1.AuditService/GetInclusionProof", AUDIT),
    ("/accord.audit.v1.AuditService/GetConsistencyProof", AUDIT),
    ("/accord.audit.v1.AuditService/TraceToken", AUDIT),
];
