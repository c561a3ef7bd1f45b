//! `TokenService.IssueToken`: what all grants share, and client credentials. Codes and refresh tokens
//! are in files of their own.

use std::time::Duration;

use accord::{
    clock::Clock,
    token::v1::{self as pb, issue_token_request::ClientAuthentication},
    verify::{AccessTokenClaims, KeySet, Tenant},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{assert_rejected, assert_violations},
    world::World,
};

mod authorization_code;
mod refresh_token;

type Answer = Result<pb::IssueTokenResponse, Status>;

#[track_caller]
fn assert_invalid_grant(answer: Answer) {
    let status = answer.expect_err("the call should be refused");
    assert_eq!(
        status.message(),
        "the code or refresh token is not valid for this client",
        "one answer, whatever the reason"
    );
    assert_rejected::<()>(Err(status), Code::FailedPrecondition, "INVALID_GRANT");
}

#[track_caller]
fn assert_consent_required(answer: Answer, state: Option<&str>) {
    let metadata = assert_rejected(answer, Code::PermissionDenied, "CONSENT_REQUIRED");
    assert_eq!(metadata.get("state").map(String::as_str), state);
}

/// The claims of a token that verifies, at the tenant `acme`, by the published keys.
async fn verified(world: &World, access_token: &str) -> AccessTokenClaims {
    let request = pb::GetJsonWebKeySetRequest {
        tenant_id: "acme".into(),
    };
    let answer = world.tokens().get_json_web_key_set(request).await.unwrap();
    let mut keys = KeySet::default();
    for key in answer.into_inner().keys {
        keys.insert(&key).unwrap();
    }
    let tenant = Tenant {
        tenant_id: "acme".into(),
        issuer: world.issuer.clone(),
        audience: world.cloud_api_url.clone(),
    };
    let now = world.clock().now().as_secs();
    keys.verify(access_token, &tenant, now).unwrap()
}

#[tokio::test]
async fn an_access_token_verifies_by_the_published_keys_and_names_its_audience() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 300));
    assert_eq!(tokens.scope, "contacts.read contacts.write");
    let claims = verified(&world, &tokens.access_token).await;
    assert_eq!(claims.sub, world.api_user_id);
    assert_eq!(claims.client_id, world.client_id);
    assert_eq!(
        (&claims.grant_id, &claims.scope),
        (&tokens.grant_id, &tokens.scope)
    );
    assert_eq!(i64::from(claims.iat), world.clock().now().as_secs());
    assert_eq!(claims.exp - claims.iat, tokens.expires_in);
    assert!(claims.family_id.is_some());

    let event = world.audit_events("token.issue").await.remove(0);
    assert_eq!(
        (&event.actor_id, &event.subject),
        (&world.client_id, &tokens.grant_id)
    );
    assert_eq!(event.detail["grant_type"], "authorization_code");
    assert_eq!(
        (&event.detail["jti"], &event.detail["sub"]),
        (&claims.jti, &claims.sub)
    );
    assert_eq!(event.detail["scope"], tokens.scope);
    assert!(!event.detail["kid"].is_empty());
    let shown = format!("{event:?}");
    assert!(!shown.contains(&tokens.access_token) && !shown.contains(&tokens.refresh_token));
}

#[tokio::test]
async fn every_violation_of_a_request_is_reported_at_once() {
    let world = World::start().await;
    let bad = pb::IssueTokenRequest {
        tenant_id: "A".into(),
        scopes: ["a b", "a", "a", ""].map(String::from).to_vec(),
        resource: "r".repeat(2049),
        grant: Some(pb::issue_token_request::Grant::AuthorizationCode(
            pb::AuthorizationCodeGrant::default(),
        )),
        ..world.by_client_credentials()
    };
    let fields = [
        "tenant_id",
        "scopes[0]",
        "scopes[3]",
        "resource",
        "authorization_code.code",
        "authorization_code.redirect_uri",
        "authorization_code.code_verifier",
    ];
    assert_violations(world.issue(bad).await, &fields);
    let nothing = pb::IssueTokenRequest::default();
    let fields = ["tenant_id", "grant", "client_id"];
    assert_violations(world.issue(nothing).await, &fields);
    for name in ["", "a b", "é"] {
        let malformed = pb::IssueTokenRequest {
            scopes: vec![name.into()],
            ..world.by_client_credentials()
        };
        let refused = world.issue(malformed).await.unwrap_err();
        let named = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(named[0].field, "scopes[0]");
        assert_rejected::<()>(Err(refused), Code::InvalidArgument, "INVALID_SCOPE");
    }
    world.active_grant().await;
    let twice = pb::IssueTokenRequest {
        scopes: vec!["contacts.read".into(); 2],
        ..world.by_client_credentials()
    };
    assert_eq!(world.issue(twice).await.unwrap().scope, "contacts.read");
    let empty = world.by_refresh_token("");
    assert_violations(world.issue(empty).await, &["refresh_token.refresh_token"]);
    let none = pb::IssueTokenRequest {
        grant: None,
        ..world.by_client_credentials()
    };
    assert_rejected(
        world.issue(none).await,
        Code::InvalidArgument,
        "UNSUPPORTED_GRANT_TYPE",
    );
}

#[tokio::test]
async fn a_client_that_is_not_proven_gets_one_answer() {
    let world = World::start().await;
    world.active_grant().await;
    let secret = &world.client.client_secret;
    let other = world.new_client(&["acme"]);
    let with = |client_id: &str, proof: Option<ClientAuthentication>| pb::IssueTokenRequest {
        client_id: client_id.into(),
        client_authentication: proof,
        ..world.by_client_credentials()
    };
    let secret_of = |secret: &str| Some(ClientAuthentication::ClientSecret(secret.into()));
    let malformed = [
        with("", secret_of(secret)),
        with("cli_1", secret_of(secret)),
        with(&world.client_id, secret_of("")),
        with(&world.client_id, secret_of(&secret[..secret.len() - 1])),
        with(&world.client_id, None),
    ];
    let wrong = [
        with("cli_01jd0000000000000000000000", secret_of(secret)),
        with(&world.client_id, secret_of(&other.client_secret)),
    ];
    let guesses = || malformed.iter().chain(&wrong).cloned();
    world.registry().take_counts();
    for request in guesses() {
        assert_rejected(
            world.issue(request).await,
            Code::Unauthenticated,
            "INVALID_CLIENT",
        );
    }
    assert!(world.registry().take_counts().is_empty(), "a guess makes no call");
    world.suspend("client", true);
    let refused = world.issue(world.by_client_credentials()).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");

    let assertion = with(
        &world.client_id,
        Some(ClientAuthentication::ClientAssertion("x".into())),
    );
    let refused = world.issue(assertion).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");

    world.registry().set_unavailable(true);
    for request in guesses() {
        assert_rejected(
            world.issue(request).await,
            Code::Unauthenticated,
            "INVALID_CLIENT",
        );
    }
    let refused = world.issue(world.by_client_credentials()).await.unwrap_err();
    assert!(refused.get_details_retry_info().is_some());
    assert_rejected::<()>(Err(refused), Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_rejected_scope_or_target_uses_up_no_code() {
    let world = World::start().await;
    let code = world.by_code(&world.code().await);
    let refused_first = async |request: pb::IssueTokenRequest| {
        let beyond = pb::IssueTokenRequest {
            scopes: vec!["contacts.read".into(), "files.read".into()],
            ..request.clone()
        };
        assert_rejected(world.issue(beyond).await, Code::InvalidArgument, "INVALID_SCOPE");
        let elsewhere = pb::IssueTokenRequest {
            resource: format!("{}/", world.cloud_api_url),
            ..request.clone()
        };
        assert_rejected(
            world.issue(elsewhere).await,
            Code::InvalidArgument,
            "INVALID_TARGET",
        );
        let named = pb::IssueTokenRequest {
            resource: world.cloud_api_url.clone(),
            ..request
        };
        world.issue(named).await.unwrap()
    };
    let first = refused_first(code).await;
    let second = refused_first(world.by_refresh_token(&first.refresh_token)).await;
    assert_ne!(first.refresh_token, second.refresh_token);
    refused_first(world.by_client_credentials()).await;
}

#[tokio::test]
async fn scopes_are_those_of_grant_client_and_catalogue() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    let narrowed = pb::IssueTokenRequest {
        scopes: vec!["contacts.read".into()],
        ..world.by_refresh_token(&first.refresh_token)
    };
    let second = world.issue(narrowed).await.unwrap();
    assert_eq!(second.scope, "contacts.read");
    assert_eq!(
        verified(&world, &second.access_token).await.scope,
        "contacts.read"
    );
    let third = world.refresh(&second.refresh_token).await.unwrap();
    assert_eq!(
        third.scope, "contacts.read contacts.write",
        "narrowing holds for one token"
    );

    world.change_client(|client| client.scopes.retain(|scope| scope.name == "contacts.write"));
    let fourth = world.refresh(&third.refresh_token).await.unwrap();
    assert_eq!(fourth.scope, "contacts.write");
    world.change_client(|client| client.scopes.clear());
    let refused = world.refresh(&fourth.refresh_token).await;
    assert_rejected(refused, Code::InvalidArgument, "INVALID_SCOPE");
}

#[tokio::test]
async fn client_credentials_need_the_tenants_active_consent() {
    let world = World::start().await;
    let issue = async || world.issue(world.by_client_credentials()).await;
    assert_consent_required(issue().await, None);
    world.pending_grant().await;
    assert_consent_required(issue().await, Some("PENDING"));

    // The state is that of the newest consent.
    world.clock().advance(Duration::from_secs(1));
    let grant_id = world.active_grant().await;
    let tokens = issue().await.unwrap();
    assert_eq!(
        (tokens.refresh_token.as_str(), tokens.grant_id.as_str()),
        ("", grant_id.as_str())
    );
    let claims = verified(&world, &tokens.access_token).await;
    assert_eq!((claims.sub, claims.family_id), (world.api_user_id.clone(), None));
    let event = world.audit_events("token.issue").await.remove(0);
    assert_eq!(event.detail["jti"], claims.jti);
    assert_eq!(event.detail["grant_type"], "client_credentials");

    type Change = fn(&World, bool);
    let changes: [Change; 2] = [
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
    ];
    for change in changes {
        change(&world, true);
        assert_consent_required(issue().await, Some("SUSPENDED"));
        change(&world, false);
        issue().await.unwrap();
    }
    for tenant_id in ["globex", "nobody"] {
        let elsewhere = pb::IssueTokenRequest {
            tenant_id: tenant_id.into(),
            ..world.by_client_credentials()
        };
        assert_consent_required(world.issue(elsewhere).await, None);
    }
    world.revoke_consent(&grant_id).await;
    assert_consent_required(issue().await, Some("REVOKED"));
    world.set_client_tenant("globex");
    assert_consent_required(issue().await, None);
}

#[tokio::test]
async fn no_token_outlives_the_consent() {
    let world = World::start().await;
    let end = world.clock().now().plus(Duration::from_millis(400_900));
    let approved = world
        .approved(&world.client, |approval| {
            approval.expire_time = Some(end.to_timestamp())
        })
        .await;
    let code = world.by_code(&approved.authorization_code);
    let first = world.issue(code).await.unwrap();
    assert_eq!(first.expires_in, 300);
    world.clock().advance(Duration::from_secs(250));
    let second = world.refresh(&first.refresh_token).await.unwrap();
    let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
    assert_eq!((second.expires_in, by_itself.expires_in), (150, 150));
    let claims = verified(&world, &by_itself.access_token).await;
    assert_eq!(i64::from(claims.exp), end.as_secs());

    // Tokens count in whole seconds: in what is left of the last one there are none.
    world.clock().advance(Duration::from_millis(150_200));
    assert_invalid_grant(world.refresh(&second.refresh_token).await);
    let refused = world.issue(world.by_client_credentials()).await;
    assert_consent_required(refused, Some("EXPIRED"));
    world.clock().advance(Duration::from_millis(700));
    assert_invalid_grant(world.refresh(&second.refresh_token).await);
    let refused = world.issue(world.by_client_credentials()).await;
    assert_consent_required(refused, Some("EXPIRED"));
}
