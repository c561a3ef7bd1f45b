//! What ends tokens, and what does not.

use accord::{
    registry::v1 as reg,
    testing::calls::{assert_violations, ok},
    token::v1::{
        self as tok, introspect_token_request::ClientAuthentication as IntrospectProof,
        token_service_client::TokenServiceClient,
    },
};
use tonic::Code;

use crate::harness::{
    dev,
    partner::{Partner, Party, World, code_grant, own_grant, refresh_grant},
    refusal::{CONSENT_REQUIRED, INVALID_CLIENT, INVALID_GRANT, refused},
};

tests!(
    suspension_pauses_families_and_reinstatement_revives_no_access_token,
    a_compromised_secret_ends_all_tokens_and_a_rotated_one_none,
    clients_introspect_and_revoke_only_their_own_tokens,
    a_token_of_one_tenant_is_invalid_at_another,
);

async fn suspension_pauses_families_and_reinstatement_revives_no_access_token() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let mut tokens = world.first_tokens(&partner).await;
    for (party, refusal) in [
        (Party::Client(&partner), INVALID_CLIENT),
        (Party::Tenant, CONSENT_REQUIRED),
        (Party::User, CONSENT_REQUIRED),
    ] {
        world.suspend(party).await;
        world.ends(&tokens.access_token).await;
        assert!(!world.active(&tokens.refresh_token).await);
        for grant in [own_grant(), refresh_grant(&tokens.refresh_token)] {
            let metadata = refused(world.issue(&partner, grant).await, refusal);
            assert!(
                refusal == INVALID_CLIENT || metadata["state"] == "SUSPENDED",
                "{metadata:?}"
            );
        }
        world.reinstate(party).await;
        let ended = tokens.access_token;
        tokens = world
            .is_issued(&partner, refresh_grant(&tokens.refresh_token))
            .await;
        assert!(world.active(&tokens.access_token).await);
        assert!(!world.active(&ended).await, "it stays ended");
    }
    dev.stop().await.unwrap();
}

async fn a_compromised_secret_ends_all_tokens_and_a_rotated_one_none() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let request = reg::CreateClientSecretRequest {
        client_id: partner.client_id.clone(),
        ..Default::default()
    };
    let created = ok(world.clients().create_client_secret(request).await);
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

    let secret_id = accord::text::opaque::ClientSecret::parse(&partner.client_secret).unwrap();
    let revoke = |reason: reg::SecretRevocationReason, force| reg::RevokeClientSecretRequest {
        client_id: partner.client_id.clone(),
        secret_id: secret_id.secret_id().to_string(),
        reason: reason.into(),
        force,
    };
    let rotated = reg::SecretRevocationReason::Rotated;
    let in_use = world.clients().revoke_client_secret(revoke(rotated, false)).await;
    refused(in_use, (Code::FailedPrecondition, "SECRET_IN_USE"));
    ok(world.clients().revoke_client_secret(revoke(rotated, true)).await);
    world.is_refused(&partner, own_grant(), INVALID_CLIENT).await;
    assert!(world.active(&tokens.access_token).await);
    let tokens = world
        .issue(&renewed, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();

    let compromised = reg::SecretRevocationReason::Compromised;
    ok(world
        .clients()
        .revoke_client_secret(revoke(compromised, true))
        .await);
    world.ends(&tokens.access_token).await;
    assert!(!world.active(&tokens.refresh_token).await);
    let refresh = refresh_grant(&tokens.refresh_token);
    refused(world.issue(&renewed, refresh).await, INVALID_GRANT);
    assert!(
        world.issue(&renewed, own_grant()).await.is_ok(),
        "the grant is still active"
    );
    dev.stop().await.unwrap();
}

async fn clients_introspect_and_revoke_only_their_own_tokens() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let tokens = world.first_tokens(&partner).await;
    let ask = |partner: &Partner, token: &str| tok::IntrospectTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.into(),
        client_id: partner.client_id.clone(),
        client_authentication: Some(IntrospectProof::ClientSecret(partner.client_secret.clone())),
        ..Default::default()
    };
    for token in [&tokens.access_token, &tokens.refresh_token] {
        let own = ok(world.tokens().introspect_token(ask(&partner, token)).await);
        assert_eq!((own.active, &own.client_id), (Some(true), &partner.client_id));
        let foreign = ok(world.tokens().introspect_token(ask(&other, token)).await);
        assert_eq!(foreign.active, Some(false));
    }
    let mut nobody = ask(&partner, &tokens.access_token);
    (nobody.client_id, nobody.client_authentication) = (String::new(), None);
    let result = world.tokens().introspect_token(nobody).await;
    refused(result, (Code::Unauthenticated, "UNAUTHENTICATED"));
    let mut both = TokenServiceClient::new(world.workload.clone());
    let result = both.introspect_token(ask(&partner, "t")).await;
    assert_violations(result, &["client_id"]);
    let empty = tok::IntrospectTokenRequest::default();
    assert_violations(both.introspect_token(empty).await, &["tenant_id", "token"]);

    for token in [&tokens.access_token, &tokens.refresh_token, "unknown"] {
        world.revoke_token(&other, token).await;
    }
    assert!(world.active(&tokens.access_token).await && world.active(&tokens.refresh_token).await);

    // An access token ends alone; a refresh token with its family's access tokens; the grant never.
    let renewed = world
        .issue(&partner, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();
    for _ in 0..2 {
        world.revoke_token(&partner, &tokens.access_token).await;
    }
    assert!(!world.active(&tokens.access_token).await && world.active(&renewed.access_token).await);
    world.revoke_token(&partner, &renewed.refresh_token).await;
    assert!(!world.active(&renewed.access_token).await && !world.active(&renewed.refresh_token).await);
    assert!(world.issue(&partner, own_grant()).await.is_ok());
    dev.stop().await.unwrap();
}

async fn a_token_of_one_tenant_is_invalid_at_another() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    world.add_tenant("other-firm").await;
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

    // A tenant that does not exist looks like one that the client may not use.
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
