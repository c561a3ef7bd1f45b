//! What is accepted.

use std::time::Duration;

use accord::{registry::v1::SecurityProfile, testing::dpop::ProofKey};
use serde_json::{Value, json};

use super::{Deployment, Lines, Party, Variant, deployment::parameter};
use crate::{
    http::{
        Answer,
        browser::Browser,
        client::encoded,
        connection::thumbprint,
        pushed_request::target,
        token::{CREDENTIALS, with, without},
    },
    world::confirmation,
};

/// Notes whether a token is bound to the key of its client, as each variant has it.
#[track_caller]
fn note_bound(lines: &mut Lines, line: &str, party: &Party, answer: &Answer) {
    lines.accepted(line, answer);
    let body = answer.json();
    let (kind, bound) = match &party.certificate {
        None => ("DPoP", json!({"jkt": party.prover.jkt()})),
        Some(pair) => ("Bearer", json!({"x5t#S256": thumbprint(pair)})),
    };
    let token = body["access_token"].as_str().unwrap_or_default();
    let is_bound = body["token_type"] == kind && confirmation(token) == bound;
    lines.holds(
        &format!("{line}: bound to the key of the client"),
        is_bound,
        answer,
    );
}

#[tokio::test]
async fn a_pushed_request_leads_back_to_its_client() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let mut lines = Lines::default();
        for party in &plan.parties {
            let state = "state-".repeat(30);
            let fields = with(plan.parameters(party), &[("state", &state)]);
            let answer = plan.push(party, &fields).await;
            lines.accepted("a state of 100 and more characters at PAR", &answer);
            let beside = [
                ("state", "of the link"),
                ("response_type", "token"),
                ("redirect_uri", "https://evil.example/"),
                ("scope", "files.read"),
                ("code_challenge", "short"),
            ];
            let target = target(&party.client_id, &answer.text("request_uri"));
            let target = format!("{target}&{}", encoded(&beside));
            let opened = Browser::new(&plan.world).get(&target).await;
            lines.holds(
                "a request_uri opened before its decision",
                opened.status == 200,
                &opened,
            );
            // Fails if it can't be opened a second time.
            let url = plan
                .decide_at(&mut Browser::new(&plan.world), &target, "approve")
                .await;
            let separator = if party.redirect_uri.contains('?') {
                '&'
            } else {
                '?'
            };
            let start = format!("{}{separator}code=acc_", party.redirect_uri);
            lines.holds(
                "the query of the redirect URI survives",
                url.as_str().starts_with(&start),
                &url,
            );
            let returned = parameter(&url, "state");
            lines.holds(
                "a state of 100 and more characters, and none of the parameters beside request_uri",
                returned == Some(state),
                &url,
            );
            lines.holds(
                "iss",
                parameter(&url, "iss").as_ref() == Some(&plan.world.issuer),
                &url,
            );
            let code = parameter(&url, "code").unwrap();
            let tokens = plan.token(party, &party.by_code(&code)).await;
            note_bound(&mut lines, "the code", party, &tokens);

            let fields = without(plan.parameters(party), "state");
            let answer = plan.push(party, &fields).await;
            lines.accepted("a request without state", &answer);
            let url = plan.decide(party, &answer.text("request_uri"), "approve").await;
            let has_none = parameter(&url, "state").is_none() && parameter(&url, "code").is_some();
            lines.holds("a request without state returns none", has_none, &url);
        }
    }
}

#[tokio::test]
async fn tokens_are_renewed_and_requested_with_client_credentials() {
    for variant in Variant::ALL {
        let plan = Deployment::start(variant).await;
        let mut lines = Lines::default();
        for party in &plan.parties {
            for follows_profile in [true, false] {
                if !follows_profile {
                    let registry = plan.world.registry();
                    registry.edit_client(&party.client_id, |client| {
                        client.security_profile = SecurityProfile::Unspecified.into();
                        client.profile_start_time = None;
                    });
                }
                let first = plan.first_tokens(party).await.text("refresh_token");
                let renew = async |token: &str| {
                    let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
                    plan.token(party, &fields).await
                };
                let renewed = renew(&first).await;
                note_bound(&mut lines, "a renewal", party, &renewed);
                let last = renewed.text("refresh_token");
                let line = "refresh tokens are not rotated under the profile, and are without";
                lines.holds(line, (last == first) == follows_profile, &renewed);
                plan.world.clock().advance(Duration::from_secs(30));
                let line = "the refresh token before last 30 s after a renewal";
                lines.accepted(line, &renew(&first).await);
                lines.accepted("the last refresh token", &renew(&last).await);
                let line = "client credentials";
                note_bound(&mut lines, line, party, &plan.token(party, &[CREDENTIALS]).await);
            }
        }
    }
}

#[tokio::test]
async fn an_assertion_whose_nbf_is_8_seconds_ahead_is_accepted() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let now = plan.now();
    let mut lines = Lines::default();
    for party in &plan.parties {
        plan.first_tokens(party).await;
        let ahead = || plan.assertion(party, |_, claims: &mut Value| claims["nbf"] = json!(now + 8));
        let pushing = plan.asserted("par", &plan.parameters(party), &ahead());
        lines.accepted(
            "nbf of an assertion 8 s ahead at PAR",
            &pushing.send(&plan.world).await,
        );
        let asking = plan.asserted("token", &[CREDENTIALS], &ahead());
        let asking = asking.header("DPoP", plan.proof(&party.prover, "token"));
        lines.accepted(
            "nbf of an assertion 8 s ahead at the token endpoint",
            &asking.send(&plan.world).await,
        );
    }
}

#[tokio::test]
async fn a_proof_at_par_and_dpop_jkt_bind_the_code() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let mut lines = Lines::default();
    for party in &plan.parties {
        let jkt = party.prover.jkt();
        let named = with(plan.parameters(party), &[("dpop_jkt", &jkt)]);
        let with_proof = |fields: &[(&str, &str)]| {
            let request = plan.authenticated(party, "par", fields);
            request.header("DPoP", plan.proof(&party.prover, "par"))
        };
        for (line, request) in [
            (
                "a proof at PAR binds the code",
                with_proof(&plan.parameters(party)),
            ),
            (
                "dpop_jkt binds the code",
                plan.authenticated(party, "par", &named),
            ),
            ("dpop_jkt and its proof bind the code", with_proof(&named)),
        ] {
            let code = plan.code_for(party, request).await;
            let thief = ProofKey::es256();
            let request = plan.authenticated(party, "token", &party.by_code(&code));
            let other = request.header("DPoP", plan.proof(&thief, "token"));
            let answer = other.send(&plan.world).await;
            lines.rejected(
                &format!("{line}: another key is rejected"),
                &answer,
                400,
                "invalid_grant",
            );
            let none = plan.authenticated(party, "token", &party.by_code(&code));
            let answer = none.send(&plan.world).await;
            lines.rejected(
                &format!("{line}: no holder of the key"),
                &answer,
                400,
                "invalid_dpop_proof",
            );
            let answer = plan.token(party, &party.by_code(&code)).await;
            note_bound(&mut lines, line, party, &answer);
        }
        let other = ProofKey::ed25519().jkt();
        let differing = with(plan.parameters(party), &[("dpop_jkt", &other)]);
        let answer = with_proof(&differing).send(&plan.world).await;
        let line = "dpop_jkt and proof at PAR that differ";
        lines.rejected(line, &answer, 400, "invalid_dpop_proof");
    }
}
