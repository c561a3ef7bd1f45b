//! `TokenService.IntrospectToken`: what a token is for.

use std::time::Duration;

use accord::{
    clock::Clock,
    token::v1::{self as pb, introspect_token_request::ClientAuthentication as IntrospectProof},
    verify::{AccessTokenClaims, key_id},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{assert_rejected, assert_violations, ok},
    world::{TestClient, World},
};

fn asking(token: &str) -> pb::IntrospectTokenRequest {
    pb::IntrospectTokenRequest {
        tenant_id: "acme".into(),
        token: token.into(),
        ..Default::default()
    }
}

async fn introspect_as(world: &World, client: &TestClient, token: &str) -> pb::IntrospectTokenResponse {
    let request = client.introspecting(token);
    ok(world.tokens().introspect_token(request).await)
}

async fn introspect(
    world: &World,
    request: pb::IntrospectTokenRequest,
) -> Result<pb::IntrospectTokenResponse, Status> {
    Ok(world
        .internal_tokens()
        .introspect_token(request)
        .await?
        .into_inner())
}

#[tokio::test]
async fn an_active_token_has_all_its_fields() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    world.clock().advance(Duration::from_secs(10));
    let tokens = world.refresh(&first.refresh_token).await.unwrap();
    let now = u32::try_from(world.clock().now().as_secs()).unwrap();
    let access = world.introspect(&tokens.access_token).await;
    assert!(!access.jti.is_empty());
    let expected = pb::IntrospectTokenResponse {
        active: Some(true),
        scope: "contacts.read contacts.write".into(),
        client_id: world.client_id.clone(),
        sub: world.api_user_id.clone(),
        aud: world.cloud_api_url.clone(),
        iss: world.issuer.clone(),
        exp: now + 300,
        iat: now,
        jti: access.jti.clone(),
        token_type: "Bearer".into(),
        tenant_id: "acme".into(),
        grant_id: tokens.grant_id.clone(),
        cnf: None,
    };
    assert_eq!(access, expected);
    let refresh = pb::IntrospectTokenResponse {
        exp: now + 30 * 24 * 3600,
        jti: String::new(),
        token_type: "refresh_token".into(),
        ..expected
    };
    assert_eq!(world.introspect(&tokens.refresh_token).await, refresh);
    assert!(
        !world.is_active(&first.refresh_token).await,
        "that one is used up"
    );

    world.clock().advance(Duration::from_millis(299_999));
    assert!(world.is_active(&tokens.access_token).await);
    world.clock().advance(Duration::from_millis(1));
    assert!(!world.is_active(&tokens.access_token).await);
    assert!(world.is_active(&tokens.refresh_token).await);
}

#[tokio::test]
async fn anything_but_a_token_of_the_tenant_is_inactive() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let access = &tokens.access_token;
    let (unsigned, _) = access.rsplit_once('.').unwrap();
    let other_signature = format!("{unsigned}.{}", "A".repeat(86));
    for token in ["x", "a.b.c", unsigned, &other_signature, &format!("{access}A")] {
        assert!(!world.is_active(token).await, "{token}");
    }
    let refresh = &tokens.refresh_token;
    assert!(!world.is_active(&refresh[..refresh.len() - 1]).await);
    for tenant_id in ["globex", "nobody"] {
        for token in [access, refresh] {
            let elsewhere = pb::IntrospectTokenRequest {
                tenant_id: tenant_id.into(),
                ..asking(token)
            };
            let answer = introspect(&world, elsewhere).await.unwrap();
            assert_eq!(answer.active, Some(false), "{tenant_id}");
        }
    }
    assert!(world.is_active(access).await && world.is_active(refresh).await);
}

/// Reads the claims of a token without checking it.
fn claims(token: &str) -> AccessTokenClaims {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_signature_is_trusted_no_further_than_the_grant() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let kid = key_id(&tokens.access_token).unwrap();
    let own = claims(&tokens.access_token);
    assert!(
        world.is_active(&world.forge(&kid, &own).await).await,
        "the key is the right one"
    );

    let other_client = world.new_client(&["acme"]).client_id;
    let with = |change: &dyn Fn(&mut AccessTokenClaims)| {
        let mut forged = own.clone();
        change(&mut forged);
        forged
    };
    for (what, forged) in [
        ("sub", with(&|claims| claims.sub = world.second_user_id.clone())),
        ("sub", with(&|claims| claims.sub = world.admin_id.clone())),
        (
            "client_id",
            with(&|claims| claims.client_id = other_client.clone()),
        ),
        (
            "scope",
            with(&|claims| claims.scope.push_str(" admin.everything")),
        ),
        ("scope", with(&|claims| claims.scope.clear())),
        (
            "family_id",
            with(&|claims| claims.family_id = Some("fam_other".into())),
        ),
        (
            "grant_id",
            with(&|claims| claims.grant_id = "grt_01kq0000000000000000000000".into()),
        ),
        ("exp", with(&|claims| claims.exp = claims.iat + 901)),
        ("exp", with(&|claims| claims.exp = u32::MAX)),
        (
            "iat",
            with(&|claims| (claims.iat, claims.exp) = (claims.iat + 3600, claims.exp + 3600)),
        ),
        ("iss", with(&|claims| claims.iss.push('x'))),
        ("aud", with(&|claims| claims.aud.push('x'))),
        ("tenant_id", with(&|claims| claims.tenant_id = "globex".into())),
        ("rev", with(&|claims| claims.rev = "a-b.1.1".into())),
    ] {
        let token = world.forge(&kid, &forged).await;
        assert!(!world.is_active(&token).await, "{what}: {forged:?}");
    }
    assert!(world.is_active(&tokens.access_token).await);
}

#[tokio::test]
async fn a_signing_key_counts_until_it_is_no_longer_published() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let old = key_id(&tokens.access_token).unwrap();
    world.rotate_signing_keys().await;
    let fresh = async |kid: &str| {
        let now = u32::try_from(world.clock().now().as_secs()).unwrap();
        let mut forged = claims(&tokens.access_token);
        (forged.iat, forged.exp) = (now, now + 300);
        world.is_active(&world.forge(kid, &forged).await).await
    };
    assert!(fresh(&old).await, "its last tokens have not expired");
    world.clock().advance(Duration::from_secs(16 * 60 - 1));
    assert!(fresh(&old).await);
    world.clock().advance(Duration::from_secs(1));
    assert!(!fresh(&old).await);
    let active = world.signing_keys(pb::SigningKeyState::Active).await;
    assert!(fresh(&active[0].kid).await);
}

#[tokio::test]
async fn a_client_sees_its_own_tokens_alone() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let stranger = world.new_client(&["acme"]);
    for token in [&tokens.access_token, &tokens.refresh_token] {
        let own = introspect_as(&world, &world.client, token).await;
        assert_eq!(own, world.introspect(token).await);
        assert_eq!(own.active, Some(true));
        let foreign = introspect_as(&world, &stranger, token).await;
        let nothing = pb::IntrospectTokenResponse {
            active: Some(false),
            ..Default::default()
        };
        assert_eq!(foreign, nothing);
    }
}

#[tokio::test]
async fn an_introspection_needs_one_proof_and_every_field() {
    let world = World::start().await;
    let token = world.first_tokens().await.access_token;
    let bad = pb::IntrospectTokenRequest {
        tenant_id: "A".into(),
        token: String::new(),
        client_id: world.client_id.clone(),
        client_authentication: None,
        ..Default::default()
    };
    assert_violations(
        introspect(&world, bad).await,
        &["tenant_id", "token", "client_id"],
    );
    let twice = world.client.introspecting(&token);
    assert_violations(introspect(&world, twice).await, &["client_id"]);

    let anonymous = async |request| world.tokens().introspect_token(request).await.map(drop);
    assert_rejected(
        anonymous(asking(&token)).await,
        Code::Unauthenticated,
        "UNAUTHENTICATED",
    );
    let own = world.client.introspecting(&token);
    let other = world.new_client(&["acme"]);
    for proof in [
        None,
        Some(IntrospectProof::ClientSecret("x".into())),
        Some(IntrospectProof::ClientSecret(other.client_secret)),
    ] {
        let unproven = pb::IntrospectTokenRequest {
            client_authentication: proof,
            ..own.clone()
        };
        assert_rejected(anonymous(unproven).await, Code::Unauthenticated, "INVALID_CLIENT");
    }
    let assertion = pb::IntrospectTokenRequest {
        client_authentication: Some(IntrospectProof::ClientAssertion("x".into())),
        ..own
    };
    assert_rejected(
        anonymous(assertion).await,
        Code::Unauthenticated,
        "INVALID_CLIENT",
    );
}

#[tokio::test]
async fn without_the_registry_nothing_is_called_active_or_inactive() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    world.registry().set_unavailable(true);
    for token in [&tokens.access_token, &tokens.refresh_token, "x"] {
        let status = introspect(&world, asking(token)).await.unwrap_err();
        assert!(status.get_details_retry_info().is_some());
        assert_rejected::<()>(Err(status), Code::Unavailable, "UNAVAILABLE");
    }
    world.registry().set_unavailable(false);
    assert!(world.is_active(&tokens.access_token).await);
}

#[tokio::test]
async fn a_suspension_ends_access_tokens_and_pauses_refresh_tokens() {
    let world = World::start().await;
    type Change = fn(&World, bool);
    let changes: [Change; 3] = [
        |world, on| world.suspend("client", on),
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let tokens = world.first_tokens().await;
        let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
        for on in [true, false] {
            change(&world, on);
            for token in [&tokens.access_token, &by_itself.access_token] {
                assert!(
                    !world.is_active(token).await,
                    "reinstatement revives none: {index}"
                );
            }
            assert_eq!(world.is_active(&tokens.refresh_token).await, !on, "{index}");
        }
        let next = world.refresh(&tokens.refresh_token).await.unwrap();
        assert!(world.is_active(&next.access_token).await);
    }
}

#[tokio::test]
async fn a_scope_that_a_client_lost_is_missing_from_its_tokens() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
    let all = [
        &tokens.access_token,
        &tokens.refresh_token,
        &by_itself.access_token,
    ];
    let without = |name: &'static str| {
        world.change_client(|client| client.scopes.retain(|scope| scope.name != name));
    };
    without("contacts.write");
    for token in all {
        let answer = world.introspect(token).await;
        assert_eq!(
            (answer.active, answer.scope.as_str()),
            (Some(true), "contacts.read")
        );
    }
    without("contacts.read");
    for token in all {
        assert!(!world.is_active(token).await, "nothing is left of it");
    }
}

#[tokio::test]
async fn a_new_epoch_of_the_registry_ends_every_older_token() {
    let world = World::start().await;
    let old = world.first_tokens().await;
    let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
    world.start_registry_epoch();
    for token in [&old.access_token, &old.refresh_token, &by_itself.access_token] {
        assert!(!world.is_active(token).await);
    }
    let new = world.issue(world.by_client_credentials()).await.unwrap();
    assert!(world.is_active(&new.access_token).await);
}
