//! Codes and refresh tokens: each works once, and a replay ends the tokens that came from it.

use std::time::Duration;

use crate::harness::{
    dev,
    partner::{REDIRECT_URI, World, code_grant, own_grant, refresh_grant},
    refusal::{INVALID_GRANT, refused},
    services::Services,
};
use accord::{testing, token::v1 as tok};

tests!(
    a_code_is_redeemed_once_by_its_client_with_its_verifier_in_time,
    refresh_tokens_follow_their_generations,
    racing_callers_move_a_family_once_and_redeem_a_code_once,
);

async fn a_code_is_redeemed_once_by_its_client_with_its_verifier_in_time() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);

    // Another client's attempt does not use the code up.
    let approved = world.approve(&partner).await;
    refused(world.issue(&other, code_grant(&approved)).await, INVALID_GRANT);
    let issued = world.issue(&partner, code_grant(&approved)).await.unwrap();
    assert_eq!(issued.grant_id, approved.grant_id);

    // A second use ends the first one's tokens, although the call fails.
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
        "the grant is still active"
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

    // After a lost response, the predecessor gets the same successor within 30 seconds.
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
    let parsed = accord::text::opaque::RefreshToken::parse(&second.refresh_token).unwrap();
    for (generation, mac) in [(2, [0; 32]), (1, [7; 32]), (3, *parsed.mac())] {
        let forged = accord::text::opaque::RefreshToken::compose(parsed.family(), generation, &mac);
        refused(
            world.issue(&partner, refresh_grant(forged.expose())).await,
            INVALID_GRANT,
        );
    }
    let third = world
        .issue(&partner, refresh_grant(&second.refresh_token))
        .await
        .unwrap();

    // A token that is two generations old is a replay, and the family ends.
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
        "the grant is still active"
    );
    dev.stop().await.unwrap();
}

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
        let parsed = accord::text::opaque::RefreshToken::parse(&successors[0]).unwrap();
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
                lost => drop(refused(lost, INVALID_GRANT)),
            }
        }
        // A loser's attempt counts as a replay, which may end the winner's tokens before they leave.
        assert!(won <= 1, "{}: {won} callers redeemed one code", registry.label);
    }
}
