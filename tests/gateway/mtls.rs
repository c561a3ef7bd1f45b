//! The gateway in front of services that it reaches over mutual TLS.

use accord::{
    registry::v1::{CreateTenantRequest, tenant_service_client::TenantServiceClient},
    testing::{
        calls::ok,
        certificates::{DnType, KeyKind, Pair, Subject},
    },
};
use reqwest::StatusCode;
use serde_json::json;

use super::call;
use crate::harness::{
    envoy::{Gateway, Place, Upstreams},
    secured::Secured,
};

tests!(
    both_services_are_reached_over_mutual_tls,
    clients_learn_when_to_try_again_while_no_replica_is_ready,
    a_partners_certificate_passes_through_its_own_listener_alone,
);

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

/// The registry in the place of token-service: no health check succeeds, as when no replica is ready.
async fn clients_learn_when_to_try_again_while_no_replica_is_ready() {
    let services = Secured::start().await;
    let registry = services.upstreams().registry_grpc;
    let nobody = Upstreams {
        registry_grpc: registry,
        token_grpc: registry,
        token_http: registry,
    };
    let gateway = Gateway::start_with_mtls(Place::reserve(), &[nobody], &services.certs());
    let json = json!({"tenant_id": "firm-one"});
    let method = format!("{}/accord.token.v1.TokenService/IssueToken", gateway.url());
    let (keys, page) = (
        format!("{}/firm-one/jwks.json", gateway.url()),
        format!("{}/firm-one/sign-in", gateway.url()),
    );
    let client = gateway.client();
    for (request, content_type) in [
        (client.post(method).json(&json), "application/json"),
        (client.get(keys), "application/json"),
        (
            client.get(page).header("accept", "text/html"),
            "text/html; charset=utf-8",
        ),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_eq!(answer.headers()["retry-after"], "1", "{answer:?}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{answer:?}");
        assert_eq!(answer.headers()["content-type"], content_type, "{answer:?}");
    }
}

/// What the log of token-service says about a call whose certificate has arrived, and whose client is unknown.
const ARRIVED: &str = "there is no such client";
/// The same about one without a certificate.
const NONE: &str = "the request has no client credentials";

async fn a_partners_certificate_passes_through_its_own_listener_alone() {
    let by_header = |mut serve: std::process::Command| {
        serve.env("ACCORD_TOKEN_CLIENT_CERTIFICATE_HEADER", "xfcc");
        serve
    };
    let mut services = Secured::start_by(by_header).await;
    let operator = services.channel(&services.registries[0].address, "operator-client");
    let request = CreateTenantRequest {
        tenant_id: "firm-one".into(),
        display_name: "Firm".into(),
        cloud_api_url: "https://api.example".into(),
        ..Default::default()
    };
    ok(TenantServiceClient::new(operator).create_tenant(request).await);
    let partners = Place::reserve();
    let (upstreams, certs) = (services.upstreams(), services.certs());
    let gateway = Gateway::start_with_partners(Place::reserve(), &partners, upstreams, &certs);
    // Nobody has signed it, and its name imitates the form of the header.
    let pair = Pair::self_signed(
        &Subject {
            name: vec![(DnType::CommonName, "x\";Cert=\"x\",By=y")],
            ..Subject::default()
        },
        KeyKind::P256,
    );
    let with = gateway.client_with(&format!("{}{}", pair.private_key, pair.certificate));
    let without = gateway.client();
    let forged = pair.certificate.replace('\n', "%0A").replace(' ', "%20");
    let forged = format!("Cert=\"{}\"", forged.replace('+', "%2B"));
    let unknown = "cli_01arz3ndektsv4rrffq69g5fav";
    let mut seen = [0, 0];
    for (client, url, arrives) in [
        (&with, partners.url(), true),
        (without, partners.url(), false),
        (&with, gateway.url(), false),
    ] {
        // As a form, with headers that the caller wrote.
        let form = client
            .post(format!("{url}/firm-one/oauth2/token"))
            .header("x-forwarded-client-cert", &forged)
            .header("client-cert", ":AA==:")
            .form(&[("grant_type", "client_credentials"), ("client_id", unknown)]);
        let answer = form.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{}", gateway.printed());
        seen[usize::from(!arrives)] += 1;
        // As JSON, and with a certificate in the body, which no field takes.
        let method = format!("{url}/accord.token.v1.TokenService/IssueToken");
        let message = json!({"tenant_id": "firm-one", "client_id": unknown, "client_credentials": {}});
        let json = client.post(&method).header("x-forwarded-client-cert", &forged);
        let answer = json.json(&message).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        seen[usize::from(!arrives)] += 1;
        let mut told = message.clone();
        told["client_certificate"] = json!(pair.certificate);
        let answer = client.post(&method).json(&told).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        seen[usize::from(!arrives)] += 1;
        let [arrived, none] = seen;
        services.token.wait_for("the reasons in the log", |process| {
            let log = format!("{}{}", process.stdout(), process.stderr());
            let counted = [ARRIVED, NONE].map(|why| log.matches(why).count());
            (counted == [arrived, none]).then_some(())
        });
    }
    // Pages are not there.
    let page = with.get(format!("{}/firm-one/oauth2/authorize", partners.url()));
    assert_eq!(page.send().await.unwrap().status(), StatusCode::NOT_FOUND);
}
