//! What ends tokens, and what does not.

use accord::{
    registry::v1::{self as reg, tenant_service_client::TenantServiceClient},
    rpc::status::ErrorReason,
    token::v1::{
        self as tok, introspect_token_request::ClientAuthentication as IntrospectProof,
        revoke_token_request::ClientAuthentication as RevokeProof, token_service_client::TokenServiceClient,
    },
};
use tonic::Code;

use super::{CONSENT_REQUIRED, INVALID_CLIENT, INVALID_GRANT, claims, refused};
use crate::harness::{
    dev,
    partner::{Partner, World, code_grant, metadata, own_grant, refresh_grant, violations},
};

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
                    .suspend_client(reg::SuspendClientRequest {
                        client_id,
                        ..Default::default()
                    })
                    .await
                    .unwrap(),
            ),
            "tenant" => drop(
                tenants
                    .suspend_tenant(reg::SuspendTenantRequest {
                        tenant_id,
                        ..Default::default()
                    })
                    .await
                    .unwrap(),
            ),
            _ => {
                let request = reg::DeactivateUserRequest {
                    tenant_id,
                    user_id,
                    ..Default::default()
                };
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

    let secret_id = accord::text::opaque::ClientSecret::parse(&partner.client_secret)
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
        ..Default::default()
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
