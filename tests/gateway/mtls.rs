//! The gateway in front of services that it reaches over mutual TLS.

use accord::{
    registry::v1::{CreateTenantRequest, tenant_service_client::TenantServiceClient},
    testing::calls::ok,
};
use reqwest::StatusCode;
use serde_json::json;

use super::call;
use crate::harness::{
    envoy::{Gateway, Place},
    secured::Secured,
};

tests!(both_services_are_reached_over_mutual_tls);

async fn both_services_are_reached_over_mutual_tls() {
    let services = Secured::start().await;
    let operator = services.channel(&services.registries[0].address, "operator-client");
    let request = CreateTenantRequest {
        tenant_id: "firm-one".into(),
        display_name: "Firm".into(),
        cloud_api_url: "https://api.example".into(),
        ..Default::default()
    };
    ok(TenantServiceClient::new(operator).create_tenant(request).await);

    let gateway = Gateway::start_with_mtls(Place::reserve(), &[services.upstreams()], &services.certs());
    // gRPC to token-service.
    let message = json!({"tenant_id": "firm-one"});
    let answer = call(
        &gateway,
        "accord.token.v1.TokenService/GetJsonWebKeySet",
        &message,
    )
    .await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", gateway.printed());
    // gRPC to registry-service: an unknown link is its own answer.
    let message = json!({"claim_token": "acl_unknown"});
    let method = "accord.registry.v1.ProvisioningService/ClaimDelivery";
    let answer = call(&gateway, method, &message).await;
    let body: serde_json::Value = answer.json().await.unwrap();
    let reason = &body["details"][0]["reason"];
    assert!(
        ["LINK_INVALID", "INVALID_FIELDS"].contains(&reason.as_str().unwrap_or_default()),
        "{body}"
    );
    // HTTP to token-service. A client that does not authenticate gets the service's own answer.
    let url = format!("{}/firm-one/oauth2/token", gateway.url());
    let form = gateway
        .client()
        .post(url)
        .form(&[("grant_type", "client_credentials")]);
    let answer = form.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"], "invalid_client");

    // A service whose certificate lacks the name is not spoken to: the registry in the place of token-service.
    let mut swapped = services.upstreams();
    swapped.token_grpc = swapped.registry_grpc;
    let wrong = Gateway::start_with_mtls(Place::reserve(), &[swapped], &services.certs());
    let message = json!({"tenant_id": "firm-one"});
    let answer = call(&wrong, "accord.token.v1.TokenService/GetJsonWebKeySet", &message).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}
