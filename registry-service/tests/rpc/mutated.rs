//! No message makes a method fail by itself.

use accord::{
    rpc::auth::{Role, WorkloadKind},
    testing::mutated::{bombard, messages},
};

use crate::{client, harness::Harness};

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_the_fault_of_the_service() {
    let harness = Harness::start().await;
    client::seed(&harness).await;
    let (registered, secret) = client::registered(&harness).await;
    let token = |path: &str| match path.contains("DirectoryService") {
        true => harness
            .workload_token(WorkloadKind::TokenService)
            .expose()
            .to_owned(),
        false => harness.operator_token(Role::Admin).expose().to_owned(),
    };
    let known = [
        ("tenant_id", "acme"),
        ("tenant_ids", "acme"),
        ("client_id", registered.client_id.as_str()),
        ("client_secret", &secret),
        ("request_id", "7d8cb5bd-6a4e-4d4b-9c1f-0d4a6a0c3f10"),
        ("redirect_uris", "https://partner.example/callback"),
        ("cloud_api_url", "https://api.demo-firm.example/v1"),
        ("name", "contacts.read"),
        ("contact_email", "dev@partner.example"),
        ("paths", "display_name"),
    ];
    bombard(&harness.registry, messages(), token, &known).await;
}
