//! The documents of an authority: keys, metadata, and the feed of revocations.

use std::time::Duration;

use accord::{
    testing::calls::{assert_violations, ok},
    token::v1::{
        self as tok, signing_key_service_client::SigningKeyServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use tonic::Code;

use super::header;
use crate::harness::{
    dev,
    partner::{World, refresh_grant},
    refusal::{NOT_FOUND, refused},
};

tests!(
    keys_are_published_before_use_and_a_revoked_one_ends_its_tokens,
    metadata_is_the_same_at_each_of_its_urls,
);

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
        ..Default::default()
    };
    let early = keys.rotate_signing_key(request.clone()).await;
    refused(early, (Code::FailedPrecondition, "KEY_NOT_YET_PUBLISHED"));
    let request = tok::RotateSigningKeyRequest {
        force: true,
        ..request
    };
    let rotated = ok(keys.rotate_signing_key(request.clone()).await)
        .signing_key
        .unwrap();
    assert!(
        before.contains(&rotated.kid) && rotated.kid != first_kid,
        "published before its first use"
    );
    let again = ok(keys.rotate_signing_key(request).await).signing_key.unwrap();
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
        let revoked = ok(keys.revoke_signing_key(revoke(&rotated.kid)).await);
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
    refused(keys.revoke_signing_key(revoke("no-such-key")).await, NOT_FOUND);
    let empty = tok::RevokeSigningKeyRequest::default();
    assert_violations(keys.revoke_signing_key(empty).await, &["kid", "reason"]);
    dev.stop().await.unwrap();
}

async fn metadata_is_the_same_at_each_of_its_urls() {
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
    let published = ok(world.tokens().get_authority_metadata(request).await);
    assert_eq!(published.issuer, *issuer);
    assert_eq!(published.code_challenge_methods_supported, ["S256"]);

    for missing in [
        "no-such-firm/jwks.json",
        "Bad%20Id/jwks.json",
        "%FF/jwks.json",
        "no-such-firm/.well-known/openid-configuration",
    ] {
        let answer = reqwest::get(format!("{base}/{missing}")).await.unwrap();
        assert_eq!(answer.status(), 404, "{missing}");
        let body: serde_json::Value = answer.json().await.unwrap();
        assert!(body["error"].is_string(), "{missing}");
    }
    let result = world
        .tokens()
        .list_revocations(tok::ListRevocationsRequest::default())
        .await;
    refused(result, (Code::Unauthenticated, "UNAUTHENTICATED"));
    let mut tokens = TokenServiceClient::new(world.workload.clone());
    let snapshot = ok(tokens
        .list_revocations(tok::ListRevocationsRequest::default())
        .await);
    assert!(snapshot.snapshot && !snapshot.more && snapshot.revocations.is_empty());
    dev.stop().await.unwrap();
}
