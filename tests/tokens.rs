//! Issuance, renewal, introspection and revocation, rule by rule, through both services.

use std::time::Duration;

use accord::{
    registry::v1::{
        self as reg, scope_service_client::ScopeServiceClient, tenant_service_client::TenantServiceClient,
    },
    status::ErrorReason,
    testing,
    token::v1::{
        self as tok, introspect_token_request::ClientAuthentication as IntrospectProof,
        issue_token_request::ClientAuthentication, revoke_token_request::ClientAuthentication as RevokeProof,
        signing_key_service_client::SigningKeyServiceClient, token_service_client::TokenServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::Code;

use crate::harness::{
    dev,
    partner::{
        Partner, REDIRECT_URI, World, assert_refused, code_grant, metadata, own_grant, refresh_grant,
        violations,
    },
    services::Services,
};

fn claims(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header(token: &str) -> serde_json::Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

const INVALID_GRANT: (Code, ErrorReason) = (Code::FailedPrecondition, ErrorReason::InvalidGrant);
const INVALID_CLIENT: (Code, ErrorReason) = (Code::Unauthenticated, ErrorReason::InvalidClient);
const CONSENT_REQUIRED: (Code, ErrorReason) = (Code::PermissionDenied, ErrorReason::ConsentRequired);

#[track_caller]
fn refused<T>(result: Result<T, tonic::Status>, (code, reason): (Code, ErrorReason)) {
    assert_refused(result, code, reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_says_what_rfc_9068_and_the_design_ask_for() {
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
    let own = self::claims(&own.access_token);
    assert!(own.get("family_id").is_none());
    assert_eq!(
        own["sub"], claims["sub"],
        "the grant is run-as, for client credentials too"
    );

    let told = world.introspect(&issued.access_token).await;
    assert_eq!(told.active, Some(true));
    assert_eq!(told.sub, claims["sub"].as_str().unwrap());
    assert_eq!((told.iat as i64, told.exp as i64), (now, now + 300));
    assert_eq!(told.token_type, "Bearer");
    clock.advance(Duration::from_secs(300));
    let told = world.introspect(&issued.access_token).await;
    let nothing = tok::IntrospectTokenResponse {
        active: Some(false),
        ..Default::default()
    };
    assert_eq!(told, nothing, "an inactive token has no other field set");
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_proven_gets_one_answer() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let mut changed = partner.client_secret.clone();
    let last = if changed.ends_with('0') { '1' } else { '0' };
    changed.pop();
    changed.push(last);
    let attempts = [
        (partner.client_id.clone(), other.client_secret.clone()),
        (other.client_id.clone(), partner.client_secret.clone()),
        (
            "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
            partner.client_secret.clone(),
        ),
        (partner.client_id.clone(), changed),
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

#[tokio::test(flavor = "multi_thread")]
async fn every_violation_of_a_message_comes_back_at_once() {
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
    let fields = violations(world.tokens().issue_token(request).await);
    let expected = [
        "tenant_id",
        "scopes[1]",
        "scopes[2]",
        "resource",
        "authorization_code.code",
        "authorization_code.redirect_uri",
        "authorization_code.code_verifier",
    ];
    assert_eq!(fields, expected);

    let partner = world.partner().await;
    let mut request = world.token_request(&partner, own_grant());
    request.grant = None;
    let result = world.tokens().issue_token(request).await;
    refused(result, (Code::InvalidArgument, ErrorReason::UnsupportedGrantType));
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_once_for_its_client_with_its_verifier_in_time() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);

    // Another client's attempt leaves the code as it is.
    let approved = world.approve(&partner).await;
    refused(world.issue(&other, code_grant(&approved)).await, INVALID_GRANT);
    let issued = world.issue(&partner, code_grant(&approved)).await.unwrap();
    assert_eq!(issued.grant_id, approved.grant_id);

    // A second use ends the first one's tokens, and that stays although the call fails.
    assert!(world.active(&issued.access_token).await);
    refused(world.issue(&partner, code_grant(&approved)).await, INVALID_GRANT);
    assert!(!world.active(&issued.access_token).await);
    assert!(!world.active(&issued.refresh_token).await);
    refused(
        world.issue(&partner, refresh_grant(&issued.refresh_token)).await,
        INVALID_GRANT,
    );
    assert!(
        world.issue(&partner, own_grant()).await.is_ok(),
        "the grant itself stands"
    );

    // A wrong verifier, or redirect URI, burns the code.
    for (redirect_uri, verifier) in [
        (REDIRECT_URI, "w".repeat(43)),
        (REDIRECT_URI, "v".repeat(42)),
        ("https://app.example/callback/", "v".repeat(43)),
    ] {
        let approved = world.approve(&partner).await;
        let wrong = tok::issue_token_request::Grant::AuthorizationCode(tok::AuthorizationCodeGrant {
            code: approved.code.clone(),
            redirect_uri: redirect_uri.into(),
            code_verifier: verifier,
        });
        refused(world.issue(&partner, wrong).await, INVALID_GRANT);
        refused(world.issue(&partner, code_grant(&approved)).await, INVALID_GRANT);
    }

    let approved = world.approve(&partner).await;
    clock.advance(Duration::from_secs(60));
    refused(world.issue(&partner, code_grant(&approved)).await, INVALID_GRANT);
    for code in [
        "acc_",
        "x",
        "acc_0000000000000000000000000000000000000000000000000",
    ] {
        let mut unknown = approved.clone();
        unknown.code = code.into();
        refused(world.issue(&partner, code_grant(&unknown)).await, INVALID_GRANT);
    }
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_grant_is_no_grant_and_a_new_one_supersedes_the_old() {
    let (_directory, dev, _clock) = dev::start_with_clock().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_follow_their_generations() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let first = world.first_tokens(&partner).await;
    let second = world
        .issue(&partner, refresh_grant(&first.refresh_token))
        .await
        .unwrap();
    assert_ne!(first.refresh_token, second.refresh_token);

    // A lost answer: the immediate predecessor gets the same successor, within 30 seconds.
    clock.advance(Duration::from_secs(30));
    let again = world
        .issue(&partner, refresh_grant(&first.refresh_token))
        .await
        .unwrap();
    assert_eq!(again.refresh_token, second.refresh_token);

    // Forged tokens, and another client's, have no effect.
    refused(
        world.issue(&other, refresh_grant(&second.refresh_token)).await,
        INVALID_GRANT,
    );
    let parsed = accord::opaque::RefreshToken::parse(&second.refresh_token).unwrap();
    for (generation, mac) in [(2, [0; 32]), (1, [7; 32]), (3, *parsed.mac())] {
        let forged = accord::opaque::RefreshToken::compose(parsed.family(), generation, &mac);
        refused(
            world.issue(&partner, refresh_grant(forged.expose())).await,
            INVALID_GRANT,
        );
    }
    let third = world
        .issue(&partner, refresh_grant(&second.refresh_token))
        .await
        .unwrap();

    // Two generations old: somebody else has it, and the family ends.
    assert!(world.active(&third.access_token).await && world.active(&third.refresh_token).await);
    refused(
        world.issue(&partner, refresh_grant(&first.refresh_token)).await,
        INVALID_GRANT,
    );
    refused(
        world.issue(&partner, refresh_grant(&third.refresh_token)).await,
        INVALID_GRANT,
    );
    assert!(!world.active(&third.access_token).await && !world.active(&third.refresh_token).await);
    assert!(
        world.issue(&partner, own_grant()).await.is_ok(),
        "the grant itself stands"
    );

    // The predecessor after its 30 seconds ends the family too.
    let first = world.first_tokens(&partner).await;
    let second = world
        .issue(&partner, refresh_grant(&first.refresh_token))
        .await
        .unwrap();
    clock.advance(Duration::from_millis(30_001));
    refused(
        world.issue(&partner, refresh_grant(&first.refresh_token)).await,
        INVALID_GRANT,
    );
    refused(
        world.issue(&partner, refresh_grant(&second.refresh_token)).await,
        INVALID_GRANT,
    );

    // Families have an absolute end.
    let mut latest = world.first_tokens(&partner).await;
    clock.advance(Duration::from_secs(89 * 24 * 3600));
    latest = world
        .issue(&partner, refresh_grant(&latest.refresh_token))
        .await
        .unwrap();
    clock.advance(Duration::from_secs(24 * 3600));
    refused(
        world.issue(&partner, refresh_grant(&latest.refresh_token)).await,
        INVALID_GRANT,
    );
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_callers_move_a_family_once_and_redeem_a_code_once() {
    let (registry, token) = (testing::databases(), testing::databases());
    for (registry, token) in registry.iter().zip(&token) {
        let services = Services::start(&registry.url, &token.url).await;
        let world = World::new(&services.target);
        let partner = world.partner().await;
        let first = world.first_tokens(&partner).await;

        let racing = (0..16).map(|_| {
            let (world, partner, token) = (world.clone(), partner.clone(), first.refresh_token.clone());
            tokio::spawn(async move { world.issue(&partner, refresh_grant(&token)).await })
        });
        let mut successors = Vec::new();
        for race in racing.collect::<Vec<_>>() {
            successors.push(race.await.unwrap().unwrap().refresh_token);
        }
        successors.dedup();
        assert_eq!(successors.len(), 1, "{}", registry.label);
        let parsed = accord::opaque::RefreshToken::parse(&successors[0]).unwrap();
        assert_eq!(parsed.generation(), 2, "{}", registry.label);

        let approved = world.approve(&partner).await;
        let racing = (0..8).map(|_| {
            let (world, partner, approved) = (world.clone(), partner.clone(), approved.clone());
            tokio::spawn(async move { world.issue(&partner, code_grant(&approved)).await })
        });
        let mut won = 0;
        for race in racing.collect::<Vec<_>>() {
            match race.await.unwrap() {
                Ok(_) => won += 1,
                Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
            }
        }
        // A loser's attempt counts as a replay, which may end the winner's tokens before they leave.
        assert!(won <= 1, "{}: {won} callers redeemed one code", registry.label);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_and_resource_are_held_to_what_was_granted() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let first = world.first_tokens(&partner).await;

    let mut narrow = world.token_request(&partner, refresh_grant(&first.refresh_token));
    narrow.scopes = vec!["matters.read".into()];
    narrow.resource = world.target.cloud_api_url.clone();
    let narrowed = world.tokens().issue_token(narrow).await.unwrap().into_inner();
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
        refused(result, (Code::InvalidArgument, ErrorReason::InvalidScope));
    }
    let mut elsewhere = world.token_request(&partner, refresh_grant(&wide.refresh_token));
    elsewhere.resource = format!("{}/", world.target.cloud_api_url);
    let result = world.tokens().issue_token(elsewhere).await;
    refused(result, (Code::InvalidArgument, ErrorReason::InvalidTarget));

    // A refused call does not use the refresh token up; a scope that is disabled drops out.
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
    scopes.update_scope(update(false)).await.unwrap();
    let reduced = world
        .issue(&partner, refresh_grant(&wide.refresh_token))
        .await
        .unwrap();
    assert_eq!(reduced.scope, "matters.read");
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_pauses_families_and_reinstatement_revives_no_access_token() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let mut tokens = world.first_tokens(&partner).await;
    let tenant_id = world.target.tenant_id.clone();
    let user_id = claims(&tokens.access_token)["sub"].as_str().unwrap().to_owned();
    let mut tenants = TenantServiceClient::new(world.operator.clone());

    for party in ["client", "tenant", "user"] {
        let (client_id, tenant_id, user_id) = (partner.client_id.clone(), tenant_id.clone(), user_id.clone());
        match party {
            "client" => drop(
                world
                    .clients()
                    .suspend_client(reg::SuspendClientRequest { client_id })
                    .await
                    .unwrap(),
            ),
            "tenant" => drop(
                tenants
                    .suspend_tenant(reg::SuspendTenantRequest { tenant_id })
                    .await
                    .unwrap(),
            ),
            _ => {
                let request = reg::DeactivateUserRequest { tenant_id, user_id };
                drop(world.users().deactivate_user(request).await.unwrap());
            }
        }
        assert!(!world.active(&tokens.access_token).await, "{party}");
        assert!(!world.active(&tokens.refresh_token).await, "{party}");
        for grant in [own_grant(), refresh_grant(&tokens.refresh_token)] {
            let result = world.issue(&partner, grant).await;
            if party == "client" {
                refused(result, INVALID_CLIENT);
            } else {
                assert_eq!(metadata(result.clone(), "state"), "SUSPENDED", "{party}");
                refused(result, CONSENT_REQUIRED);
            }
        }
        let (client_id, tenant_id, user_id) = (
            partner.client_id.clone(),
            world.target.tenant_id.clone(),
            user_id_of(&tokens.access_token),
        );
        match party {
            "client" => {
                drop(
                    world
                        .clients()
                        .reinstate_client(reg::ReinstateClientRequest { client_id })
                        .await
                        .unwrap(),
                );
            }
            "tenant" => drop(
                tenants
                    .reinstate_tenant(reg::ReinstateTenantRequest { tenant_id })
                    .await
                    .unwrap(),
            ),
            _ => {
                let request = reg::ReactivateUserRequest { tenant_id, user_id };
                drop(world.users().reactivate_user(request).await.unwrap());
            }
        }
        assert!(
            !world.active(&tokens.access_token).await,
            "{party}: it must stay ended"
        );
        tokens = world
            .issue(&partner, refresh_grant(&tokens.refresh_token))
            .await
            .unwrap();
        assert!(world.active(&tokens.access_token).await, "{party}");
    }
    dev.stop().await.unwrap();
}

fn user_id_of(access_token: &str) -> String {
    claims(access_token)["sub"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromised_secret_ends_everything_and_a_rotated_one_nothing() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let request = reg::CreateClientSecretRequest {
        client_id: partner.client_id.clone(),
        ..Default::default()
    };
    let created = world
        .clients()
        .create_client_secret(request)
        .await
        .unwrap()
        .into_inner();
    let Some(reg::create_client_secret_response::Credentials::Bundle(bundle)) = created.credentials else {
        panic!("no bundle");
    };
    let renewed = Partner {
        client_secret: bundle.client_secret,
        ..partner.clone()
    };
    assert!(
        world.issue(&renewed, own_grant()).await.is_ok() && world.issue(&partner, own_grant()).await.is_ok()
    );

    let secret_id = accord::opaque::ClientSecret::parse(&partner.client_secret)
        .unwrap()
        .secret_id()
        .to_string();
    let revoke =
        |secret_id: &str, reason: reg::SecretRevocationReason, force| reg::RevokeClientSecretRequest {
            client_id: partner.client_id.clone(),
            secret_id: secret_id.into(),
            reason: reason.into(),
            force,
        };
    let rotated = reg::SecretRevocationReason::Rotated;
    let in_use = world
        .clients()
        .revoke_client_secret(revoke(&secret_id, rotated, false))
        .await;
    refused(in_use, (Code::FailedPrecondition, ErrorReason::SecretInUse));
    world
        .clients()
        .revoke_client_secret(revoke(&secret_id, rotated, true))
        .await
        .unwrap();
    refused(world.issue(&partner, own_grant()).await, INVALID_CLIENT);
    assert!(world.active(&tokens.access_token).await);
    let tokens = world
        .issue(&renewed, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();

    let compromised = reg::SecretRevocationReason::Compromised;
    world
        .clients()
        .revoke_client_secret(revoke(&secret_id, compromised, true))
        .await
        .unwrap();
    assert!(!world.active(&tokens.access_token).await && !world.active(&tokens.refresh_token).await);
    refused(
        world.issue(&renewed, refresh_grant(&tokens.refresh_token)).await,
        INVALID_GRANT,
    );
    assert!(
        world.issue(&renewed, own_grant()).await.is_ok(),
        "the grant itself stands"
    );
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_and_revoke_their_own_tokens_alone() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let tokens = world.first_tokens(&partner).await;
    let ask = |partner: &Partner, token: &str| tok::IntrospectTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.into(),
        client_id: partner.client_id.clone(),
        client_authentication: Some(IntrospectProof::ClientSecret(partner.client_secret.clone())),
    };
    for token in [&tokens.access_token, &tokens.refresh_token] {
        let own = world
            .tokens()
            .introspect_token(ask(&partner, token))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (own.active, own.client_id.as_str()),
            (Some(true), partner.client_id.as_str())
        );
        let foreign = world
            .tokens()
            .introspect_token(ask(&other, token))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(foreign.active, Some(false));
    }
    let mut nobody = ask(&partner, &tokens.access_token);
    (nobody.client_id, nobody.client_authentication) = (String::new(), None);
    let result = world.tokens().introspect_token(nobody).await;
    refused(result, (Code::Unauthenticated, ErrorReason::Unauthenticated));
    let mut both = TokenServiceClient::new(world.workload.clone());
    assert_eq!(
        violations(both.introspect_token(ask(&partner, "t")).await),
        ["client_id"]
    );
    assert_eq!(
        violations(
            both.introspect_token(tok::IntrospectTokenRequest::default())
                .await
        ),
        ["tenant_id", "token"]
    );

    let revoke = |partner: &Partner, token: &str| tok::RevokeTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.into(),
        client_id: partner.client_id.clone(),
        client_authentication: Some(RevokeProof::ClientSecret(partner.client_secret.clone())),
    };
    for token in [&tokens.access_token, &tokens.refresh_token, "unknown"] {
        world.tokens().revoke_token(revoke(&other, token)).await.unwrap();
    }
    assert!(world.active(&tokens.access_token).await && world.active(&tokens.refresh_token).await);

    // An access token ends alone; a refresh token with its family's access tokens; the grant never.
    let renewed = world
        .issue(&partner, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();
    for _ in 0..2 {
        world
            .tokens()
            .revoke_token(revoke(&partner, &tokens.access_token))
            .await
            .unwrap();
    }
    assert!(!world.active(&tokens.access_token).await && world.active(&renewed.access_token).await);
    world
        .tokens()
        .revoke_token(revoke(&partner, &renewed.refresh_token))
        .await
        .unwrap();
    assert!(!world.active(&renewed.access_token).await && !world.active(&renewed.refresh_token).await);
    assert!(world.issue(&partner, own_grant()).await.is_ok());
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_tenant_is_nothing_at_another() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let mut tenants = TenantServiceClient::new(world.operator.clone());
    let request = reg::CreateTenantRequest {
        tenant_id: "other-firm".into(),
        display_name: "Other".into(),
        cloud_api_url: "https://api.other.example".into(),
        ..Default::default()
    };
    tenants.create_tenant(request).await.unwrap();
    let partner = world.partner_of(&[&world.target.tenant_id, "other-firm"]).await;
    let approved = world.approve(&partner).await;
    let mut elsewhere = world.clone();
    elsewhere.target.tenant_id = "other-firm".into();
    refused(
        elsewhere.issue(&partner, code_grant(&approved)).await,
        INVALID_GRANT,
    );
    let tokens = world.issue(&partner, code_grant(&approved)).await.unwrap();
    refused(
        elsewhere
            .issue(&partner, refresh_grant(&tokens.refresh_token))
            .await,
        INVALID_GRANT,
    );
    refused(elsewhere.issue(&partner, own_grant()).await, CONSENT_REQUIRED);
    assert!(!elsewhere.active(&tokens.access_token).await && !elsewhere.active(&tokens.refresh_token).await);
    assert!(world.active(&tokens.access_token).await && world.active(&tokens.refresh_token).await);

    // A tenant that does not exist, or that the client may not ask, looks the same.
    let mut unknown = world.clone();
    unknown.target.tenant_id = "no-such-firm".into();
    let stranger = world.partner().await;
    for (world, partner) in [(&unknown, &partner), (&elsewhere, &stranger)] {
        refused(world.issue(partner, own_grant()).await, CONSENT_REQUIRED);
        refused(
            world.issue(partner, refresh_grant(&tokens.refresh_token)).await,
            INVALID_GRANT,
        );
    }
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_published_before_use_and_a_revoked_one_ends_its_tokens() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
    let published = async || {
        let url = format!("{}/jwks.json", world.target.tenant_authority_url);
        let document: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let kids = document["keys"].as_array().unwrap().iter();
        kids.map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first_kid = header(&tokens.access_token)["kid"].as_str().unwrap().to_owned();
    let before = published().await;
    assert_eq!(before.len(), 2);
    assert!(before.contains(&first_kid));

    let request = tok::RotateSigningKeyRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let rotated = keys
        .rotate_signing_key(request.clone())
        .await
        .unwrap()
        .into_inner()
        .signing_key
        .unwrap();
    assert!(
        before.contains(&rotated.kid) && rotated.kid != first_kid,
        "published before its first use"
    );
    let again = keys
        .rotate_signing_key(request)
        .await
        .unwrap()
        .into_inner()
        .signing_key
        .unwrap();
    assert_eq!(again.kid, rotated.kid, "a repeated call rotates once");
    assert!(published().await.contains(&first_kid) && world.active(&tokens.access_token).await);
    let renewed = world
        .issue(&partner, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();
    assert_eq!(header(&renewed.access_token)["kid"], rotated.kid.as_str());

    let revoke = |kid: &str| tok::RevokeSigningKeyRequest {
        kid: kid.into(),
        reason: "It was on a stolen laptop.".into(),
    };
    for _ in 0..2 {
        let revoked = keys
            .revoke_signing_key(revoke(&rotated.kid))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            revoked.signing_key.unwrap().state(),
            tok::SigningKeyState::Revoked
        );
    }
    assert!(!published().await.contains(&rotated.kid));
    assert!(!world.active(&renewed.access_token).await && world.active(&tokens.access_token).await);
    let after = world
        .issue(&partner, refresh_grant(&renewed.refresh_token))
        .await
        .unwrap();
    assert!(world.active(&after.access_token).await);

    clock.advance(Duration::from_secs(16 * 60));
    assert!(
        !published().await.contains(&first_kid),
        "a retired key goes when its last token has ended"
    );
    let result = keys.revoke_signing_key(revoke("no-such-key")).await;
    refused(result, (Code::NotFound, ErrorReason::NotFound));
    assert_eq!(
        violations(
            keys.revoke_signing_key(tok::RevokeSigningKeyRequest::default())
                .await
        ),
        ["kid", "reason"]
    );
    dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_the_same_at_each_of_its_places() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let (base, issuer, tenant) = (
        &world.target.http_url,
        &world.target.tenant_authority_url,
        &world.target.tenant_id,
    );
    let mut documents = Vec::new();
    for url in [
        format!("{base}/.well-known/oauth-authorization-server/{tenant}"),
        format!("{issuer}/.well-known/oauth-authorization-server"),
        format!("{issuer}/.well-known/openid-configuration"),
    ] {
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        documents.push(answer.json::<serde_json::Value>().await.unwrap());
    }
    assert_eq!(documents[0]["issuer"], issuer.as_str());
    assert_eq!(documents[0]["jwks_uri"], format!("{issuer}/jwks.json"));
    assert!(documents.windows(2).all(|pair| pair[0] == pair[1]));
    let request = tok::GetAuthorityMetadataRequest {
        tenant_id: tenant.clone(),
    };
    let told = world
        .tokens()
        .get_authority_metadata(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.issuer, *issuer);
    assert_eq!(told.code_challenge_methods_supported, ["S256"]);

    for missing in [
        "no-such-firm/jwks.json",
        "Bad%20Id/jwks.json",
        "no-such-firm/.well-known/openid-configuration",
    ] {
        let answer = reqwest::get(format!("{base}/{missing}")).await.unwrap();
        assert_eq!(answer.status(), 404, "{missing}");
    }
    let result = world
        .tokens()
        .list_revocations(tok::ListRevocationsRequest::default())
        .await;
    refused(result, (Code::Unauthenticated, ErrorReason::Unauthenticated));
    let mut tokens = TokenServiceClient::new(world.workload.clone());
    let snapshot = tokens
        .list_revocations(tok::ListRevocationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(snapshot.snapshot && !snapshot.more && snapshot.revocations.is_empty());
    dev.stop().await.unwrap();
}
