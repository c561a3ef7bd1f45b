//! What is rejected of codes, and of whoever holds no key.

use std::time::Duration;

use super::{Deployment, Lines, Variant};
use crate::http::{
    token::{CREDENTIALS, with, without},
    tokens_issued,
};

#[tokio::test]
async fn a_code_of_another_client_used_again_or_after_60_seconds_is_rejected() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let [first, second] = &plan.parties;
        let mut lines = Lines::default();
        let code = plan.code(first).await;
        for party in [first, second] {
            let answer = plan.token(second, &party.by_code(&code)).await;
            lines.rejected("a code of another client", &answer, 400, "invalid_grant");
        }
        let tokens = plan.token(first, &first.by_code(&code)).await;
        lines.accepted("the code of the client", &tokens);
        plan.world.clock().advance(Duration::from_secs(1));
        let again = plan.token(first, &first.by_code(&code)).await;
        lines.rejected("a code used again a second later", &again, 400, "invalid_grant");
        let is_active = plan.world.is_active(&tokens.text("access_token")).await;
        lines.holds(
            "the token of a code that was used again has ended",
            !is_active,
            &again,
        );
        let code = plan.code(second).await;
        plan.world.clock().advance(Duration::from_secs(60));
        let late = plan.token(second, &second.by_code(&code)).await;
        lines.rejected("a code after its 60 s", &late, 400, "invalid_grant");
        assert_eq!(tokens_issued(&plan.world).await, 1);
    }
}

#[tokio::test]
async fn a_code_without_its_verifier_or_with_another_redirect_uri_is_rejected() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let [first, second] = &plan.parties;
        let mut lines = Lines::default();
        let code = plan.code(second).await;
        let bare = without(second.by_code(&code), "code_verifier");
        let answer = plan.token(second, &bare).await;
        lines.rejected("no code_verifier", &answer, 400, "invalid_request");
        let wrong = "another".repeat(7);
        for (line, change) in [
            ("a wrong code_verifier", ("code_verifier", &*wrong)),
            ("another redirect URI", ("redirect_uri", first.redirect_uri)),
        ] {
            let code = plan.code(second).await;
            let fields = with(second.by_code(&code), &[change]);
            let answer = plan.token(second, &fields).await;
            lines.rejected(line, &answer, 400, "invalid_grant");
        }
        assert_eq!(tokens_issued(&plan.world).await, 0);
        lines.accepted(
            "the same without a mistake",
            &plan.token(second, &second.by_code(&code)).await,
        );
    }
}

/// Whatever the grant. Nothing is used up, so the holder gets its tokens afterwards.
#[tokio::test]
async fn whoever_holds_no_key_gets_no_token() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let [first, second] = &plan.parties;
        let mut lines = Lines::default();
        let refresh_token = plan.first_tokens(first).await.text("refresh_token");
        let by_refresh_token = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh_token),
        ];
        let code = plan.code(first).await;
        let by_code = first.by_code(&code);
        let issued = tokens_issued(&plan.world).await;
        for fields in [&by_code[..], &by_refresh_token, &[CREDENTIALS]] {
            let grant = fields[0].1;
            match &second.certificate {
                None => {
                    let unbound = plan.authenticated(first, "token", fields);
                    let answer = unbound.send(&plan.world).await;
                    let line = format!("no holder of key: {grant} without a proof");
                    lines.rejected(&line, &answer, 400, "invalid_dpop_proof");
                    // A proof alone does not authenticate.
                    let proof = plan.proof(&first.prover, "token");
                    let alone = plan.bare(first, "token", fields);
                    let answer = alone.header("DPoP", proof).send(&plan.world).await;
                    let line = format!("no holder of key: {grant} with a proof alone");
                    lines.rejected(&line, &answer, 401, "invalid_client");
                    // Another client's key signs no assertion of this one.
                    let forged = plan.assertion_by(&second.signer, first, |_, _| ());
                    let request = plan.asserted("token", fields, &forged);
                    let proof = plan.proof(&first.prover, "token");
                    let answer = request.header("DPoP", proof).send(&plan.world).await;
                    let line = format!("no holder of key: {grant} with another client's assertion");
                    lines.rejected(&line, &answer, 401, "invalid_client");
                }
                Some(others) => {
                    let request = plan.bare(first, "token", fields);
                    let bare = request.clone().host_of_partners().send(&plan.world).await;
                    let line = format!("no holder of key: {grant} without a certificate");
                    lines.rejected(&line, &bare, 401, "invalid_client");
                    let other = request.certificate(others).send(&plan.world).await;
                    let line = format!("no holder of key: {grant} with another client's certificate");
                    lines.rejected(&line, &other, 401, "invalid_client");
                }
            }
        }
        assert_eq!(tokens_issued(&plan.world).await, issued);
        for fields in [&by_refresh_token[..], &by_code] {
            let line = format!("the holder of the key: {}", fields[0].1);
            lines.accepted(&line, &plan.token(first, fields).await);
        }
    }
}
