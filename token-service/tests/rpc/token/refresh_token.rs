//! Redeeming refresh tokens: one generation at a time.

use std::{collections::HashSet, time::Duration};

use accord::{audit::v1::AuditOutcome, text::opaque::RefreshToken, token::v1 as pb};

use super::{assert_consent_required, assert_invalid_grant, verified};
use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn generation(refresh_token: &str) -> u32 {
    RefreshToken::parse(refresh_token).unwrap().generation()
}

/// The same token with another MAC, or of another generation.
fn forged(refresh_token: &str, generation: u32, flip: u8) -> String {
    let token = RefreshToken::parse(refresh_token).unwrap();
    let mut mac = *token.mac();
    mac[0] ^= flip;
    RefreshToken::compose(token.family(), generation, &mac)
        .expose()
        .to_owned()
}

#[tokio::test]
async fn each_use_gives_the_next_generation() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    let second = world.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(
        [
            generation(&first.refresh_token),
            generation(&second.refresh_token)
        ],
        [1, 2]
    );
    let claims = verified(&world, &second.access_token).await;
    assert_eq!(
        claims.family_id,
        verified(&world, &first.access_token).await.family_id
    );
    assert!(
        world.is_active(&first.access_token).await,
        "a refresh ends no access token"
    );
    let event = world.audit_events("token.issue").await.remove(0);
    assert_eq!(event.detail["grant_type"], "refresh_token");
    assert_eq!(event.detail["jti"], claims.jti);
    assert!(world.audit_events("refresh_token.repeat").await.is_empty());
}

#[tokio::test]
async fn racing_callers_get_the_same_successor() {
    for world in World::start_on_all().await {
        let first = world.first_tokens().await;
        let mut racers = Vec::new();
        for _ in 0..16 {
            let (mut tokens, request) = (world.tokens(), world.by_refresh_token(&first.refresh_token));
            racers.push(tokio::spawn(async move { tokens.issue_token(request).await }));
        }
        let (mut successors, mut access_tokens) = (HashSet::new(), HashSet::new());
        for racer in racers {
            let answer = racer.await.unwrap().unwrap().into_inner();
            successors.insert(answer.refresh_token);
            access_tokens.insert(answer.access_token);
        }
        assert_eq!(successors.len(), 1, "one and the same refresh token");
        assert_eq!(access_tokens.len(), 16);
        let successor = successors.into_iter().next().unwrap();
        assert_eq!(generation(&successor), 2);
        for token in &access_tokens {
            assert!(world.is_active(token).await);
        }
        assert_eq!(world.audit_events("token.issue").await.len(), 17);
        assert_eq!(world.audit_events("refresh_token.repeat").await.len(), 15);
        world.refresh(&successor).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_answer_is_repeated_for_thirty_seconds_and_replaced_later() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    let second = world.refresh(&first.refresh_token).await.unwrap();
    world.clock().advance(Duration::from_secs(30));
    let again = world.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(again.refresh_token, second.refresh_token);
    // The repeat did not move the time.
    world.clock().advance(Duration::from_millis(1));
    let later = world.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(generation(&later.refresh_token), 3);
    let repeats = world.audit_events("refresh_token.repeat").await;
    assert_eq!(
        (repeats.len(), repeats[0].detail["generation"].as_str()),
        (1, "1")
    );
    // Generation 2 lies between the used one and the current one.
    assert_invalid_grant(world.refresh(&second.refresh_token).await);
    assert_invalid_grant(world.refresh(&later.refresh_token).await);
    for token in [
        &first.access_token,
        &second.access_token,
        &again.access_token,
        &later.access_token,
        &later.refresh_token,
    ] {
        assert!(!world.is_active(token).await);
    }
}

#[tokio::test]
async fn a_used_up_token_ends_the_family_and_its_access_tokens() {
    let world = World::start().await;
    // Whatever else is wrong with the call.
    let flaws: [fn(&World, &mut pb::IssueTokenRequest); 4] = [
        |_, _| (),
        |_, request| request.resource = "https://elsewhere.example".into(),
        |_, request| request.scopes = vec!["files.read".into()],
        |world, _| world.deactivate_api_user(true),
    ];
    for (index, flaw) in flaws.into_iter().enumerate() {
        let first = world.first_tokens().await;
        let second = world.refresh(&first.refresh_token).await.unwrap();
        let third = world.refresh(&second.refresh_token).await.unwrap();
        let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
        let mut old = world.by_refresh_token(&first.refresh_token);
        flaw(&world, &mut old);
        assert_invalid_grant(world.issue(old).await);
        world.deactivate_api_user(false);
        assert_invalid_grant(world.refresh(&third.refresh_token).await);
        for tokens in [&first, &second, &third] {
            assert!(!world.is_active(&tokens.access_token).await, "flaw {index}");
        }
        if index == 0 {
            assert!(
                world.is_active(&by_itself.access_token).await,
                "the consent stays"
            );
        }
        let events = world.audit_events("refresh_token.reuse").await;
        assert_eq!(events.len(), index + 1, "once for each family");
        assert_eq!(
            (events[0].outcome(), &events[0].subject),
            (AuditOutcome::Refused, &first.grant_id)
        );
        assert_eq!(events[0].detail["generation"], "1");
    }
}

#[tokio::test]
async fn a_token_that_is_not_the_clients_own_has_no_effect() {
    let world = World::start().await;
    let both = world.new_client(&["acme", "globex"]);
    let code = world.approved(&both, |_| ()).await.authorization_code;
    let first = world.issue(both.instead(&world.by_code(&code))).await.unwrap();
    let refresh = |token: &str| both.instead(&world.by_refresh_token(token));
    let second = world.issue(refresh(&first.refresh_token)).await.unwrap();
    let token = &second.refresh_token;
    for wrong in [
        "x",
        &token[..token.len() - 1],
        &forged(token, 2, 1),
        &forged(token, 1, 1),
        &forged(token, 1, 0),
        &forged(token, 3, 0),
        &forged(token, u32::MAX, 0),
    ] {
        assert_invalid_grant(world.issue(refresh(wrong)).await);
    }
    for stolen in [&first.refresh_token, token] {
        // Another client's attempt; and the client's own at another tenant.
        assert_invalid_grant(world.refresh(stolen).await);
        for tenant_id in ["globex", "nobody"] {
            let elsewhere = pb::IssueTokenRequest {
                tenant_id: tenant_id.into(),
                ..refresh(stolen)
            };
            assert_invalid_grant(world.issue(elsewhere).await);
        }
    }
    assert!(world.audit_events("refresh_token.reuse").await.is_empty());
    world.issue(refresh(token)).await.unwrap();
}

#[tokio::test]
async fn a_suspension_pauses_the_family_and_the_token_is_not_used_up() {
    let world = World::start().await;
    let mut tokens = world.first_tokens().await;
    type Change = fn(&World, bool);
    let changes: [Change; 2] = [
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
    ];
    for change in changes {
        change(&world, true);
        assert_consent_required(world.refresh(&tokens.refresh_token).await, Some("SUSPENDED"));
        change(&world, false);
        tokens = world.refresh(&tokens.refresh_token).await.unwrap();
    }
    world.suspend("client", true);
    world.refresh(&tokens.refresh_token).await.unwrap_err();
    world.suspend("client", false);
    let last = world.refresh(&tokens.refresh_token).await.unwrap();
    assert_eq!(generation(&last.refresh_token), 4);
}

#[tokio::test]
async fn a_family_ends_with_its_epoch_client_or_idle_time() {
    type Change = fn(&World);
    let changes: [Change; 4] = [
        |world| world.start_registry_epoch(),
        // As when a secret of the client's is known to others: the change is a later one than all.
        |world| world.change_client(|client| client.families_ended_seq = i64::MAX),
        |world| world.clock().advance(30 * DAY),
        // A suspension does not stop the idle clock.
        |world| {
            world.suspend("tenant", true);
            world.clock().advance(30 * DAY);
            world.suspend("tenant", false);
        },
    ];
    for change in changes {
        let world = World::start().await;
        let tokens = world.first_tokens().await;
        change(&world);
        assert!(!world.is_active(&tokens.refresh_token).await);
        assert_invalid_grant(world.refresh(&tokens.refresh_token).await);
    }
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    world.revoke_consent(&tokens.grant_id).await;
    assert!(!world.is_active(&tokens.access_token).await);
    assert!(!world.is_active(&tokens.refresh_token).await);
    assert_invalid_grant(world.refresh(&tokens.refresh_token).await);
}

#[tokio::test]
async fn an_access_token_does_not_outlive_the_family() {
    let world = World::start().await;
    let mut last = world.first_tokens().await;
    for _ in 0..3 {
        world.clock().advance(30 * DAY - Duration::from_secs(30));
        last = world.refresh(&last.refresh_token).await.unwrap();
    }
    assert_eq!(last.expires_in, 90);
    world.clock().advance(Duration::from_secs(90));
    assert_invalid_grant(world.refresh(&last.refresh_token).await);
}

#[tokio::test]
async fn a_family_goes_on_as_the_new_designated_user() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    world.change_designated_user(&first.grant_id).await;
    assert!(!world.is_active(&first.access_token).await);
    let second = world.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(
        verified(&world, &second.access_token).await.sub,
        world.second_user_id
    );
    assert!(world.is_active(&second.access_token).await);
}
