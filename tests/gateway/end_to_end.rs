//! The services behind the gateway, used by a partner from outside.

use std::net::Ipv4Addr;

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    registry::v1 as reg,
    testing::calls::ok,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{call, json};
use crate::harness::{
    dev,
    envoy::{Gateway, Place},
    partner::{Partner, REDIRECT_URI, World},
};

tests!(
    a_token_is_issued_introspected_and_revoked_as_json,
    a_token_is_issued_introspected_and_revoked_by_form,
    metadata_and_keys_are_the_same_in_every_form_and_point_to_the_gateway,
    tokens_are_issued_to_the_networks_of_a_client_alone,
    a_delivery_is_claimed_once,
    a_workloads_token_has_no_effect_from_outside,
    an_error_as_json_keeps_its_reason_and_details,
);

/// Services behind a gateway, and a partner with an active grant.
struct Outside {
    _directory: tempfile::TempDir,
    dev: accord_cli::dev::Dev,
    gateway: Gateway,
    world: World,
    partner: Partner,
}

impl Outside {
    async fn start() -> Self {
        let place = Place::reserve();
        let (directory, dev) = dev::start_behind(&place.url()).await;
        let gateway = Gateway::start(place, &dev.file).await;
        let world = World::new(&dev.file);
        let partner = world.partner().await;
        world.first_tokens(&partner).await;
        Self {
            _directory: directory,
            dev,
            gateway,
            world,
            partner,
        }
    }

    /// Calls a method of TokenService as JSON, with the partner's credentials in the message.
    async fn token_call(&self, method: &str, rest: Value) -> (StatusCode, Value) {
        let mut message = json!({
            "tenant_id": self.dev.file.tenant_id,
            "client_id": self.partner.client_id,
            "client_secret": self.partner.client_secret,
        });
        message
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let method = format!("accord.token.v1.TokenService/{method}");
        let answer = call(&self.gateway, &method, &message).await;
        (answer.status(), answer.json().await.unwrap())
    }

    /// The Tenant Authority URL.
    fn authority(&self) -> &str {
        &self.dev.file.tenant_authority_url
    }
}

async fn a_token_is_issued_introspected_and_revoked_as_json() {
    let outside = Outside::start().await;
    let (status, issued) = outside
        .token_call("IssueToken", json!({"client_credentials": {}}))
        .await;
    assert_eq!(status, StatusCode::OK, "{issued}");
    assert_eq!(issued["token_type"], "Bearer");
    assert_eq!(issued["expires_in"], 300);
    assert_eq!(issued["scope"], "contacts.read matters.read");
    let token = &issued["access_token"];
    assert!(outside.world.active(token.as_str().unwrap()).await);

    let (status, introspected) = outside
        .token_call("IntrospectToken", json!({"token": token}))
        .await;
    assert_eq!(
        (status, &introspected["active"]),
        (StatusCode::OK, &json!(true)),
        "{introspected}"
    );
    assert_eq!(introspected["iss"], outside.authority());
    assert_eq!(introspected["client_id"], outside.partner.client_id);
    assert!(introspected["exp"].is_u64(), "{introspected}");

    let (status, revoked) = outside.token_call("RevokeToken", json!({"token": token})).await;
    assert_eq!((status, revoked), (StatusCode::OK, json!({})));
    let (_, introspected) = outside
        .token_call("IntrospectToken", json!({"token": token}))
        .await;
    assert_eq!(introspected, json!({"active": false}));
    outside.dev.stop().await.unwrap();
}

async fn a_token_is_issued_introspected_and_revoked_by_form() {
    let outside = Outside::start().await;
    let form = |endpoint: &str, fields: &[(&str, &str)]| {
        let url = format!("{}/oauth2/{endpoint}", outside.authority());
        let request = outside.gateway.client().post(url).form(fields);
        request.basic_auth(&outside.partner.client_id, Some(&outside.partner.client_secret))
    };
    let (status, issued) = json(form("token", &[("grant_type", "client_credentials")])).await;
    assert_eq!(status, StatusCode::OK, "{issued}");
    assert_eq!(issued["token_type"], "Bearer");
    let token = issued["access_token"].as_str().unwrap();
    let (status, introspected) = json(form("introspect", &[("token", token)])).await;
    assert_eq!(
        (status, &introspected["active"]),
        (StatusCode::OK, &json!(true)),
        "{introspected}"
    );
    let revoked = form("revoke", &[("token", token)]).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::OK);
    assert!(!outside.world.active(token).await);

    // Only the client's credentials count.
    let url = format!("{}/oauth2/token", outside.authority());
    let request = outside
        .gateway
        .client()
        .post(url)
        .form(&[("grant_type", "client_credentials")]);
    let (status, refused) = json(request.bearer_auth(&outside.dev.file.operator_token)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{refused}");
    assert_eq!(refused["error"], "invalid_client");
    outside.dev.stop().await.unwrap();
}

async fn metadata_and_keys_are_the_same_in_every_form_and_point_to_the_gateway() {
    let outside = Outside::start().await;
    let client = outside.gateway.client();
    let (base, tenant) = (outside.gateway.url(), &outside.dev.file.tenant_id);
    assert_eq!(outside.authority(), format!("{base}/{tenant}"));
    let places = [
        format!("{base}/.well-known/oauth-authorization-server/{tenant}"),
        format!("{base}/{tenant}/.well-known/oauth-authorization-server"),
        format!("{base}/{tenant}/.well-known/openid-configuration"),
    ];
    let mut documents = Vec::new();
    for place in places {
        let (status, document) = json(client.get(place)).await;
        assert_eq!(status, StatusCode::OK);
        documents.push(document);
    }
    let method = |name| format!("accord.token.v1.TokenService/{name}");
    let of_tenant = json!({"tenant_id": tenant});
    let rpc = call(&outside.gateway, &method("GetAuthorityMetadata"), &of_tenant).await;
    let document: Value = rpc.json().await.unwrap();
    assert!(
        documents
            .iter()
            .all(|other| other["issuer"] == outside.authority())
    );
    for (name, value) in document.as_object().unwrap() {
        assert!(documents.iter().all(|other| &other[name] == value), "{name}");
        if name.ends_with("_endpoint") || name == "jwks_uri" {
            assert!(value.as_str().unwrap().starts_with(&base), "{name}: {value}");
        }
    }

    let (status, keys) = json(client.get(document["jwks_uri"].as_str().unwrap())).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!keys["keys"].as_array().unwrap().is_empty());
    let rpc = call(&outside.gateway, &method("GetJsonWebKeySet"), &of_tenant).await;
    assert_eq!(rpc.json::<Value>().await.unwrap(), keys);
    outside.dev.stop().await.unwrap();
}

async fn tokens_are_issued_to_the_networks_of_a_client_alone() {
    let place = Place::reserve();
    let (_directory, dev) = dev::start_behind(&place.url()).await;
    let gateway = Gateway::start(place, &dev.file).await;
    let world = World::new(&dev.file);
    // The partner asks for it, an operator approves, and a Tenant Admin consents.
    let request = reg::SubmitIntegrationRequestRequest {
        allowed_networks: vec!["127.0.0.8/29".into()],
        ..Default::default()
    };
    let partner = world.partner_with(request).await;
    let approved = world.approve(&partner).await;
    let inside = gateway.client_from(Ipv4Addr::new(127, 0, 0, 9));
    let outside = gateway.client_from(Ipv4Addr::new(127, 0, 0, 17));

    let url = format!("{}/oauth2/token", dev.file.tenant_authority_url);
    let ask = |from: &reqwest::Client, fields: &[(&str, &str)]| {
        // What a caller says about its address counts for nothing.
        let request = from.post(&url).header("X-Forwarded-For", "127.0.0.9");
        request
            .basic_auth(&partner.client_id, Some(&partner.client_secret))
            .form(fields)
    };
    let code = [
        ("grant_type", "authorization_code"),
        ("code", &approved.code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", &approved.verifier),
    ];
    let (status, refused) = json(ask(&outside, &code)).await;
    assert_eq!(
        (status, &refused["error"]),
        (StatusCode::BAD_REQUEST, &json!("unauthorized_client"))
    );
    let description = refused["error_description"].as_str().unwrap();
    assert!(description.contains("127.0.0.17"), "{description}");
    let (status, issued) = json(ask(&inside, &code)).await;
    assert_eq!(status, StatusCode::OK, "the code still counts: {issued}");
    let refresh_token = issued["refresh_token"].as_str().unwrap();
    for fields in [
        &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)][..],
        &[("grant_type", "client_credentials")],
    ] {
        let (status, refused) = json(ask(&outside, fields)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        let (status, issued) = json(ask(&inside, fields)).await;
        assert_eq!(status, StatusCode::OK, "{issued}");
    }

    // As JSON.
    let method = format!("{}/accord.token.v1.TokenService/IssueToken", gateway.url());
    let message = json!({
        "tenant_id": dev.file.tenant_id,
        "client_id": partner.client_id,
        "client_secret": partner.client_secret,
        "client_credentials": {},
    });
    let (status, _) = json(inside.post(&method).json(&message)).await;
    assert_eq!(status, StatusCode::OK);
    let (status, refused) = json(outside.post(&method).json(&message)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    let info = &refused["details"][0];
    assert_eq!(info["reason"], "NETWORK_NOT_ALLOWED", "{refused}");
    assert_eq!(info["metadata"]["client_address"], "127.0.0.17");

    let request = ListAuditEventsRequest {
        client_id: partner.client_id.clone(),
        page_size: 500,
        ..Default::default()
    };
    let mut audit = AuditServiceClient::new(world.token_operator.clone());
    let mut events = ok(audit.list_audit_events(request).await).audit_events;
    events.retain(|event| event.action == "token.refuse");
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(events.iter().all(|event| event.caller_address == "127.0.0.17"));
    dev.stop().await.unwrap();
}

async fn a_delivery_is_claimed_once() {
    let outside = Outside::start().await;
    let mut provisioning =
        reg::provisioning_service_client::ProvisioningServiceClient::new(outside.world.operator.clone());
    let request = reg::CreateDeliveryRequest {
        client_id: outside.partner.client_id.clone(),
        ..Default::default()
    };
    let created = ok(provisioning.create_delivery(request).await);
    let link = created.delivery_link.unwrap();
    assert!(
        link.url
            .starts_with(&format!("{}/claim/acl_", outside.gateway.url())),
        "{}",
        link.url
    );

    let method = "accord.registry.v1.ProvisioningService/ClaimDelivery";
    let message = json!({"claim_token": link.claim_token});
    let answer = call(&outside.gateway, method, &message).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let claimed: Value = answer.json().await.unwrap();
    assert_eq!(claimed["bundle"]["client_id"], outside.partner.client_id);
    assert_eq!(
        claimed["bundle"]["endpoints"][0]["tenant_authority_url"],
        outside.authority()
    );
    let partner = Partner {
        client_secret: claimed["bundle"]["client_secret"].as_str().unwrap().into(),
        ..outside.partner.clone()
    };
    let issued = outside
        .world
        .issue(&partner, crate::harness::partner::own_grant())
        .await;
    assert!(issued.is_ok(), "{issued:?}");

    let again = call(&outside.gateway, method, &message).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    let refused: Value = again.json().await.unwrap();
    assert!(refused["details"][0]["reason"].is_string(), "{refused}");
    outside.dev.stop().await.unwrap();
}

async fn a_workloads_token_has_no_effect_from_outside() {
    let outside = Outside::start().await;
    let (_, issued) = outside
        .token_call("IssueToken", json!({"client_credentials": {}}))
        .await;
    // The workload sees the token from inside.
    let access_token = issued["access_token"].as_str().unwrap();
    assert!(outside.world.active(access_token).await);
    let file = &outside.dev.file;
    for token in [&file.workload_token, &file.operator_token] {
        let gateway = &outside.gateway;
        let url = format!("{}/accord.token.v1.TokenService/IntrospectToken", gateway.url());
        let message = json!({"tenant_id": file.tenant_id, "token": access_token});
        let request = gateway.client().post(url).json(&message);
        let (status, refused) = json(request.bearer_auth(token)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{refused}");
        assert_eq!(refused["code"], 16);
        assert!(refused.get("active").is_none());
    }
    outside.dev.stop().await.unwrap();
}

async fn an_error_as_json_keeps_its_reason_and_details() {
    let outside = Outside::start().await;
    let wrong = json!({"client_secret": "wrong", "client_credentials": {}});
    let (status, refused) = outside.token_call("IssueToken", wrong).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused["details"][0]["reason"], "INVALID_CLIENT", "{refused}");
    let malformed = json!({"tenant_id": "!", "client_credentials": {}});
    let (status, refused) = outside.token_call("IssueToken", malformed).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let details = refused["details"].as_array().unwrap();
    let violations = details
        .iter()
        .find_map(|detail| detail["field_violations"].as_array());
    assert_eq!(violations.unwrap()[0]["field"], "tenant_id", "{refused}");
    let (status, refused) = outside.token_call("IssueToken", json!({"tenant_id": 5})).await;
    assert_eq!(
        (status, &refused["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_request"))
    );
    outside.dev.stop().await.unwrap();
}
