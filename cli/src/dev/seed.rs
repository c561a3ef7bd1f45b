//! The initial data of a development environment: a tenant with an admin and an API user, and scopes. All of it is
//! created by the RPCs of an operator.

use accord::{
    random::Random,
    registry::v1::{
        self as pb, scope_service_client::ScopeServiceClient, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient,
    },
    rpc::channel::HopChannel,
};
use tonic::{Code, Response, Status};

use crate::{call::answer, dev_file::DevFile};

const TENANT_ID: &str = "demo-firm";
/// The Cloud API URL of a tenant without a Cloud API.
const CLOUD_API_URL: &str = "https://api.demo-firm.example/v1";
/// The largest page that the registry returns.
const PAGE_SIZE: i32 = 500;
/// Account name of the tenant's admin.
pub const ADMIN_ACCOUNT_NAME: &str = "ada.admin@demo-firm.example";
/// Account name of the user that API transactions can run as.
pub const API_USER_ACCOUNT_NAME: &str = "integration.user@demo-firm.example";
/// The scopes of the catalogue, with their descriptions.
pub const SCOPES: [(&str, &str); 6] = [
    (
        "contacts.read",
        "See contacts: names, addresses, telephone numbers and e-mail addresses.",
    ),
    ("contacts.write", "Add and change contacts."),
    (
        "matters.read",
        "See matters: titles, parties, dates and the people who work on them.",
    ),
    ("documents.read", "See and download documents of matters."),
    ("documents.write", "Add documents to matters and change them."),
    ("calendar.read", "See deadlines and appointments."),
];

/// Creates missing data as an operator. The tenant's Cloud API is at `cloud_api_url`, if `accord dev` serves one. Returns
/// what dev.json says of the data, with a new password of the admin. The addresses and the callers' tokens are empty.
pub async fn run(
    channel: &HopChannel,
    cloud_api_url: Option<&str>,
    random: &dyn Random,
) -> anyhow::Result<DevFile> {
    let tenant = tenant(channel, cloud_api_url.unwrap_or(CLOUD_API_URL)).await?;
    scopes(channel).await?;
    let enrolment_token = users(channel).await?;
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let admin_password = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let request = pb::CompleteEnrolmentRequest {
        enrolment_token,
        password: admin_password.clone(),
        ..Default::default()
    };
    let mut users = UserServiceClient::new(channel.clone());
    answer("CompleteEnrolment", users.complete_enrolment(request).await)?;
    Ok(DevFile {
        registry_grpc: String::new(),
        token_grpc: String::new(),
        http_url: String::new(),
        operator_token: String::new(),
        workload_token: String::new(),
        tenant_id: tenant.tenant_id,
        tenant_authority_url: tenant.tenant_authority_url,
        cloud_api_url: tenant.cloud_api_url,
        admin_account_name: ADMIN_ACCOUNT_NAME.to_owned(),
        admin_password,
        api_user_account_name: API_USER_ACCOUNT_NAME.to_owned(),
        scopes: SCOPES.iter().map(|(name, _)| (*name).to_owned()).collect(),
    })
}

/// Creates the tenant unless it is listed, so that no start logs a rejected call.
async fn tenant(channel: &HopChannel, cloud_api_url: &str) -> anyhow::Result<pb::Tenant> {
    let mut tenants = TenantServiceClient::new(channel.clone());
    let request = pb::ListTenantsRequest {
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    let listed = answer("ListTenants", tenants.list_tenants(request).await)?.tenants;
    if !listed.iter().any(|tenant| tenant.tenant_id == TENANT_ID) {
        let request = pb::CreateTenantRequest {
            tenant_id: TENANT_ID.to_owned(),
            display_name: "Demo Firm LLP".to_owned(),
            cloud_api_url: cloud_api_url.to_owned(),
            ..Default::default()
        };
        created("CreateTenant", tenants.create_tenant(request).await)?;
    }
    // A tenant of an earlier start may have another Cloud API.
    let request = pb::UpdateTenantRequest {
        tenant: Some(pb::Tenant {
            tenant_id: TENANT_ID.to_owned(),
            cloud_api_url: cloud_api_url.to_owned(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["cloud_api_url".to_owned()],
        }),
    };
    let answer = answer("UpdateTenant", tenants.update_tenant(request).await)?;
    Ok(answer.tenant.unwrap_or_default())
}

async fn scopes(channel: &HopChannel) -> anyhow::Result<()> {
    let mut scopes = ScopeServiceClient::new(channel.clone());
    let request = pb::ListScopesRequest {
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    let listed = answer("ListScopes", scopes.list_scopes(request).await)?.scopes;
    for (name, description) in SCOPES {
        if !listed.iter().any(|scope| scope.name == name) {
            let request = pb::CreateScopeRequest {
                name: name.to_owned(),
                description: description.to_owned(),
                ..Default::default()
            };
            created("CreateScope", scopes.create_scope(request).await)?;
        }
    }
    Ok(())
}

/// Creates both users. Returns an enrolment token of the admin, who gets a new password at every start.
async fn users(channel: &HopChannel) -> anyhow::Result<String> {
    let mut users = UserServiceClient::new(channel.clone());
    let request = pb::ListUsersRequest {
        tenant_id: TENANT_ID.to_owned(),
        page_size: PAGE_SIZE,
        ..Default::default()
    };
    // The oldest come first.
    let listed = answer("ListUsers", users.list_users(request).await)?.users;
    let mut enrolment_token = String::new();
    for (account_name, label, tenant_admin) in [
        (API_USER_ACCOUNT_NAME, "API user 1", false),
        (ADMIN_ACCOUNT_NAME, "Administrator 1", true),
    ] {
        enrolment_token = match listed.iter().find(|user| user.label == label) {
            None => {
                let request = pb::RegisterUserRequest {
                    tenant_id: TENANT_ID.to_owned(),
                    account_name: account_name.to_owned(),
                    label: label.to_owned(),
                    tenant_admin,
                    ..Default::default()
                };
                answer("RegisterUser", users.register_user(request).await)?.enrolment_token
            }
            Some(user) if tenant_admin => {
                let request = pb::ResetUserPasswordRequest {
                    tenant_id: TENANT_ID.to_owned(),
                    user_id: user.user_id.clone(),
                    ..Default::default()
                };
                answer("ResetUserPassword", users.reset_user_password(request).await)?.enrolment_token
            }
            Some(_) => String::new(),
        };
    }
    Ok(enrolment_token)
}

/// Accepts ALREADY_EXISTS: the resource may be on a later page of the list.
fn created<T>(call: &str, result: Result<Response<T>, Status>) -> anyhow::Result<()> {
    match result {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        other => answer(call, other).map(drop),
    }
}
