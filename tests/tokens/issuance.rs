//! The contents of tokens, and who gets one.

use std::time::Duration;

use accord::{
    registry::v1::{self as reg, scope_service_client::ScopeServiceClient},
    testing::calls::{altered, assert_violations, ok},
    token::v1::{self as tok, issue_token_request::ClientAuthentication},
};
use tonic::Code;

use super::{claims, header};
use crate::harness::{
    dev,
    partner::{Partner, World, code_grant, own_grant, refresh_grant},
    refusal::{CONSENT_REQUIRED, INVALID_CLIENT, INVALID_GRANT, refused, soon},
};

tests!(
    an_access_token_has_the_claims_of_rfc_9068_and_the_design,
    a_client_that_fails_to_authenticate_gets_one_error,
    all_violations_of_a_message_are_returned_at_once,
    a_pending_grant_is_no_grant_and_a_new_one_supersedes_the_old,
    scopes_and_resource_are_limited_to_the_grant,
);

async fn an_access_token_has_the_claims_of_rfc_9068_and_the_design() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let issued = world.first_tokens(&partner).await;
    assert_eq!((issued.token_type.as_str(), issued.expires_in), ("Bearer", 300));
    assert_eq!(issued.scope, "contacts.read matters.read");

    let claims = claims(&issued.access_token);
    let now = accord::clock::Clock::now(&*clock).as_secs();
    assert_eq!(header(&issued.access_token)["typ"], "at+jwt");
    assert_eq!(header(&issued.access_token)["alg"], "EdDSA");
    assert_eq!(claims["iss"], world.target.tenant_authority_url.as_str());
    assert_eq!(claims["aud"], world.target.cloud_api_url.as_str());
    assert_eq!(claims["client_id"], partner.client_id.as_str());
    assert_eq!(claims["tenant_id"], world.target.tenant_id.as_str());
    assert_eq!(claims["grant_id"], issued.grant_id.as_str());
    assert_eq!(
        (claims["iat"].as_i64(), claims["exp"].as_i64()),
        (Some(now), Some(now + 300))
    );
    assert!(claims["sub"].as_str().unwrap().starts_with("usr_"));
    assert!(claims["family_id"].is_string() && claims["jti"].is_string());
    assert_eq!(claims["rev"].as_str().unwrap().split('.').count(), 3);

    let own = world.issue(&partner, own_grant()).await.unwrap();
    assert!(own.refresh_token.is_empty());
    let own = super::claims(&own.access_token);
    assert!(own.get("family_id").is_none());
    assert_eq!(
        own["sub"], claims["sub"],
        "the grant is run-as, for client credentials too"
    );

    let introspected = world.introspect(&issued.access_token).await;
    assert_eq!(introspected.active, Some(true));
    assert_eq!(introspected.sub, claims["sub"].as_str().unwrap());
    assert_eq!(
        (introspected.iat as i64, introspected.exp as i64),
        (now, now + 300)
    );
    assert_eq!(introspected.token_type, "Bearer");
    clock.advance(Duration::from_secs(300));
    let introspected = world.introspect(&issued.access_token).await;
    let nothing = tok::IntrospectTokenResponse {
        active: Some(false),
        ..Default::default()
    };
    assert_eq!(introspected, nothing, "an inactive token has no other field set");
    dev.stop().await.unwrap();
}

async fn a_client_that_fails_to_authenticate_gets_one_error() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let attempts = [
        (partner.client_id.clone(), other.client_secret.clone()),
        (other.client_id.clone(), partner.client_secret.clone()),
        (
            "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
            partner.client_secret.clone(),
        ),
        (partner.client_id.clone(), altered(&partner.client_secret)),
        (partner.client_id.clone(), String::new()),
        (partner.client_id.clone(), "x".repeat(10_000)),
        (String::new(), partner.client_secret.clone()),
        ("not-an-id".into(), partner.client_secret.clone()),
        (partner.client_id.clone(), format!("{}\0", partner.client_secret)),
    ];
    let mut messages = Vec::new();
    for (client_id, client_secret) in attempts {
        let impostor = Partner {
            client_id,
            client_secret,
        };
        let result = world.issue(&impostor, own_grant()).await;
        messages.push(result.as_ref().err().unwrap().message().to_owned());
        refused(result, INVALID_CLIENT);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);

    let mut request = world.token_request(&partner, own_grant());
    request.client_authentication = None;
    refused(world.tokens().issue_token(request.clone()).await, INVALID_CLIENT);
    request.client_authentication = Some(ClientAuthentication::ClientAssertion("a.b.c".into()));
    let result = world.tokens().issue_token(request).await;
    refused(result, INVALID_CLIENT);
    dev.stop().await.unwrap();
}

async fn all_violations_of_a_message_are_returned_at_once() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let request = tok::IssueTokenRequest {
        tenant_id: "Not A Tenant".into(),
        scopes: vec!["ok".into(), "with space".into(), "ok".into()],
        resource: "x".repeat(5000),
        grant: Some(tok::issue_token_request::Grant::AuthorizationCode(
            Default::default(),
        )),
        ..Default::default()
    };
    let expected = [
        "tenant_id",
        "client_id",
        "scopes[1]",
        "resource",
        "authorization_code.code",
        "authorization_code.redirect_uri",
        "authorization_code.code_verifier",
    ];
    assert_violations(world.tokens().issue_token(request).await, &expected);

    let partner = world.partner().await;
    let mut request = world.token_request(&partner, own_grant());
    request.grant = None;
    let result = world.tokens().issue_token(request).await;
    refused(result, (Code::InvalidArgument, "UNSUPPORTED_GRANT_TYPE"));
    dev.stop().await.unwrap();
}

async fn a_pending_grant_is_no_grant_and_a_new_one_supersedes_the_old() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    refused(world.issue(&partner, own_grant()).await, CONSENT_REQUIRED);
    let approved = world.approve(&partner).await;
    refused(world.issue(&partner, own_grant()).await, CONSENT_REQUIRED);

    let first = world.issue(&partner, code_grant(&approved)).await.unwrap();
    let second = world.first_tokens(&partner).await;
    assert_ne!(first.grant_id, second.grant_id);
    assert!(!world.active(&first.access_token).await);
    refused(
        world.issue(&partner, refresh_grant(&first.refresh_token)).await,
        INVALID_GRANT,
    );
    assert!(world.active(&second.access_token).await);
    assert_eq!(
        world.issue(&partner, own_grant()).await.unwrap().grant_id,
        second.grant_id
    );
    dev.stop().await.unwrap();
}

async fn scopes_and_resource_are_limited_to_the_grant() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let first = world.first_tokens(&partner).await;

    let mut narrow = world.token_request(&partner, refresh_grant(&first.refresh_token));
    narrow.scopes = vec!["matters.read".into()];
    narrow.resource = world.target.cloud_api_url.clone();
    let narrowed = ok(world.tokens().issue_token(narrow).await);
    assert_eq!(narrowed.scope, "matters.read");
    let wide = world
        .issue(&partner, refresh_grant(&narrowed.refresh_token))
        .await
        .unwrap();
    assert_eq!(
        wide.scope, "contacts.read matters.read",
        "narrowing holds for that access token alone"
    );

    for scope in ["documents.read", "no.such.scope"] {
        let mut beyond = world.token_request(&partner, refresh_grant(&wide.refresh_token));
        beyond.scopes = vec![scope.into()];
        let result = world.tokens().issue_token(beyond).await;
        refused(result, (Code::InvalidArgument, "INVALID_SCOPE"));
    }
    let mut elsewhere = world.token_request(&partner, refresh_grant(&wide.refresh_token));
    elsewhere.resource = format!("{}/", world.target.cloud_api_url);
    let result = world.tokens().issue_token(elsewhere).await;
    refused(result, (Code::InvalidArgument, "INVALID_TARGET"));

    // A rejected call does not use the refresh token up. A disabled scope is left out.
    let mut scopes = ScopeServiceClient::new(world.operator.clone());
    let update = |enabled| reg::UpdateScopeRequest {
        scope: Some(reg::Scope {
            name: "contacts.read".into(),
            enabled,
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["enabled".into()],
        }),
    };
    ok(scopes.update_scope(update(false)).await);
    soon("the scope drops out", async || {
        let reduced = world.issue(&partner, refresh_grant(&wide.refresh_token)).await;
        reduced.unwrap().scope == "matters.read"
    })
    .await;
    dev.stop().await.unwrap();
}
