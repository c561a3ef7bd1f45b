//! Who may call each method of registry-service, in one table.

use accord::rpc::auth::{
    Access,
    Role::{self, *},
    WorkloadKind,
};

const READ: Access = Access::Callers(&Role::ALL, &[]);
const REGISTER: Access = Access::Callers(&[Registrar, Admin], &[]);
const DECIDE: Access = Access::Callers(&[Approver, Admin], &[]);
const SECURE: Access = Access::Callers(&[Security, Admin], &[]);
const AUDIT: Access = Access::Callers(&[Auditor, Admin], &[]);
const ADMINISTER: Access = Access::Callers(&[Admin], &[]);
const DIRECTORY: Access = Access::Callers(&[], &[WorkloadKind::TokenService]);

/// The full names of the services beside health and reflection.
pub const SERVICES: &[&str] = &[
    "accord.registry.v1.IntegrationRequestService",
    "accord.registry.v1.TenantService",
    "accord.registry.v1.UserService",
    "accord.registry.v1.ScopeService",
    "accord.registry.v1.ClientService",
    "accord.registry.v1.ProvisioningService",
    "accord.registry.v1.OperatorService",
    "accord.registry.v1.DirectoryService",
    "accord.audit.v1.AuditService",
];

/// Methods that only read although their names do not say so: they end with their caller
/// ([`Permissions::ending_with_caller`](accord::rpc::auth::Permissions::ending_with_caller)).
pub const END_WITH_CALLER: &[&str] = &["/accord.registry.v1.DirectoryService/AuthenticateCaller"];

/// Every method and who may call it. A method without a row can't be called.
#[rustfmt::skip]
pub const TABLE: &[(&str, Access)] = &[
    ("/accord.registry.v1.IntegrationRequestService/SubmitIntegrationRequest", REGISTER),
    ("/accord.registry.v1.IntegrationRequestService/GetIntegrationRequest", READ),
    ("/accord.registry.v1.IntegrationRequestService/ListIntegrationRequests", READ),
    ("/accord.registry.v1.IntegrationRequestService/ApproveIntegrationRequest", DECIDE),
    ("/accord.registry.v1.IntegrationRequestService/RejectIntegrationRequest", DECIDE),

    ("/accord.registry.v1.TenantService/CreateTenant", REGISTER),
    ("/accord.registry.v1.TenantService/GetTenant", READ),
    ("/accord.registry.v1.TenantService/ListTenants", READ),
    ("/accord.registry.v1.TenantService/UpdateTenant", REGISTER),
    ("/accord.registry.v1.TenantService/SuspendTenant", SECURE),
    ("/accord.registry.v1.TenantService/ReinstateTenant", SECURE),

    ("/accord.registry.v1.UserService/RegisterUser", REGISTER),
    ("/accord.registry.v1.UserService/FindUser", READ),
    ("/accord.registry.v1.UserService/ListUsers", READ),
    ("/accord.registry.v1.UserService/DeactivateUser", SECURE),
    ("/accord.registry.v1.UserService/ReactivateUser", SECURE),
    ("/accord.registry.v1.UserService/ResetUserPassword", REGISTER),
    ("/accord.registry.v1.UserService/CompleteEnrolment", Access::Anyone),
    ("/accord.registry.v1.UserService/ReleaseEnrolment", DECIDE),

    ("/accord.registry.v1.ScopeService/CreateScope", REGISTER),
    ("/accord.registry.v1.ScopeService/ListScopes", READ),
    ("/accord.registry.v1.ScopeService/UpdateScope", ADMINISTER),

    ("/accord.registry.v1.ClientService/RegisterClient", REGISTER),
    ("/accord.registry.v1.ClientService/GetClient", READ),
    ("/accord.registry.v1.ClientService/ListClients", READ),
    ("/accord.registry.v1.ClientService/UpdateClient", REGISTER),
    ("/accord.registry.v1.ClientService/AmendClient", REGISTER),
    ("/accord.registry.v1.ClientService/SuspendClient", SECURE),
    ("/accord.registry.v1.ClientService/ReinstateClient", SECURE),
    ("/accord.registry.v1.ClientService/CreateClientSecret", REGISTER),
    ("/accord.registry.v1.ClientService/ListClientSecrets", READ),
    ("/accord.registry.v1.ClientService/RevokeClientSecret", SECURE),
    ("/accord.registry.v1.ClientService/SetClientKeys", REGISTER),

    ("/accord.registry.v1.ProvisioningService/CreateDelivery", REGISTER),
    ("/accord.registry.v1.ProvisioningService/ReleaseDelivery", DECIDE),
    ("/accord.registry.v1.ProvisioningService/ClaimDelivery", Access::Anyone),

    ("/accord.registry.v1.OperatorService/CreateOperator", ADMINISTER),
    ("/accord.registry.v1.OperatorService/ListOperators", READ),
    ("/accord.registry.v1.OperatorService/RevokeOperator", SECURE),
    ("/accord.registry.v1.OperatorService/CreateWorkload", ADMINISTER),
    ("/accord.registry.v1.OperatorService/ListWorkloads", READ),
    ("/accord.registry.v1.OperatorService/RevokeWorkload", SECURE),

    ("/accord.registry.v1.DirectoryService/AuthenticateClient", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/AuthenticateTenantAdmin", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/AuthenticateCaller", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/ResolveUser", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/GetClientProfile", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/GetTenantProfile", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/GetProfiles", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/ListChanges", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/ReportSecretUse", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/ReportSigningAlgorithms", DIRECTORY),
    ("/accord.registry.v1.DirectoryService/ListOperatorActions", DIRECTORY),

    ("/accord.audit.v1.AuditService/ListAuditEvents", AUDIT),
    ("/accord.audit.v1.AuditService/VerifyAuditLog", AUDIT),
    ("/accord.audit.v1.AuditService/GetCheckpoint", AUDIT),
    ("/accord.audit.v1.AuditService/GetInclusionProof", AUDIT),
    ("/accord.audit.v1.AuditService/GetConsistencyProof", AUDIT),
    ("/accord.audit.v1.AuditService/TraceToken", AUDIT),
];
