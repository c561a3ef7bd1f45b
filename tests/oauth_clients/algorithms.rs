//! Signing keys change their algorithm under load, and no verifier rejects a good token: libraries of three languages,
//! each with a copy of the JWKS as old as `Cache-Control` allows, and never a newer one for an unknown key.

use std::{collections::HashSet, process::Command, time::Duration};

use accord::{
    clock::{Clock, ManualClock, UnixMillis},
    testing::calls::ok,
    token::v1::{
        RotateSigningKeyRequest, SigningKeyState, signing_key_service_client::SigningKeyServiceClient,
    },
};
use tokio::task::JoinSet;

use super::{java::java, node::Programs, program::Program, python::python};
use crate::{
    harness::{
        dev,
        partner::{World, own_grant},
        refusal::refused,
    },
    tokens::header,
};

tests!(
    no_verifier_rejects_a_token_while_the_algorithm_changes,
    verifiers_with_their_own_cache_of_keys_follow_a_rotation,
);

/// The `max-age` of the JWKS.
const MAX_AGE: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_secs(60);
/// Tokens that are issued at the same time, in each step.
const LOAD: usize = 8;

/// A resource server, and when it read the JWKS.
struct Verifier {
    name: &'static str,
    program: Program,
    reads_at: UnixMillis,
    knows_ed25519: bool,
}

async fn no_verifier_rejects_a_token_while_the_algorithm_changes() {
    // The programs know only the machine's time, and the test's runs ahead of it.
    let (_directory, dev, clock) = dev::start_now_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    world.first_tokens(&partner).await;
    let programs = Programs::new();
    let verifiers: [(_, Command, _); 4] = [
        ("jose", programs.command("algorithms-jose.js"), true),
        (
            "jsonwebtoken",
            programs.command("algorithms-jsonwebtoken.js"),
            false,
        ),
        ("PyJWT", python("pyjwt_resource_server.py"), true),
        ("Nimbus", java("NimbusAlgorithms"), true),
    ];
    let mut verifiers: Vec<_> = verifiers
        .into_iter()
        .zip(0..)
        .map(|((name, command, knows_ed25519), phase)| Verifier {
            name,
            program: Program::start(command, &world, &partner),
            // Their copies of the JWKS don't end at the same time.
            reads_at: clock.now().plus(STEP * phase),
            knows_ed25519,
        })
        .collect();
    for verifier in &mut verifiers {
        assert_eq!(
            verifier.program.judge("keys").await["keys"],
            2,
            "{}",
            verifier.name
        );
    }

    let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
    let mut signed_by = Vec::new();
    for algorithm in ["EdDSA", "ES256", "RS256", "PS256", "EdDSA"] {
        let request = RotateSigningKeyRequest {
            algorithm: algorithm.into(),
            ..Default::default()
        };
        if !signed_by.is_empty() {
            let next = ok(keys.rotate_signing_key(request.clone()).await)
                .signing_key
                .unwrap();
            assert_eq!(
                (next.state(), &*next.algorithm),
                (SigningKeyState::Next, algorithm)
            );
        }
        let mut is_waiting = !signed_by.is_empty();
        // As long as the new key waits, and until the last copy without the old one has ended.
        for minute in 0..13 {
            if is_waiting {
                let rotated = keys.rotate_signing_key(request.clone()).await;
                is_waiting = minute < 6;
                if is_waiting {
                    refused(
                        rotated,
                        (tonic::Code::FailedPrecondition, "KEY_NOT_YET_PUBLISHED"),
                    );
                } else {
                    let active = ok(rotated).signing_key.unwrap();
                    assert_eq!(active.state(), SigningKeyState::Active);
                }
            }
            let mut issuing = JoinSet::new();
            for _ in 0..LOAD {
                let (world, partner) = (world.clone(), partner.clone());
                issuing.spawn(async move { world.issue(&partner, own_grant()).await.unwrap() });
            }
            for issued in issuing.join_all().await {
                let token = issued.access_token;
                let signed = header(&token)["alg"].as_str().unwrap().to_owned();
                assert!(world.active(&token).await, "{signed}");
                for verifier in &mut verifiers {
                    let said = verifier.program.judge(&token).await;
                    let expected = signed != "EdDSA" || verifier.knows_ed25519;
                    assert_eq!(
                        said["accepted"], expected,
                        "{} at {signed}: {said}",
                        verifier.name
                    );
                }
                let (message, _) = token.rsplit_once('.').unwrap();
                let forged = format!("{message}.{}", "A".repeat(86));
                let verifier = &mut verifiers[minute % 4];
                let said = verifier.program.judge(&forged).await;
                assert_eq!(said["accepted"], false, "{} at {signed}", verifier.name);
                if signed_by.last() != Some(&signed) {
                    signed_by.push(signed);
                }
            }
            clock.advance(STEP);
            for verifier in &mut verifiers {
                if clock.now() >= verifier.reads_at.plus(MAX_AGE) {
                    verifier.reads_at = clock.now();
                    verifier.program.judge("keys").await;
                }
            }
        }
    }
    assert_eq!(signed_by, ["EdDSA", "ES256", "RS256", "PS256", "EdDSA"]);
    dev.stop().await.unwrap();
}

/// Rotates the keys, as soon as the next one has been published long enough.
async fn rotate(world: &World, clock: &ManualClock, algorithm: &str) {
    let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
    let mut rotate = async || {
        let request = RotateSigningKeyRequest {
            algorithm: algorithm.into(),
            ..Default::default()
        };
        keys.rotate_signing_key(request).await
    };
    for _ in 0..10 {
        let rotated = rotate()
            .await
            .ok()
            .and_then(|rotated| rotated.into_inner().signing_key);
        if rotated.is_some_and(|key| key.state() == SigningKeyState::Active) {
            return;
        }
        clock.advance(STEP);
    }
    panic!("the next key is not promoted");
}

async fn verifiers_with_their_own_cache_of_keys_follow_a_rotation() {
    let (_directory, dev, clock) = dev::start_now_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    world.first_tokens(&partner).await;
    let programs = Programs::new();
    rotate(&world, &clock, "ES256").await;
    let mut verifiers = [
        ("jwks-rsa", programs.command("caching-jwks-rsa.js")),
        ("Nimbus", java("NimbusCaching")),
    ]
    .map(|(name, command)| (name, Program::start(command, &world, &partner)));
    let (mut tokens, mut kids) = (Vec::new(), HashSet::new());
    for rotation in 0..3 {
        if rotation > 0 {
            rotate(&world, &clock, "ES256").await;
        }
        let token = world.issue(&partner, own_grant()).await.unwrap().access_token;
        kids.insert(header(&token)["kid"].as_str().unwrap().to_owned());
        let (message, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", "A".repeat(86));
        tokens.push(token);
        for (name, program) in &mut verifiers {
            // Those that earlier keys have signed, too.
            for token in &tokens {
                let said = program.judge(token).await;
                assert_eq!(
                    said["accepted"], true,
                    "{name} after {rotation} rotations: {said}"
                );
            }
            assert_eq!(program.judge(&forged).await["accepted"], false, "{name}");
        }
    }
    assert_eq!(kids.len(), 3);
    dev.stop().await.unwrap();
}
